"""`ArchiveStore`: which readings may leave, and what stays behind of them."""

import json
from collections.abc import Sequence

from gridtokenx_cloud.adapters.store.database import Connection, Database
from gridtokenx_cloud.adapters.store.outbox import append_audit
from gridtokenx_cloud.adapters.store.partitions import fold_months, month_of
from gridtokenx_cloud.errors import StoreBusyError
from gridtokenx_cloud.ports.archive import COLUMNS, ArchivedReading, ArchiveFile

_FILE_COLUMNS = (
    "name, sha256, readings, credit_wh, first_reading_id, last_reading_id, first_batch_id,"
    " last_batch_id, first_at_ms, last_at_ms, created_at_ms"
)
# The next reading of a meter is judged by the first, the newest and the last one of its epoch.
# The highest number of all stays, so that SQLite gives none out twice.
_FREE = """
    NOT EXISTS (SELECT 1 FROM meter_epochs e WHERE e.meter_id = r.meter_id AND e.epoch = r.epoch
        AND r.reading_id IN (e.baseline_reading_id, e.newest_reading_id, e.last_reading_id))
    AND r.reading_id < (SELECT max(reading_id) FROM meter_readings)
"""
_SETTLED_SQL = f"""
SELECT {", ".join("b.memo" if name == "memo" else f"r.{name}" for name in COLUMNS)}
FROM meter_readings r LEFT JOIN mint_batches b ON b.batch_id = r.batch_id
WHERE r.reading_id > ? AND r.reading_id < ? AND r.submitted_at_ms < ?
    AND ((r.minted = 1 AND b.state = 'final')
        OR (r.batch_id IS NULL AND r.credit_wh = 0
            AND r.status IN ('accepted', 'late', 'rejected')))
    AND {_FREE}
ORDER BY r.reading_id LIMIT ?
"""  # noqa: S608 - our own columns
_DONE_SQL = """
UPDATE archive_files SET state = 'done', sha256 = ?, readings = ?, credit_wh = ?,
    first_reading_id = ?, last_reading_id = ?, first_batch_id = ?, last_batch_id = ?,
    first_at_ms = ?, last_at_ms = ?
WHERE name = ? AND state = 'writing'
"""
_SHARES_SQL = """
INSERT INTO archived_shares (batch_id, user_id, meter_id, readings, credit_wh)
SELECT r.batch_id, r.user_id, r.meter_id, count(*), sum(r.credit_wh)
FROM {keys} k JOIN meter_readings r ON r.reading_id = k.id
WHERE r.credit_wh > 0 GROUP BY r.batch_id, r.user_id, r.meter_id
ON CONFLICT (batch_id, user_id, meter_id) DO UPDATE SET
    readings = archived_shares.readings + excluded.readings,
    credit_wh = archived_shares.credit_wh + excluded.credit_wh
"""
_THROUGH_SQL = """
UPDATE meter_epochs SET archived_through_seq = k.seq FROM {keys} k
WHERE meter_epochs.meter_id = k.meter AND meter_epochs.epoch = k.epoch
    AND coalesce(meter_epochs.archived_through_seq, -1) < k.seq
"""
# One that a clock record has dated since is not what the file has.
_DELETE_SQL = """
DELETE FROM meter_readings WHERE reading_id IN (
    SELECT r.reading_id FROM {keys} k JOIN meter_readings r ON r.reading_id = k.id
    WHERE coalesce(r.reading_timestamp_ms, -1) = k.dated AND {free})
"""


