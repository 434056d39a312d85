"""One SQLite file, one connection per thread, every write one immediate transaction."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from gridtokenx_cloud.errors import ConfigError, StoreBusyError

_BUSY_TIMEOUT_S = 15.0


class Database:
    """The store's file; safe to share between threads, closed by its owner."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._lock = threading.Lock()
        self._open: list[sqlite3.Connection] = []

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's connection, for reading; rows come as `sqlite3.Row`."""
        existing: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if existing is not None:
            return existing
        connection = sqlite3.connect(
            self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        # FULL: a commit that was acknowledged must survive a power cut.
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        self._local.connection = connection
        with self._lock:
            self._open.append(connection)
        return connection

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the only writer's connection; commit at the end, roll back on any error.

        Raises:
            StoreBusyError: Another process kept the write lock for 15 s.
        """
        connection = self.connection
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as exc:
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

    def close(self) -> None:
        """Close every thread's connection."""
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open.clear()


def open_database(url: str) -> Database:
    """Return the database of a `sqlite:///relative` or `sqlite:////absolute` URL.

    Raises:
        ConfigError: Another kind of database, or no folder to put the file in.
    """
    parts = urlsplit(url)
    if parts.scheme != "sqlite" or parts.netloc or len(parts.path) < 2:
        raise ConfigError((f"DATABASE_URL {url!r}: only sqlite:///PATH is supported here",))
    path = Path(parts.path[1:])
    if not path.parent.is_dir():
        raise ConfigError((f"DATABASE_URL: folder {path.parent} does not exist; create it",))
    return Database(path)
