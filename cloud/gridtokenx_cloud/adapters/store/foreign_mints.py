"""Mints that an operator has declared not ours, such as a thief's: one audit entry each."""

import json

from gridtokenx_cloud.adapters.store.database import Connection, Database
from gridtokenx_cloud.adapters.store.outbox import append_audit
from gridtokenx_cloud.errors import ValidationError
from gridtokenx_cloud.ports.audit import ChainMint
from gridtokenx_cloud.ports.common import Clock

_ACTION, _PREFIX = "foreign_mint_acknowledged", "mint:"


def foreign_mints(read: Connection) -> frozenset[str]:
    """Return the signatures of all mints declared foreign."""
    rows = read.execute("SELECT subject FROM audit_log WHERE action = ?", (_ACTION,))
    return frozenset(row["subject"].removeprefix(_PREFIX) for row in rows)


def foreign_base_units(read: Connection) -> int:
    """Return what all mints declared foreign come to."""
    rows = read.execute("SELECT detail FROM audit_log WHERE action = ?", (_ACTION,))
    return sum(int(json.loads(row["detail"])["base_units"]) for row in rows)


class SqlForeignMints:
    """Declares mints foreign."""

    def __init__(self, database: Database, clock: Clock, *, actor: str) -> None:
        self._database = database
        self._clock = clock
        self._actor = actor

    def acknowledge(self, mint: ChainMint, reason: str) -> None:
        """Count a mint apart from now on: the audit knows it, and it halts the minting no more.

        Raises:
            ValidationError: No reason given.
        """
        if not reason.strip():
            raise ValidationError(
                "MissingReason", f"{mint.signature} cannot be declared foreign without a reason."
            )
        with self._database.transaction() as tx:
            append_audit(
                tx,
                at_ms=self._clock.now_ms(),
                actor=self._actor,
                action=_ACTION,
                subject=f"{_PREFIX}{mint.signature}",
                detail={
                    "reason": reason,
                    "base_units": str(sum(mint.payments.values())),
                    "slot": mint.slot,
                },
            )