class SqlArchive:
    """`ArchiveStore` in a database.

    Args:
        database: The store.
        actor: Who archives, for the audit log.
    """

    def __init__(self, database: Database, *, actor: str) -> None:
        self._database = database
        self._actor = actor

    def unfinished(self) -> list[str]:
        """See `ArchiveStore.unfinished`."""
        rows = self._database.connection.execute(
            "SELECT name FROM archive_files WHERE state = 'writing' ORDER BY name"
        )
        return [row["name"] for row in rows]

    def forget(self, name: str) -> None:
        """See `ArchiveStore.forget`."""
        with self._database.transaction() as tx:
            tx.execute("DELETE FROM archive_files WHERE name = ? AND state = 'writing'", (name,))

    def end_of(self, before_ms: int) -> int:
        """See `ArchiveStore.end_of`."""
        read = self._database.connection
        newer = read.execute(
            "SELECT reading_id FROM meter_readings WHERE submitted_at_ms >= ?"
            " ORDER BY reading_id LIMIT 1",
            (before_ms,),
        ).fetchone()
        if newer is not None:
            return int(newer["reading_id"])
        last = read.execute("SELECT coalesce(max(reading_id), 0) AS id FROM meter_readings")
        return int(last.fetchone()["id"]) + 1

    def settled(self, after: int, end: int, before_ms: int, limit: int) -> list[ArchivedReading]:
        """See `ArchiveStore.settled`."""
        rows = self._database.connection.execute(_SETTLED_SQL, (after, end, before_ms, limit))
        return [ArchivedReading(**{**row, "line": bytes(row["line"])}) for row in map(dict, rows)]

    def announce(self, name: str, now_ms: int) -> None:
        """See `ArchiveStore.announce`."""
        with self._database.transaction() as tx:
            tx.execute(
                "INSERT INTO archive_files (name, state, created_at_ms) VALUES (?, 'writing', ?)",
                (name, now_ms),
            )

    def remove(self, file: ArchiveFile, readings: Sequence[ArchivedReading]) -> None:
        """See `ArchiveStore.remove`."""
        with self._database.transaction() as tx:
            _lock_meters(tx, readings)
            self._take_into_books(tx, file)
            ids = json.dumps([[one.reading_id] for one in readings])
            tx.execute(_SHARES_SQL.format(keys=tx.dialect.rows("#id")), (ids,))
            through: dict[tuple[str, str], int] = {}
            for one in readings:
                key = (one.meter_id, one.epoch)
                through[key] = max(one.seq, through.get(key, one.seq))
            tx.execute(
                _THROUGH_SQL.format(keys=tx.dialect.rows("meter", "epoch", "#seq")),
                (json.dumps([[*key, seq] for key, seq in sorted(through.items())]),),
            )
            _delete(tx, file, readings)
            append_audit(
                tx,
                at_ms=file.created_at_ms,
                actor=self._actor,
                action="readings_archived",
                subject=file.name,
                detail={"readings": file.readings, "sha256": file.sha256},
            )

    def _take_into_books(self, tx: Connection, file: ArchiveFile) -> None:
        values = (
            file.sha256,
            file.readings,
            file.credit_wh,
            file.first_reading_id,
            file.last_reading_id,
            file.first_batch_id,
            file.last_batch_id,
            file.first_at_ms,
            file.last_at_ms,
            file.name,
        )
        if tx.execute(_DONE_SQL, values).rowcount != 1:
            raise StoreBusyError(
                f"{file.name}: another program archives into another folder; give all the same"
            )

    def tidy(self, before_ms: int) -> None:
        """See `ArchiveStore.tidy`: whole months go with their partition."""
        fold_months(self._database, month_of(before_ms))

    def files(self) -> list[ArchiveFile]:
        """See `ArchiveStore.files`."""
        rows = self._database.connection.execute(
            f"SELECT {_FILE_COLUMNS} FROM archive_files WHERE state = 'done'"  # noqa: S608 - constants
            " ORDER BY first_reading_id, name"
        )
        return [ArchiveFile(**dict(row)) for row in rows]


def files_with_reading(read: Connection, reading_id: int) -> list[str]:
    """Return the names of the files that a reading of this number may be in."""
    return _names(read, "first_reading_id <= ? AND last_reading_id >= ?", reading_id)


def files_with_batch(read: Connection, batch_id: int) -> list[str]:
    """Return the names of the files that readings of this batch may be in."""
    return _names(read, "first_batch_id <= ? AND last_batch_id >= ?", batch_id)


def _names(read: Connection, condition: str, number: int) -> list[str]:
    rows = read.execute(
        f"SELECT name FROM archive_files WHERE state = 'done' AND {condition} ORDER BY name",  # noqa: S608 - constants
        (number, number),
    )
    return [row["name"] for row in rows]


def _lock_meters(tx: Connection, readings: Sequence[ArchivedReading]) -> None:
    """Keep ingest off these meters until the commit, in the order in which it takes them."""
    names = sorted({one.meter_id for one in readings})
    tx.execute(
        f"SELECT m.meter_id FROM {tx.dialect.rows('name')} k"  # noqa: S608 - our own columns
        " JOIN meters m ON m.meter_id = k.name"
        f" ORDER BY m.meter_id{tx.dialect.row_lock('m')}",
        (json.dumps([[name] for name in names]),),
    ).fetchall()


def _delete(tx: Connection, file: ArchiveFile, readings: Sequence[ArchivedReading]) -> None:
    dated = [
        [one.reading_id, -1 if one.reading_timestamp_ms is None else one.reading_timestamp_ms]
        for one in readings
    ]
    sql = _DELETE_SQL.format(keys=tx.dialect.rows("#id", "#dated"), free=_FREE)
    gone = tx.execute(sql, (json.dumps(dated),)).rowcount
    if gone != file.readings:
        raise StoreBusyError(
            f"{file.name}: {file.readings - gone} of its readings have changed since they were"
            " read; they stay in the store, and the next run takes them"
        )
