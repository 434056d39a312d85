"""The operators' side of the retry queue."""

from collections.abc import Sequence

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.outbox import append_audit
from gridtokenx_cloud.errors import NotFoundError
from gridtokenx_cloud.events import kwh_text, rfc3339
from gridtokenx_cloud.ports.common import Clock

Row = dict[str, object]


class SqlRetryQueue:
    """Lists refused credits, sends them on, or lays them aside; none is ever lost."""

    def __init__(self, database: Database, clock: Clock, *, actor: str) -> None:
        self._database = database
        self._clock = clock
        self._actor = actor

    def rows(self, *, parked_only: bool = False) -> Sequence[Row]:
        """Return the queue, those that wait for an operator first."""
        rows = self._database.connection.execute(
            "SELECT q.*, r.meter_id, r.credit_wh, r.user_id FROM minting_retry_queue q"
            " JOIN meter_readings r USING (reading_id)"
            " WHERE r.minted = 0 AND (? = 0 OR q.parked_at_ms IS NOT NULL)"
            " ORDER BY q.parked_at_ms IS NULL, q.next_retry_at_ms, q.reading_id",
            (int(parked_only),),
        )
        return [
            {
                "reading_id": row["reading_id"],
                "meter_id": row["meter_id"],
                "user_id": row["user_id"],
                "kwh": kwh_text(row["credit_wh"]),
                "attempts": row["attempts"],
                "next_retry_at": None if row["parked_at_ms"] else rfc3339(row["next_retry_at_ms"]),
                "parked_at": rfc3339(row["parked_at_ms"]) if row["parked_at_ms"] else None,
                "error_code": row["error_code"],
                "error_message": row["error_message"],
            }
            for row in rows
        ]

    def requeue(self, reading_id: int) -> None:
        """Let the next pass try this credit again, with all its attempts before it.

        Raises:
            NotFoundError: It is not in the queue.
        """
        self._change(
            reading_id,
            "retry_requeued",
            "UPDATE minting_retry_queue SET parked_at_ms = NULL, attempts = 1,"
            " next_retry_at_ms = :now, updated_at_ms = :now WHERE reading_id = :reading",
        )

    def give_up(self, reading_id: int) -> None:
        """Lay a credit aside until somebody requeues it.

        Raises:
            NotFoundError: It is not in the queue.
        """
        self._change(
            reading_id,
            "retry_given_up",
            "UPDATE minting_retry_queue SET parked_at_ms = :now, updated_at_ms = :now"
            " WHERE reading_id = :reading",
        )

    def _change(self, reading_id: int, action: str, sql: str) -> None:
        now_ms = self._clock.now_ms()
        with self._database.transaction() as tx:
            changed = tx.execute(sql, {"now": now_ms, "reading": reading_id}).rowcount
            if not changed:
                raise NotFoundError(
                    f"reading {reading_id} is not in the retry queue; see `gtx-cloud retry list`"
                )
            append_audit(
                tx,
                at_ms=now_ms,
                actor=self._actor,
                action=action,
                subject=f"reading:{reading_id}",
                detail={},
            )
