"""What the audit and the proofs read from the store."""

from gridtokenx_cloud.adapters.store.database import Connection, Database, Row
from gridtokenx_cloud.audit import StoredBatch, StoreSnapshot
from gridtokenx_cloud.errors import NotFoundError
from gridtokenx_cloud.proof import ProofSource


class SqlAuditStore:
    """`AuditStore` over SQLite."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def snapshot(self) -> StoreSnapshot:
        """See `AuditStore.snapshot`."""
        with self._database.snapshot() as read:
            batches = read.execute("SELECT * FROM mint_batches ORDER BY batch_id").fetchall()
            minted = read.execute(
                "SELECT COALESCE(SUM(credit_wh), 0) AS wh FROM meter_readings WHERE minted = 1"
            ).fetchone()
            stranded = read.execute(
                "SELECT r.reading_id FROM mint_batches b JOIN meter_readings r"
                " ON r.batch_id = b.batch_id WHERE b.state IN ('final', 'void') AND r.minted = 0"
                " ORDER BY r.reading_id LIMIT 100"
            ).fetchall()
            return StoreSnapshot(
                tuple(_batch(read, row) for row in batches),
                minted["wh"],
                tuple(row["reading_id"] for row in stranded),
            )

    def proof_source(self, reading_id: int) -> ProofSource:
        """Return what a proof of one reading is made of.

        Raises:
            NotFoundError: No such reading, or it is not minted.
        """
        read = self._database.connection
        row = read.execute(
            "SELECT b.*, r.gateway_id, r.user_id FROM meter_readings r"
            " JOIN mint_batches b ON b.batch_id = r.batch_id"
            " WHERE r.reading_id = ? AND r.minted = 1",
            (reading_id,),
        ).fetchone()
        if row is None:
            raise NotFoundError(
                f"reading {reading_id} is not minted; there is nothing to prove yet"
            )
        leaves = read.execute(
            "SELECT reading_id, line FROM meter_readings WHERE batch_id = ?"
            " ORDER BY meter_id, epoch, seq",
            (row["batch_id"],),
        ).fetchall()
        index = [leaf["reading_id"] for leaf in leaves].index(reading_id)
        lines = tuple(leaf["line"] for leaf in leaves)
        return ProofSource(
            lines=lines,
            index=index,
            batch_id=row["batch_id"],
            memo=row["memo"],
            signature=row["signature"],
            gateway_id=row["gateway_id"],
            user_id=row["user_id"],
        )


def _batch(read: Connection, row: Row) -> StoredBatch:
    batch_id = row["batch_id"]
    minted = read.execute(
        "SELECT COALESCE(SUM(credit_wh), 0) AS wh FROM meter_readings"
        " WHERE batch_id = ? AND minted = 1",
        (batch_id,),
    ).fetchone()
    items = read.execute(
        "SELECT token_account, amount_base_units FROM mint_items"
        " WHERE batch_id = ? AND held_reason IS NULL",
        (batch_id,),
    )
    attempts = read.execute("SELECT signature FROM mint_attempts WHERE batch_id = ?", (batch_id,))
    return StoredBatch(
        batch_id=batch_id,
        state=row["state"],
        memo=row["memo"],
        marker=row["marker"],
        marker_reclaimed=row["marker_reclaimed_at_ms"] is not None,
        signature=row["signature"],
        total_wh=row["total_wh"],
        total_base_units=row["total_base_units"],
        minted_wh=minted["wh"],
        payments={item["token_account"]: item["amount_base_units"] for item in items},
        attempts=tuple(attempt["signature"] for attempt in attempts),
    )
