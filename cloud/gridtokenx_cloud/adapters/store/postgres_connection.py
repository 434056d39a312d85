"""One connection to a PostgreSQL server: our SQL in its spelling, rows as `sqlite3.Row`s are."""

import re
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from gridtokenx_cloud.adapters.store.database import Dialect, Values
from gridtokenx_cloud.errors import StoreBusyError, StoreRefusedError

_CONNECT_TIMEOUT_S = 5
LOCK_SPACE = 0x677478
MINTER, JOURNAL, MIGRATION = 1, 2, 3
"""Advisory locks of ours."""
# A worker that hangs or a machine that vanishes must not keep rows locked for ever; a commit that
# was acknowledged must survive a power cut, whatever the server's own default. To compile one of
# our statements takes far longer than to run it.
_SESSION = (
    "SET synchronous_commit = on; SET lock_timeout = '15s'; SET jit = off;"
    " SET idle_in_transaction_session_timeout = '60s'; SET tcp_user_timeout = '30s';"
    " SET client_connection_check_interval = '10s'"
)
_DIALECT = Dialect(
    locks_rows=True,
    journal_lock=f"SELECT pg_advisory_xact_lock({LOCK_SPACE}, {JOURNAL})",
    migration_lock=f"SELECT pg_advisory_xact_lock({LOCK_SPACE}, {MIGRATION})",
    json_rows="jsonb_array_elements(?::jsonb) AS e(value)",
    text_at="value ->> {}",
    int_at="(value ->> {})::bigint",
    batch_number_given="SELECT setval('mint_batches_batch_id_seq', greatest(max(batch_id),"
    " (SELECT last_value FROM mint_batches_batch_id_seq))) FROM mint_batches",
    next_reading_ids="WITH month AS MATERIALIZED (SELECT reading_number_base() AS base)"
    " SELECT base + nextval('meter_readings_reading_id_seq') % 10000000000"
    " FROM month, generate_series(1, ?::bigint)",
    by_index="SET LOCAL enable_seqscan = off",
)
_NEVER = (psycopg.IntegrityError, psycopg.DataError, UnicodeEncodeError, OverflowError)
_TYPES_SQL = """
SELECT attname, format_type(atttypid, NULL) FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0
"""
_MARKS = re.compile(r"'[^']*'|::|(?<!\w):([a-z_]\w*)|\?|%|\bINDEXED BY \w+")
_INSERT = re.compile(
    r"\s*INSERT INTO (\w+) \(([\w,\s]+)\)\s*VALUES \(\?(?:, \?)*\)\s*(.*)", re.DOTALL
)


class PostgresConnection:
    """`Connection` to the server; outside a transaction each statement is its own."""

    dialect = _DIALECT

    def __init__(self, url: str, name: str) -> None:
        self._name = name
        with self._translated():
            self._raw = psycopg.connect(
                url,
                autocommit=True,
                connect_timeout=_CONNECT_TIMEOUT_S,
                application_name="gtx-cloud",
                keepalives_idle=10,
                keepalives_interval=5,
                keepalives_count=3,
                row_factory=_row_factory,
            )
            self._raw.adapters.register_loader("numeric", _WholeLoader)
            self._raw.execute(_SESSION)
        self._types: dict[tuple[str, str], list[str]] = {}
        # Threads come and go; their connections go with them.
        self._end = weakref.finalize(self, self._raw.close)

    @property
    def usable(self) -> bool:
        """Whether the server has not gone away."""
        return not self._raw.closed

    def execute(self, sql: str, values: Values = (), /) -> "psycopg.Cursor[Any]":
        """See `Connection.execute`."""
        with self._translated():
            if isinstance(values, Mapping):
                # Named values go into the text, so that the planner sees a condition that
                # `:user IS NULL` switches off; and a NULL alone has no type to send it by.
                cursor = psycopg.ClientCursor(self._raw, row_factory=_row_factory)
                return cursor.execute(_psycopg_sql(sql), values)
            return self._raw.execute(_psycopg_sql(sql), values)

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> "psycopg.Cursor[Any]":
        """See `Connection.executemany`; plain inserts travel as one COPY or one statement."""
        all_rows = list(rows)
        cursor = self._raw.cursor()
        insert = _INSERT.fullmatch(sql)
        with self._translated():
            if not all_rows:
                return cursor
            if insert is None:
                cursor.executemany(_psycopg_sql(sql), all_rows)
                return cursor
            table, columns, conflict = insert.groups()
            types = self._column_types(table, columns)
            if conflict or self._raw.pgconn.pipeline_status:
                _insert_arrays(cursor, insert, types, all_rows)
            else:
                _copy(cursor, insert, types, all_rows)
        return cursor

    def _column_types(self, table: str, columns: str) -> list[str]:
        types = self._types.get((table, columns))
        if types is None:
            known: dict[str, str] = dict(self._raw.execute(_TYPES_SQL, (table,)).fetchall())
            types = [known[name.strip()] for name in columns.split(",")]
            self._types[table, columns] = types
        return types

    @contextmanager
    def together(self) -> Iterator[None]:
        """See `Connection.together`."""
        with self._translated(), self._raw.pipeline():
            yield

    def commit(self) -> None:
        """End a transaction; one that an error has ended before is refused by name."""
        if self.execute("COMMIT").statusmessage != "COMMIT":
            raise StoreRefusedError(f"{self._name}: the transaction had failed before its end")

    def abandon(self) -> None:
        """Roll back, or drop a connection on which that can't be done."""
        try:
            if self._raw.info.transaction_status is TransactionStatus.ACTIVE:
                self._raw.close()
            elif self.usable:
                self._raw.execute("ROLLBACK")
        except psycopg.Error:
            self._raw.close()

    def close(self) -> None:
        """Give the connection back."""
        self._end()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except _NEVER as exc:
            raise StoreRefusedError(f"the store does not take this: {_line(exc)}") from exc
        except psycopg.Error as exc:
            raise StoreBusyError(f"{self._name}: {_line(exc)}") from exc


