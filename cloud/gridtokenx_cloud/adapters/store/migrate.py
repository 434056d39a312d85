"""Numbered plain SQL, all pending steps and the new number in one transaction.

The number of the newest step is changed with the tables or not at all: killed anywhere, a store
has the old schema or the new one. The files are in SQLite's dialect; the database translates.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from gridtokenx_cloud.adapters.store.database import Connection, Database
from gridtokenx_cloud.adapters.store.partitions import keep_months_ahead
from gridtokenx_cloud.adapters.store.reading_runs import spread_runs
from gridtokenx_cloud.errors import SchemaError, StoreBusyError, StoreRefusedError

_FOLDER = Path(__file__).parents[2] / "migrations"
# What SQL cannot do before a step is taken back.
_BEFORE_ROLLBACK: Mapping[int, Callable[[Connection], None]] = {10: spread_runs}


def migrate(database: Database) -> list[str]:
    """Bring the schema up to this program's; return the names of the steps taken.

    Raises:
        SchemaError: A newer program has worked on this store, or a step does not fit it.
    """
    with database.transaction() as tx:
        version = _locked_version(database, tx)
        steps = [step for step in _steps() if _number(step) > version]
        for step in steps:
            _run(database, tx, step)
            database.set_schema_version(tx, _number(step))
        _refuse_newer(database, version)
    keep_months_ahead(database)
    return [step.stem for step in steps]


def rollback(database: Database, to: int = 0) -> list[str]:
    """Take every step behind number *to* back, the newest first; for a failed upgrade."""
    with database.transaction() as tx:
        version = _locked_version(database, tx)
        steps = [step for step in reversed(_steps()) if to < _number(step) <= version]
        for step in steps:
            if (prepare := _BEFORE_ROLLBACK.get(_number(step))) is not None:
                prepare(tx)
            _run(database, tx, step.with_suffix(".rollback.sql"))
        database.set_schema_version(tx, to)
    return [step.stem for step in steps]


def check_schema(database: Database) -> None:
    """Refuse a store whose schema is not this program's.

    Raises:
        SchemaError: Steps are missing, or a newer program has worked on it; names the way out.
    """
    if not database.exists():
        # Looking into it would make it, readable for others.
        raise SchemaError(f"{database.name} does not exist: run `gtx-cloud migrate` first")
    version = database.schema_version(database.connection)
    pending = [step.stem for step in _steps() if _number(step) > version]
    if pending:
        raise SchemaError(
            f"{database.name} lacks {', '.join(pending)}: run `gtx-cloud migrate` first"
        )
    _refuse_newer(database, version)


def _refuse_newer(database: Database, version: int) -> None:
    newest = _number(_steps()[-1])
    if version > newest:
        raise SchemaError(
            f"{database.name} has schema {version}, this program knows {newest}: run the newer"
            " program, or restore a backup"
        )


def _steps() -> list[Path]:
    return sorted(path for path in _FOLDER.glob("*.sql") if ".rollback" not in path.suffixes)


def _number(step: Path) -> int:
    return int(step.name.partition(".")[0])


def _locked_version(database: Database, tx: Connection) -> int:
    """Wait for whoever else is at it, so that each step is taken once."""
    if tx.dialect.migration_lock:
        tx.execute(tx.dialect.migration_lock)
    return database.schema_version(tx)


def _run(database: Database, tx: Connection, script: Path) -> None:
    try:
        for statement in statements(database.translated(script.read_text(encoding="utf-8"))):
            tx.execute(statement)
    except (StoreBusyError, StoreRefusedError) as exc:
        raise SchemaError(
            f"{database.name} does not take {script.stem} ({exc}); restore a backup, or name"
            " another place"
        ) from exc


def statements(script: str) -> Iterator[str]:
    """Cut a script; `executescript` would commit before it begins."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    rest = [line for line in statement.splitlines() if line.strip() and not line.startswith("--")]
    if rest:
        raise SchemaError(f"a migration ends in the middle of a statement: {rest[0]!r}")
