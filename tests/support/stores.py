"""Stores of the tests."""

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.sqlite import SqliteDatabase


def sqlite_of(database: Database) -> SqliteDatabase:
    """Return the same store, for what only a file can do."""
    assert isinstance(database, SqliteDatabase)
    return database
