"""Whether power over time and the counted energy tell the same story; it only marks."""

from dataclasses import dataclass, replace

from gridtokenx_agent.counters import Counter
from gridtokenx_agent.validation import Thresholds

_LONGEST_STEP_MS = 60_000
"""Power seen more seldom says nothing about the energy between."""
_FLOOR_W = 20
_MS_PER_HOUR = 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What was counted and what was measured since a good reading of the counters.

    Attributes:
        start: That reading.
        power_w: Last power, import positive.
        at_ms: When it was measured, boot-time clock.
        twice_w_ms: Twice the power over time (trapezoids), so that it stays a whole number.
    """

    start: Counter
    power_w: int
    at_ms: int
    twice_w_ms: int = 0


def measured(balance: Balance | None, power_w: int | None, at_ms: int) -> Balance | None:
    """Add one measurement; None where power was not seen often enough to compare."""
    if balance is None or power_w is None or not 0 <= at_ms - balance.at_ms <= _LONGEST_STEP_MS:
        return None
    area = (balance.power_w + power_w) * (at_ms - balance.at_ms)
    return replace(balance, power_w=power_w, at_ms=at_ms, twice_w_ms=balance.twice_w_ms + area)


def compare(
    balance: Balance | None,
    counter: Counter,
    power_w: int | None,
    resolution_wh: int,
    limits: Thresholds,
) -> tuple[Balance | None, str]:
    """Take a good reading of the counters; return the balance from here, and what disagrees.

    Args:
        balance: What was measured so far, this reading's power included.
        counter: The reading.
        power_w: Power at the reading.
        resolution_wh: Smallest step of the counters.
        limits: Length of the comparison, and how much may differ.
    """
    fresh = (
        None
        if power_w is None
        else Balance(start=counter, power_w=power_w, at_ms=counter.at.mono_ms)
    )
    if balance is None or balance.start.at.boot_id != counter.at.boot_id:
        return fresh, ""
    elapsed_ms = counter.at.mono_ms - balance.start.at.mono_ms
    if elapsed_ms < limits.energy_window_ms:
        return balance, ""
    return fresh, _difference(balance, counter, elapsed_ms, resolution_wh, limits.energy_percent)


def _difference(
    balance: Balance, counter: Counter, elapsed_ms: int, resolution_wh: int, percent: int
) -> str:
    start = balance.start
    counted_wh = (counter.import_.total_wh - start.import_.total_wh) - (
        counter.export.total_wh - start.export.total_wh
    )
    measured_wh = balance.twice_w_ms // (2 * _MS_PER_HOUR)
    # A meter that has no export counter has nothing to compare exported power with.
    if measured_wh < 0 and counted_wh == 0 and counter.export.total_wh == 0:
        return ""
    floor_wh = 2 * resolution_wh + _FLOOR_W * elapsed_ms // _MS_PER_HOUR
    allowed_wh = max(abs(counted_wh), abs(measured_wh)) * percent // 100 + floor_wh
    if abs(counted_wh - measured_wh) <= allowed_wh:
        return ""
    return f"counted {counted_wh} Wh, power says {measured_wh} Wh in {elapsed_ms // 1000} s"
