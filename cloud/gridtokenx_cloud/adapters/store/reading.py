"""Read from the store, with the vendor's errors translated."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from gridtokenx_cloud.adapters.store.database import Connection, Database
from gridtokenx_cloud.errors import StoreBusyError


@contextmanager
def reading(database: Database) -> Iterator[Connection]:
    """Give this thread's connection, for reading.

    Raises:
        StoreBusyError: The file is locked, or cannot be read at the moment.
    """
    try:
        yield database.connection
    except sqlite3.OperationalError as exc:
        raise StoreBusyError(f"{database.name} cannot be read now: {exc}") from exc
