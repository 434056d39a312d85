"""One SQLite file, one connection per thread, every write one immediate transaction."""

import fcntl
import os
import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

from gridtokenx_cloud.adapters.store.database import Connection, Dialect
from gridtokenx_cloud.errors import ConfigError, StoreBusyError, StoreRefusedError
from gridtokenx_cloud.tokenization import owner_percentile

_BUSY_TIMEOUT_S = 15.0
_WAL_PAGES = 16_000
"""64 MB."""
_CACHE_KIB = 65_536
_ROWS_AT_ONCE = 20
_INSERT = re.compile(r"(\s*INSERT INTO .*\sVALUES )(\([?, ]+\))(.*)", re.DOTALL)
_DIALECT = Dialect(
    locks_rows=False,
    journal_lock="",
    migration_lock="",
    json_rows="json_each(?)",
    text_at="json_extract(value, '$[{}]')",
    int_at="json_extract(value, '$[{}]')",
    batch_number_given="",
    next_reading_ids="WITH RECURSIVE free(id) AS ("
    " SELECT coalesce(max(reading_id), 0) + 1 FROM meter_readings"
    " UNION ALL SELECT id + 1 FROM free LIMIT ?) SELECT id FROM free",
    by_index="",
)
_NEVER = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    UnicodeEncodeError,
)


class SqliteConnection(sqlite3.Connection):
    """`Connection` to the file; rows come as `sqlite3.Row`."""

    dialect = _DIALECT

    def execute(self, sql: str, values: Any = (), /) -> sqlite3.Cursor:
        """See `Connection.execute`."""
        try:
            return super().execute(sql, values)
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as exc:
            raise _translated(exc) from exc

    def executemany(self, sql: str, rows: Iterable[Any], /) -> sqlite3.Cursor:
        """See `Connection.executemany`; of an insert, `rowcount` is that of a last part.

        SQLite prepares what it needs for the checks of a table once a statement.
        """
        try:
            if (many := _many_rows(sql)) is None:
                return super().executemany(sql, rows)
            left = list(rows)
            whole = len(left) - len(left) % _ROWS_AT_ONCE
            parts = (left[at : at + _ROWS_AT_ONCE] for at in range(0, whole, _ROWS_AT_ONCE))
            super().executemany(many, (list(chain.from_iterable(part)) for part in parts))
            return super().executemany(sql, left[whole:])
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as exc:
            raise _translated(exc) from exc

    def together(self) -> AbstractContextManager[None]:
        """See `Connection.together`: there is nobody to wait for."""
        return nullcontext()


@cache
def _many_rows(sql: str) -> str | None:
    """Return an insert of one row as one of several."""
    found = _INSERT.fullmatch(sql)
    return found and found[1] + ", ".join([found[2]] * _ROWS_AT_ONCE) + found[3]


def _translated(exc: Exception) -> StoreBusyError | StoreRefusedError:
    if isinstance(exc, _NEVER):
        return StoreRefusedError(f"the store does not take this: {exc}")
    return StoreBusyError(f"the store cannot do this now: {exc}")


class SqliteDatabase:
    """`Database` in one file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._lock = threading.Lock()
        self._open: list[sqlite3.Connection] = []

    @property
    def name(self) -> str:
        """See `Database.name`."""
        return str(self.path)

    @property
    def connection(self) -> SqliteConnection:
        """See `Database.connection`."""
        existing: SqliteConnection | None = getattr(self._local, "connection", None)
        if existing is not None:
            return existing
        connection = sqlite3.connect(
            self.path,
            timeout=_BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            factory=SqliteConnection,
        )
        connection.row_factory = sqlite3.Row
        # FULL: a commit that was acknowledged must survive a power cut.
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        # Pages that many commits change, such as those of an index, are copied once for all, and
        # are not read again for each.
        connection.execute(f"PRAGMA wal_autocheckpoint={_WAL_PAGES}")
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        connection.create_function("owner_percentile", 1, owner_percentile, deterministic=True)
        self._local.connection = connection
        with self._lock:
            self._open.append(connection)
        return connection

    @contextmanager
    def transaction(self) -> Iterator[SqliteConnection]:
        """See `Database.transaction`; there is one writer at a time, for 15 s others wait."""
        connection = self.connection
        try:
            connection.execute("BEGIN IMMEDIATE")
        except StoreBusyError as exc:
            raise StoreBusyError(
                f"{self.path}: no write lock within {_BUSY_TIMEOUT_S:g} s"
            ) from exc
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    @contextmanager
    def snapshot(self) -> Iterator[SqliteConnection]:
        """See `Database.snapshot`."""
        connection = self.connection
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            connection.execute("COMMIT")

    @contextmanager
    def only_minter(self) -> Iterator[None]:
        """See `Database.only_minter`: a lock on a file beside the store."""
        path = self.path.with_name(self.path.name + ".minter.lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise ConfigError(
                    (f"another minter works on {self.path}; stop it, or leave the role settle out",)
                ) from exc
            yield
        finally:
            os.close(descriptor)

    def create(self) -> None:
        """See `Database.create`."""
        # Readings tell when somebody is at home: nobody else on this machine may read them.
        self.path.touch(mode=0o600)

    def exists(self) -> bool:
        """See `Database.exists`."""
        return self.path.exists()

    def schema_version(self, connection: Connection) -> int:
        """See `Database.schema_version`: SQLite changes it with the tables, or not at all."""
        return int(connection.execute("PRAGMA user_version").fetchone()[0])

    def set_schema_version(self, tx: Connection, version: int) -> None:
        """See `Database.set_schema_version`."""
        tx.execute(f"PRAGMA user_version = {version}")

    def translated(self, ddl: str) -> str:
        """See `Database.translated`: migrations are written in this dialect."""
        return ddl

    def backup(self, target: Path) -> None:
        """See `Database.backup`."""
        try:
            copy = sqlite3.connect(target)
            try:
                # One step: the copy is of one moment, and writers go on in the WAL meanwhile.
                self.connection.backup(copy)
            finally:
                copy.close()
        except sqlite3.Error as exc:
            raise ConfigError((f"{target} cannot be written ({exc}); name another file",)) from exc

    def close(self) -> None:
        """See `Database.close`."""
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open.clear()
