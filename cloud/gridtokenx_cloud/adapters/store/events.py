"""`EventStore` in a database."""

import secrets
from collections.abc import Container, Iterator, Mapping, Sequence

from gridtokenx_cloud.adapters.store.database import Database, Row
from gridtokenx_cloud.adapters.store.reading import reading
from gridtokenx_cloud.adapters.store.reading_runs import MAX_RUN, bodies
from gridtokenx_cloud.errors import NotFoundError
from gridtokenx_cloud.events import ADMIN_STREAM, with_id
from gridtokenx_cloud.ports.events import OutboxEvent, StreamHead, Tail

_EVENTS_SQL = f"""
SELECT e.*, (SELECT epoch FROM event_streams s WHERE s.stream = e.stream) AS epoch,
    (SELECT epoch FROM event_streams WHERE stream = '{ADMIN_STREAM}') AS admin_epoch
FROM events e
"""  # noqa: S608 - a constant
# Up to the row with which *limit* events are together.
_TAIL_SQL = f"""
{_EVENTS_SQL} WHERE e.event_number > :after AND e.event_number <= (
    SELECT MAX(event_number) FROM (
        SELECT event_number, SUM(run_length) OVER (ORDER BY event_number) - run_length AS seen
        FROM (SELECT event_number, run_length FROM events
            WHERE event_number > :after ORDER BY event_number LIMIT :limit) a) b
    WHERE seen < :limit)
ORDER BY e.event_number
"""  # noqa: S608 - a constant
# A run that begins up to its longest before the first place asked for may still hold it.
_HISTORY_SQL = f"""
{_EVENTS_SQL} WHERE {{stream}}{{place}} > :after - {MAX_RUN - 1}
    AND {{place}} <= :through AND {{place}} + e.run_length > :after + 1 ORDER BY {{place}}
"""


class SqlEventStore:
    """Reads the outbox; safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def last_number(self) -> int:
        """See `EventStore.last_number`."""
        with reading(self._database) as connection:
            row = connection.execute("SELECT COALESCE(MAX(event_number), 0) FROM events").fetchone()
        return int(row[0])

    def read_after(
        self, event_number: int, limit: int, streams: Container[str] | None = None
    ) -> Tail:
        """See `EventStore.read_after`."""
        rows = self._rows(_TAIL_SQL, {"after": event_number, "limit": limit})
        return Tail(
            events=[event for row in rows for event in _told(row, streams)],
            last_number=rows[-1]["event_number"] if rows else event_number,
            more=sum(row["run_length"] for row in rows) >= limit,
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
        values: dict[str, object] = {"after": after, "through": through}
        if stream == ADMIN_STREAM:
            rows = self._rows(_HISTORY_SQL.format(stream="", place="e.admin_offset"), values)
        else:
            sql = _HISTORY_SQL.format(stream="e.stream = :stream AND ", place="e.stream_offset")
            rows = self._rows(sql, {**values, "stream": stream})
        return [event for row in rows for event in _of_stream(row, stream, after, through)]

    def _rows(self, sql: str, values: Mapping[str, object]) -> list[Row]:
        with reading(self._database) as connection:
            return connection.execute(sql, values).fetchall()


def _told(row: Row, wanted: Container[str] | None) -> Iterator[OutboxEvent]:
    """Yield the events of a row once for each wanted stream they are told in."""
    names = [row["stream"]]
    if row["admin_offset"] is not None and row["stream"] != ADMIN_STREAM:
        names.append(ADMIN_STREAM)
    if wanted is not None:
        names = [name for name in names if name in wanted]
    if names:
        made = bodies(row)
        for name in names:
            yield from _named(row, name, _first(row, name), made)


def _of_stream(row: Row, stream: str, after: int, through: int) -> Iterator[OutboxEvent]:
    """Yield the events of a row that lie in a part of one stream."""
    first = _first(row, stream)
    begin = max(first, after + 1)
    made = bodies(row, slice(begin - first, through + 1 - first))
    return _named(row, stream, begin, made)


def _first(row: Row, stream: str) -> int:
    return int(row["admin_offset" if stream == ADMIN_STREAM else "stream_offset"])


def _named(row: Row, stream: str, first: int, made: Sequence[str]) -> Iterator[OutboxEvent]:
    epoch = row["admin_epoch" if stream == ADMIN_STREAM else "epoch"]
    for offset, body in enumerate(made, first):
        yield OutboxEvent(
            event_number=row["event_number"],
            stream=stream,
            offset=offset,
            type=row["type"],
            meter_id=row["meter_id"],
            body=with_id(body, f"{epoch}-{stream}-{offset}"),
        )
