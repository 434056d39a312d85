"""`EventStore` over SQLite."""

import secrets

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.reading import reading
from gridtokenx_cloud.errors import NotFoundError
from gridtokenx_cloud.ports.events import OutboxEvent, StreamHead

_COLUMNS = "event_number, stream, stream_offset, type, meter_id, body"


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
        return self._events(
            f"SELECT {_COLUMNS} FROM events WHERE event_number > ?"  # noqa: S608 - constants
            " ORDER BY event_number LIMIT ?",
            (event_number, limit),
        )

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
        return self._events(
            f"SELECT {_COLUMNS} FROM events"  # noqa: S608 - constants
            " WHERE stream = ? AND stream_offset > ? AND stream_offset <= ?"
            " ORDER BY stream_offset",
            (stream, after, through),
        )

    def _events(self, statement: str, values: tuple[object, ...]) -> list[OutboxEvent]:
        with reading(self._database) as connection:
            rows = connection.execute(statement, values).fetchall()
        return [
            OutboxEvent(
                event_number=row["event_number"],
                stream=row["stream"],
                offset=row["stream_offset"],
                type=row["type"],
                meter_id=row["meter_id"],
                body=row["body"],
            )
            for row in rows
        ]
