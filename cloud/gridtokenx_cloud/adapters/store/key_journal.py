"""What signing keys did and refused: on record in the audit log, and counted for the daily cap."""

import logging
from collections.abc import Callable, Iterator

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.outbox import append_audit
from gridtokenx_cloud.metrics import Figure
from gridtokenx_cloud.ports.common import Clock

_ACTOR = "settle"
_log = logging.getLogger(__name__)


class SqlKeyJournal:
    """Each method is one commit or one read; it also counts what was refused."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._refusals = 0

    def figures(self) -> Iterator[Figure]:
        """Yield what it counted since the process began."""
        meaning = "Transactions that a signer's policy refused"
        yield Figure("signer_refusals_total", meaning, self._refusals)

    def key_loaded(self, role: str, address: str, kind: str) -> None:
        """Write down which key serves in a role from now on."""
        _log.info("key_loaded", extra={"role": role, "address": address})
        self._append("key_loaded", address, role=role, kind=kind.partition("(")[0])

    def refused(self, address: str) -> Callable[[str], None]:
        """Return what writes a signer's refusals down: each reason once until it changes.

        A batch that is refused is tried again until somebody has acted.
        """
        last: list[str] = []

        def refuse(reason: str) -> None:
            self._refusals += 1
            if last != [reason]:
                last[:] = [reason]
                _log.error("signer_refused", extra={"address": address, "reason": reason})
                self._append("signer_refused", address, reason=reason)

        return refuse

    def signed_since(self, since_ms: int) -> dict[str, int]:
        """Return marker -> base units of the batches with an attempt signed since then."""
        rows = self._database.connection.execute(
            "SELECT marker, total_base_units FROM mint_batches WHERE batch_id IN"
            " (SELECT batch_id FROM mint_attempts WHERE signed_at_ms >= ?)",
            (since_ms,),
        )
        return {row["marker"]: int(row["total_base_units"]) for row in rows}

    def _append(self, action: str, address: str, **detail: str) -> None:
        with self._database.transaction() as tx:
            append_audit(
                tx,
                at_ms=self._clock.now_ms(),
                actor=_ACTOR,
                action=action,
                subject=f"key:{address}",
                detail=detail,
            )
