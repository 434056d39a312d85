"""Numbered plain SQL, all pending steps and the new number in one transaction.

The number of the newest step is the file's `user_version`, which SQLite changes with the tables
or not at all: killed anywhere, a store has the old schema or the new one.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.errors import SchemaError

_FOLDER = Path(__file__).parents[2] / "migrations"


def migrate(database: Database) -> list[str]:
    """Bring the schema up to this program's; return the names of the steps taken.

    Raises:
        SchemaError: A newer program has worked on this store, or a step does not fit it.
    """
    try:
        with database.transaction() as tx:
            version = _version(tx)
            steps = [step for step in _steps() if _number(step) > version]
            for step in steps:
                _run(tx, step)
                tx.execute(f"PRAGMA user_version = {_number(step)}")
            _refuse_newer(database, version)
    except sqlite3.Error as exc:
        raise SchemaError(
            f"{database.path} does not take this schema ({exc}); restore a backup, or name another"
            " file"
        ) from exc
    return [step.stem for step in steps]


def rollback(database: Database) -> list[str]:
    """Take every step back, the newest first; for tests and for a failed upgrade."""
    with database.transaction() as tx:
        version = _version(tx)
        steps = [step for step in reversed(_steps()) if _number(step) <= version]
        for step in steps:
            _run(tx, step.with_suffix(".rollback.sql"))
        tx.execute("PRAGMA user_version = 0")
    return [step.stem for step in steps]


def check_schema(database: Database) -> None:
    """Refuse a store whose schema is not this program's.

    Raises:
        SchemaError: Steps are missing, or a newer program has worked on it; names the way out.
    """
    if not database.path.exists():
        # Looking into it would make it, readable for others.
        raise SchemaError(f"{database.path} does not exist: run `gtx-cloud migrate` first")
    version = _version(database.connection)
    pending = [step.stem for step in _steps() if _number(step) > version]
    if pending:
        raise SchemaError(
            f"{database.path} lacks {', '.join(pending)}: run `gtx-cloud migrate` first"
        )
    _refuse_newer(database, version)


def _refuse_newer(database: Database, version: int) -> None:
    newest = _number(_steps()[-1])
    if version > newest:
        raise SchemaError(
            f"{database.path} has schema {version}, this program knows {newest}: run the newer"
            " program, or restore a backup"
        )


def _steps() -> list[Path]:
    return sorted(path for path in _FOLDER.glob("*.sql") if ".rollback" not in path.suffixes)


def _number(step: Path) -> int:
    return int(step.name.partition(".")[0])


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _run(tx: sqlite3.Connection, script: Path) -> None:
    for statement in _statements(script.read_text(encoding="utf-8")):
        tx.execute(statement)


def _statements(script: str) -> Iterator[str]:
    """Cut a script; `executescript` would commit before it begins."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
