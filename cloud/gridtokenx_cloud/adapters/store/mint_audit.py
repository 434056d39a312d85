"""What the audit and the proofs read from the store."""

from collections.abc import Iterator

from gridtokenx_cloud.adapters.store.archive import files_with_batch, files_with_reading
from gridtokenx_cloud.adapters.store.database import Connection, Database, Row
from gridtokenx_cloud.adapters.store.foreign_mints import foreign_mints
from gridtokenx_cloud.adapters.store.mint_checks import store_faults
from gridtokenx_cloud.batching import parse_memo
from gridtokenx_cloud.errors import ArchiveUnavailableError, NotFoundError
from gridtokenx_cloud.merkle import leaf_hash, merkle_root
from gridtokenx_cloud.ports.archive import ArchiveFolder
from gridtokenx_cloud.ports.audit import Difference, StoredBatch, StoreSnapshot
from gridtokenx_cloud.proof import ProofSource

_LEAF_COLUMNS = "reading_id, meter_id, epoch, seq, gateway_id, user_id, line"
_Leaf = tuple[int, str, str, int, str, str, bytes]


class SqlAuditStore:
    """`AuditStore` over SQLite.

    Args:
        database: The store.
        archive: Where readings went that have left it.
    """

    def __init__(self, database: Database, archive: ArchiveFolder | None = None) -> None:
        self._database = database
        self._archive = archive

    def snapshot(self) -> StoreSnapshot:
        """See `AuditStore.snapshot`."""
        with self._database.snapshot() as read:
            batches = read.execute("SELECT * FROM mint_batches ORDER BY batch_id").fetchall()
            minted = read.execute(
                "SELECT COALESCE(SUM(credit_wh), 0)"
                " + (SELECT COALESCE(SUM(credit_wh), 0) FROM archived_shares) AS wh"
                " FROM meter_readings WHERE minted = 1"
            ).fetchone()
            return StoreSnapshot(
                tuple(_batch(read, row) for row in batches),
                minted["wh"],
                tuple(store_faults(read)),
                foreign_mints(read),
            )

    def known_signatures(self) -> frozenset[str]:
        """See `AuditStore.known_signatures`."""
        rows = self._database.connection.execute(
            "SELECT signature FROM mint_attempts"
            " UNION SELECT signature FROM mint_batches WHERE signature IS NOT NULL"
        )
        return frozenset(row["signature"] for row in rows) | foreign_mints(
            self._database.connection
        )

    def line_faults(self) -> Iterator[Difference]:
        """Yield the batches whose readings, hashed again, do not have the root in their memo.

        Reads every line that was ever in a batch, those in the archive too.

        Raises:
            ArchiveUnavailableError: Lines are archived, and the archive cannot be read.
        """
        read = self._database.connection
        batches = read.execute(
            "SELECT batch_id, memo, leaf_count FROM mint_batches WHERE state <> 'void'"
            " ORDER BY batch_id"
        ).fetchall()
        for row in batches:
            memo = parse_memo(row["memo"])
            leaves = self._leaves(read, row["batch_id"], row["leaf_count"])
            root = merkle_root([leaf_hash(leaf[-1]) for leaf in leaves])
            if memo is None or (memo.root, memo.leaves) != (root, len(leaves)):
                yield Difference(
                    f"batch {row['batch_id']}",
                    "LinesDiffer",
                    f"{len(leaves)} readings have another root than its memo {row['memo']}",
                )

    def proof_source(self, reading_id: int) -> ProofSource:
        """Return what a proof of one reading is made of.

        Raises:
            NotFoundError: No such reading, or it is not minted.
            ArchiveUnavailableError: It is archived, and the archive cannot be read.
        """
        read = self._database.connection
        batch_id = self._batch_of(read, reading_id)
        batch = None
        if batch_id is not None:
            batch = read.execute(
                "SELECT memo, signature, leaf_count FROM mint_batches"
                " WHERE batch_id = ? AND state = 'final'",
                (batch_id,),
            ).fetchone()
        if batch_id is None or batch is None:
            raise NotFoundError(
                f"reading {reading_id} is not minted; there is nothing to prove yet"
            )
        leaves = self._leaves(read, batch_id, batch["leaf_count"])
        index = [leaf[0] for leaf in leaves].index(reading_id)
        *_, gateway_id, user_id, _line = leaves[index]
        return ProofSource(
            lines=tuple(leaf[-1] for leaf in leaves),
            index=index,
            batch_id=batch_id,
            memo=batch["memo"],
            signature=batch["signature"],
            gateway_id=gateway_id,
            user_id=user_id,
        )

    def _batch_of(self, read: Connection, reading_id: int) -> int | None:
        row = read.execute(
            "SELECT batch_id FROM meter_readings WHERE reading_id = ?", (reading_id,)
        ).fetchone()
        if row is not None:
            return row["batch_id"]  # type: ignore[no-any-return]
        names = files_with_reading(read, reading_id)
        archived = self._folder(names).reading(names, reading_id) if names else None
        return None if archived is None else archived.batch_id

    def _leaves(self, read: Connection, batch_id: int, count: int) -> list[_Leaf]:
        """Return the batch's readings in the order of the tree, also those that are archived."""
        rows = read.execute(
            f"SELECT {_LEAF_COLUMNS} FROM meter_readings WHERE batch_id = ?",  # noqa: S608 - constants
            (batch_id,),
        )
        leaves: list[_Leaf] = [(*tuple(row)[:-1], bytes(row["line"])) for row in rows]
        if len(leaves) < count:
            names = files_with_batch(read, batch_id)
            leaves += [
                (
                    one.reading_id,
                    one.meter_id,
                    one.epoch,
                    one.seq,
                    one.gateway_id,
                    one.user_id,
                    one.line,
                )
                for one in self._folder(names).of_batch(names, batch_id)
            ]
        return sorted(leaves, key=lambda leaf: leaf[1:4])

    def _folder(self, names: list[str]) -> ArchiveFolder:
        if self._archive is None:
            raise ArchiveUnavailableError(
                f"its lines are archived in {', '.join(names)}; set GTX_CLOUD_ARCHIVE_DIR"
            )
        return self._archive


def _batch(read: Connection, row: Row) -> StoredBatch:
    batch_id = row["batch_id"]
    minted = read.execute(
        "SELECT COALESCE(SUM(credit_wh), 0) + (SELECT COALESCE(SUM(credit_wh), 0)"
        " FROM archived_shares WHERE batch_id = ?) AS wh FROM meter_readings"
        " WHERE batch_id = ? AND minted = 1",
        (batch_id, batch_id),
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
