"""What the store's modules need of a database; `sqlite.py` and `postgres.py` give it.

The modules write one SQL for both: `?` and `:name` for values, SQLite's spelling where the two
only differ in words (the PostgreSQL connection turns those), and a `Dialect` where they differ in
what they can do.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from gridtokenx_cloud.errors import ConfigError

Values = Sequence[Any] | Mapping[str, Any]


class Row(Protocol):
    """A row of a result: by name, by place, as a mapping or as a tuple."""

    def keys(self) -> Iterable[str]:
        """Return the names of the columns."""
        ...

    def __getitem__(self, key: Any, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...


class Result(Protocol):
    """What a statement came to."""

    @property
    def rowcount(self) -> int:
        """How many rows it changed."""
        ...

    def fetchone(self) -> Any:
        """Return the next `Row`, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """Return all `Row`s that are left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one database can do and the other can't, as pieces of SQL.

    Attributes:
        locks_rows: Whether others write at the same time, so that rows have to be locked.
        journal_lock: A statement after which only this transaction writes events and audit
            entries; empty where every transaction is the only writer anyway.
        migration_lock: The same for migrations.
        json_rows: An expression whose rows are the elements of a JSON array, its `value` column.
        text_at: `text_at.format(n)` = the n-th element of `value` as text.
        int_at: The same as an integer.
        batch_number_given: A statement after a batch was written under a given number, so that
            the next one gets a higher one; empty where the database sees to that.
        next_reading_ids: A statement that gives the next `?` free reading ids, one a row.
        by_index: A statement after which the rows of this transaction are looked up by index,
            however many the database takes them for; empty where it does so anyway.
    """

    locks_rows: bool
    journal_lock: str
    migration_lock: str
    json_rows: str
    text_at: str
    int_at: str
    batch_number_given: str
    next_reading_ids: str
    by_index: str

    def row_lock(self, alias: str, *, skip_locked: bool = False) -> str:
        """Return what to put behind a SELECT so that nobody else changes the rows of *alias*.

        References to them stay possible. Rows that somebody else has locked are waited for, or
        left out.
        """
        if not self.locks_rows:
            return ""
        return f" FOR NO KEY UPDATE OF {alias}{' SKIP LOCKED' if skip_locked else ''}"

    def rows(self, *columns: str) -> str:
        """Return a table expression over one JSON parameter, an array of arrays.

        Args:
            columns: Names; one that begins with `#` holds integers.
        """
        picked = ", ".join(
            (self.int_at if name.startswith("#") else self.text_at).format(place)
            + f" AS {name.removeprefix('#')}"
            for place, name in enumerate(columns)
        )
        return f"(SELECT {picked} FROM {self.json_rows})"  # noqa: S608 - names of our own modules


class Connection(Protocol):
    """Runs statements; a vendor's errors come out as `StoreBusyError` or `StoreRefusedError`."""

    @property
    def dialect(self) -> Dialect:
        """What this database can do."""
        ...

    def execute(self, sql: str, values: Values = (), /) -> Result:
        """Run one statement.

        Raises:
            StoreBusyError: The database cannot do it now.
            StoreRefusedError: It takes one of these values never.
        """
        ...

    def executemany(self, sql: str, rows: Iterable[Sequence[Any]], /) -> Result:
        """Run one statement for each of *rows*; raises as `execute` does."""
        ...

    def together(self) -> AbstractContextManager[None]:
        """Send the statements of a block without waiting for each; their rows are there after it.

        What one of them raises may come at the end of the block only.
        """
        ...


class Database(Protocol):
    """A store, safe to share between threads, closed by its owner."""

    @property
    def name(self) -> str:
        """For messages; holds no secret."""
        ...

    @property
    def connection(self) -> Connection:
        """This thread's connection, for reading."""
        ...

    def transaction(self) -> AbstractContextManager[Connection]:
        """Give a connection to write with; commit at the end, roll back on any error.

        Raises:
            StoreBusyError: It could not begin or commit; nothing is stored, except where the
                answer to the commit was lost: then all of it may be.
        """
        ...

    def snapshot(self) -> AbstractContextManager[Connection]:
        """Give a connection whose statements all see the store of one moment."""
        ...

    def only_minter(self) -> AbstractContextManager[None]:
        """Hold what keeps a second minter off this store.

        Raises:
            ConfigError: Somebody else holds it.
        """
        ...

    def create(self) -> None:
        """Make the place of the store where it is ours to make, readable by nobody else."""
        ...

    def exists(self) -> bool:
        """Whether there is anything that could be looked into."""
        ...

    def schema_version(self, connection: Connection) -> int:
        """Return the number of the newest migration; 0 = none."""
        ...

    def set_schema_version(self, tx: Connection, version: int) -> None:
        """Note it, in the transaction of the migration."""
        ...

    def translated(self, ddl: str) -> str:
        """Return a migration's statement as this database has it."""
        ...

    def backup(self, target: Path) -> None:
        """Copy the store of one moment to a new file while it is in use.

        Raises:
            ConfigError: The copy cannot be made; names the way out.
        """
        ...

    def close(self) -> None:
        """Close every thread's connection."""
        ...


def open_database(url: str) -> Database:
    """Return the database of a `sqlite:///PATH` or `postgresql://HOST/NAME` URL.

    Raises:
        ConfigError: Another kind of database, no folder to put the file in, or no driver.
    """
    parts = urlsplit(url)
    if parts.scheme == "postgresql":
        return _open_postgres(url)
    if parts.scheme != "sqlite" or parts.netloc or len(parts.path) < 2:
        raise ConfigError(("DATABASE_URL: give sqlite:///PATH or postgresql://HOST/NAME",))
    from gridtokenx_cloud.adapters.store.sqlite import SqliteDatabase

    path = Path(parts.path[1:])
    if not path.parent.is_dir():
        raise ConfigError((f"DATABASE_URL: folder {path.parent} does not exist; create it",))
    return SqliteDatabase(path)


def _open_postgres(url: str) -> Database:
    try:
        # Only those who use it need the driver.
        from gridtokenx_cloud.adapters.store.postgres import PostgresDatabase
    except ImportError as exc:
        raise ConfigError(
            (f"DATABASE_URL: no PostgreSQL driver ({exc}); pip install 'gridtokenx[postgres]'",)
        ) from exc
    return PostgresDatabase(url)
