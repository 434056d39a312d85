"""What a running cloud forgets in time."""

from gridtokenx_cloud.adapters.store.database import Database

_ROWS_PER_COMMIT = 5_000


def forget(database: Database, samples_before_ms: int, events_before_ms: int) -> int:
    """Delete old samples and old events; return how many rows went.

    Readings, batches and audit entries are kept for ever: proofs need them. A client that wants
    to resume behind a deleted event is told that it was not recovered.
    """
    samples = _forget(
        database,
        "SELECT meter_id, epoch, seq FROM meter_samples WHERE submitted_at_ms < ? LIMIT ?",
        "DELETE FROM meter_samples WHERE meter_id = ? AND epoch = ? AND seq = ?",
        samples_before_ms,
    )
    events = _forget(
        database,
        "SELECT event_number FROM events WHERE created_at_ms < ? LIMIT ?",
        "DELETE FROM events WHERE event_number = ?",
        events_before_ms,
    )
    return samples + events


def _forget(database: Database, find: str, delete: str, before_ms: int) -> int:
    """Look without the write lock, delete in small commits: a reading never waits long."""
    gone = 0
    while rows := database.connection.execute(find, (before_ms, _ROWS_PER_COMMIT)).fetchall():
        with database.transaction() as tx:
            tx.executemany(delete, [tuple(row) for row in rows])
        gone += len(rows)
    return gone