# Each value that is read goes through here: `super()` would take as long as all the rest of it.
_value_at = tuple.__getitem__


class PostgresRow(tuple[Any, ...]):
    """A `Row`: the same ways in as `sqlite3.Row`."""

    __slots__ = ()
    places: dict[str, int] = {}  # noqa: RUF012 - set by each subclass, one per list of columns

    def keys(self) -> Iterable[str]:
        """See `Row.keys`."""
        return self.places.keys()

    def __getitem__(self, key: Any, /) -> Any:
        return _value_at(self, self.places[key] if isinstance(key, str) else key)


@lru_cache(maxsize=256)
def _row_class(names: tuple[str, ...]) -> type[PostgresRow]:
    places = {name: place for place, name in enumerate(names)}
    return type("PostgresRow", (PostgresRow,), {"__slots__": (), "places": places})


def _row_factory(cursor: "psycopg.Cursor[Any]") -> type[PostgresRow]:
    return _row_class(tuple(column.name for column in cursor.description or ()))


class _WholeLoader(psycopg.adapt.Loader):
    """Sums of integers are `numeric` there; all of ours are whole."""

    def load(self, data: Any) -> int:
        return int(bytes(data))


@lru_cache(maxsize=512)
def _psycopg_sql(sql: str) -> bytes:
    return _MARKS.sub(_mark, sql).encode()


def _mark(found: "re.Match[str]") -> str:
    text = found.group()
    if text == "?":
        return "%s"
    if found[1]:
        return f"%({found[1]})s"
    return "" if text.startswith("INDEXED") else text.replace("%", "%%")


def _copy(
    cursor: "psycopg.Cursor[Any]",
    insert: "re.Match[str]",
    types: list[str],
    rows: list[Sequence[Any]],
) -> None:
    # Binary: neither side turns numbers and lines into text and back.
    start = f"COPY {insert[1]} ({insert[2]}) FROM STDIN (FORMAT BINARY)"
    with cursor.copy(start.encode()) as copy:
        copy.set_types(types)
        for row in rows:
            copy.write_row(row)


def _insert_arrays(
    cursor: "psycopg.Cursor[Any]",
    insert: "re.Match[str]",
    types: list[str],
    rows: list[Sequence[Any]],
) -> None:
    """Insert all rows in one statement, each column of them an array."""
    table, columns, conflict = insert.groups()
    arrays = ", ".join(f"%s::{name}[]" for name in types)
    cursor.execute(
        f"INSERT INTO {table} ({columns}) SELECT * FROM unnest({arrays}) {conflict}".encode(),  # noqa: S608 - our own statement
        [f"{{{','.join(map(_element, column))}}}" for column in zip(*rows, strict=True)],
    )


def _element(value: object) -> str:
    """Return a value as one of an array's text."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f'"\\\\x{value.hex()}"'
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return str(value)


def _line(exc: Exception) -> str:
    return " ".join(str(exc).split())
