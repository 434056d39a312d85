"""Whose a meter's readings are, and which gateway may send them, at one moment; pure.

The moment is a reading's own corrected time, or its arrival while nothing dates it. Two gateways
of a meter never share a moment after a move, so no energy counts in two epochs.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenure:
    """A time in which one gateway reads a meter.

    Attributes:
        from_ms: First moment.
        until_ms: First moment after it; None = open.
        moved_at_ms: When an operator moved the meter here; 0 = enrolled here.
    """

    gateway_id: str
    from_ms: int
    until_ms: int | None
    moved_at_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """An owner and the first moment that is theirs."""

    user_id: str
    wallet: str
    from_ms: int


def may_send(tenures: Sequence[Tenure], gateway_id: str, at_ms: int) -> bool:
    """Return whether *gateway_id* reads the meter at that moment."""
    return any(
        tenure.gateway_id == gateway_id
        and tenure.from_ms <= at_ms
        and (tenure.until_ms is None or at_ms < tenure.until_ms)
        for tenure in tenures
    )


def owner_at(owners: Sequence[Ownership], at_ms: int) -> Ownership | None:
    """Return who owns the meter at that moment; None when it never changed hands."""
    earlier = [owner for owner in owners if owner.from_ms <= at_ms]
    return max(earlier, key=lambda owner: owner.from_ms, default=None)
