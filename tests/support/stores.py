"""Stores of the tests."""

from gridtokenx_cloud.adapters.store.database import Database, open_database
from gridtokenx_cloud.adapters.store.migrate import migrate
from gridtokenx_cloud.adapters.store.postgres import PostgresDatabase
from gridtokenx_cloud.adapters.store.sqlite import SqliteDatabase


def migrated(url: str) -> Database:
    """Return the store at *url* with our schema; whoever takes it closes it."""
    database = open_database(url)
    migrate(database)
    return database


def another(database: Database) -> Database:
    """Return the same store as another process has it open; whoever takes it closes it."""
    if isinstance(database, SqliteDatabase):
        return SqliteDatabase(database.path)
    assert isinstance(database, PostgresDatabase)
    return PostgresDatabase(database.url)


def sqlite_of(database: Database) -> SqliteDatabase:
    """Return the same store, for what only a file can do."""
    assert isinstance(database, SqliteDatabase)
    return database
