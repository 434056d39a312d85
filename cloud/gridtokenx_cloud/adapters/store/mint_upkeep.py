"""Lookup tables on record, and markers whose rent comes back."""

from collections.abc import Sequence

from gridtokenx_cloud.adapters.store.database import Connection, Database
from gridtokenx_cloud.adapters.store.outbox import append_audit
from gridtokenx_cloud.ports.upkeep import OldMarker, StoredTable, TableState

_ACTOR = "upkeep"


class SqlMintUpkeep:
    """`TableStore` and `MarkerStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def tables(self) -> list[StoredTable]:
        """See `TableStore.tables`."""
        rows = self._database.connection.execute(
            "SELECT address, recent_slot, state, used_at_ms FROM lookup_tables"
            " WHERE state <> 'closed' ORDER BY created_at_ms, address"
        )
        return [StoredTable(**dict(row)) for row in rows]

    def open_table(self, address: str, recent_slot: int, now_ms: int) -> None:
        """See `TableStore.open_table`."""
        self._write_table(address, recent_slot, "opening", now_ms)

    def adopt_table(self, address: str, now_ms: int) -> None:
        """See `TableStore.adopt_table`."""
        self._write_table(address, 0, "retiring", now_ms)

    def _write_table(self, address: str, slot: int, state: TableState, now_ms: int) -> None:
        with self._database.transaction() as tx:
            tx.execute(
                "INSERT INTO lookup_tables (address, recent_slot, state, used_at_ms,"
                " created_at_ms) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (address) DO UPDATE SET state = excluded.state",
                (address, slot, state, now_ms, now_ms),
            )
            self._audit(tx, now_ms, f"table_{state}", f"table:{address}")

    def move_table(self, address: str, state: TableState, now_ms: int) -> None:
        """See `TableStore.move_table`."""
        with self._database.transaction() as tx:
            tx.execute("UPDATE lookup_tables SET state = ? WHERE address = ?", (state, address))
            self._audit(tx, now_ms, f"table_{state}", f"table:{address}")

    def table_used(self, address: str, now_ms: int) -> None:
        """See `TableStore.table_used`."""
        with self._database.transaction() as tx:
            tx.execute(
                "UPDATE lookup_tables SET used_at_ms = ? WHERE address = ?", (now_ms, address)
            )

    def markers_to_reclaim(self, final_before_ms: int, limit: int) -> list[OldMarker]:
        """See `MarkerStore.markers_to_reclaim`."""
        rows = self._database.connection.execute(
            "SELECT b.batch_id, b.marker FROM marker_reclaims r JOIN mint_batches b"
            " ON b.batch_id = r.batch_id WHERE r.done_at_ms IS NULL ORDER BY b.batch_id LIMIT ?",
            (limit,),
        ).fetchall()
        rows += self._database.connection.execute(
            "SELECT batch_id, marker FROM mint_batches WHERE state = 'final'"
            " AND marker_reclaimed_at_ms IS NULL AND final_at_ms < ? ORDER BY batch_id LIMIT ?",
            (final_before_ms, limit - len(rows)),
        ).fetchall()
        return [OldMarker(row["batch_id"], row["marker"]) for row in rows]

    def intend_reclaim(self, markers: Sequence[OldMarker], now_ms: int) -> None:
        """See `MarkerStore.intend_reclaim`."""
        with self._database.transaction() as tx:
            for one in markers:
                fresh = tx.execute(
                    "INSERT INTO marker_reclaims (batch_id, intended_at_ms) VALUES (?, ?)"
                    " ON CONFLICT (batch_id) DO NOTHING",
                    (one.batch_id, now_ms),
                ).rowcount
                if not fresh:
                    continue
                # From here on it may be gone: an audit must not miss it.
                tx.execute(
                    "UPDATE mint_batches SET marker_reclaimed_at_ms = ? WHERE batch_id = ?",
                    (now_ms, one.batch_id),
                )
                self._audit(tx, now_ms, "marker_given_up", f"batch:{one.batch_id}")

    def reclaimed(self, markers: Sequence[OldMarker], lamports: int, now_ms: int) -> None:
        """See `MarkerStore.reclaimed`."""
        each, rest = divmod(lamports, max(1, len(markers)))
        with self._database.transaction() as tx:
            for place, one in enumerate(markers):
                came_back = each + (rest if place == 0 else 0)
                tx.execute(
                    "UPDATE marker_reclaims SET done_at_ms = ?, lamports = ? WHERE batch_id = ?",
                    (now_ms, came_back, one.batch_id),
                )
                subject = f"batch:{one.batch_id}"
                self._audit(tx, now_ms, "marker_reclaimed", subject, lamports=came_back)

    def _audit(
        self, tx: Connection, now_ms: int, action: str, subject: str, **detail: object
    ) -> None:
        append_audit(tx, at_ms=now_ms, actor=_ACTOR, action=action, subject=subject, detail=detail)
