"""`EventStore` in a database."""

import secrets
from collections.abc import Iterator

from gridtokenx_cloud.adapters.store.database import Database, Row
from gridtokenx_cloud.adapters.store.reading import reading
from gridtokenx_cloud.errors import NotFoundError
from gridtokenx_cloud.events import ADMIN_STREAM, with_id
from gridtokenx_cloud.ports.events import OutboxEvent, StreamHead

_EVENTS_SQL = f"""
SELECT e.event_number, e.stream, e.stream_offset, e.admin_offset, e.type, e.meter_id, e.body,
    s.epoch, (SELECT epoch FROM event_streams WHERE stream = '{ADMIN_STREAM}') AS admin_epoch
FROM events e JOIN event_streams s ON s.stream = e.stream
"""  # noqa: S608 - a constant


class SqlEventStore:
    """Reads the outbox; safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def last_number(self) -> int:
        """See `EventStore.last_number`."""
        with reading(self._database) as connection:
            row = connection.execute("SELECT COALESCE(MAX(event_number), 0) FROM events").fetchone()
        return int(row[0])

    def read_after(self, event_number: int, limit: int) -> list[OutboxEvent]:
        """See `EventStore.read_after`."""
        rows = self._rows(
            "WHERE e.event_number > ? ORDER BY e.event_number LIMIT ?", (event_number, limit)
        )
        return [event for row in rows for event in _told(row)]

    def ensure_stream(self, stream: str) -> None:
        """See `EventStore.ensure_stream`."""
        with reading(self._database) as connection:
            known = connection.execute(
                "SELECT 1 FROM event_streams WHERE stream = ?", (stream,)
            ).fetchone()
        if known is None:
            with self._database.transaction() as tx:
                tx.execute(
                    "INSERT INTO event_streams (stream, epoch, last_offset) VALUES (?, ?, 0)"
                    " ON CONFLICT (stream) DO NOTHING",
                    (stream, secrets.token_hex(8)),
                )

    def head(self, stream: str) -> StreamHead:
        """See `EventStore.head`."""
        with reading(self._database) as connection:
            row = connection.execute(
                "SELECT epoch, last_offset FROM event_streams WHERE stream = ?", (stream,)
            ).fetchone()
        if row is None:
            raise NotFoundError(f"stream {stream} has no head; call ensure_stream first")
        return StreamHead(row["epoch"], row["last_offset"])

    def history(self, stream: str, after: int, through: int) -> list[OutboxEvent]:
        """See `EventStore.history`."""
        if stream == ADMIN_STREAM:
            rows = self._rows(
                "WHERE e.admin_offset > ? AND e.admin_offset <= ? ORDER BY e.admin_offset",
                (after, through),
            )
        else:
            rows = self._rows(
                "WHERE e.stream = ? AND e.stream_offset > ? AND e.stream_offset <= ?"
                " ORDER BY e.stream_offset",
                (stream, after, through),
            )
        return [event for row in rows for event in _told(row) if event.stream == stream]

    def _rows(self, condition: str, values: tuple[object, ...]) -> list[Row]:
        with reading(self._database) as connection:
            return connection.execute(_EVENTS_SQL + condition, values).fetchall()


def _told(row: Row) -> Iterator[OutboxEvent]:
    """Yield the event once for each stream it is told in."""
    if row["stream"] != ADMIN_STREAM:
        yield _event(row, row["stream"], row["stream_offset"], row["epoch"])
    if row["admin_offset"] is not None:
        yield _event(row, ADMIN_STREAM, row["admin_offset"], row["admin_epoch"])


def _event(row: Row, stream: str, offset: int, epoch: str) -> OutboxEvent:
    return OutboxEvent(
        event_number=row["event_number"],
        stream=stream,
        offset=offset,
        type=row["type"],
        meter_id=row["meter_id"],
        body=with_id(row["body"], f"{epoch}-{stream}-{offset}"),
    )
