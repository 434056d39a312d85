"""Numbered plain SQL, run by yoyo; the one place that knows it."""

from pathlib import Path

from yoyo import get_backend, read_migrations

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.errors import SchemaError

_FOLDER = Path(__file__).parents[2] / "migrations"


def migrate(database: Database) -> list[str]:
    """Bring the schema up to this program's; return the names of the steps taken."""
    migrations = read_migrations(str(_FOLDER))
    with get_backend(f"sqlite:///{database.path}") as backend, backend.lock():
        pending = backend.to_apply(migrations)
        names = [migration.id for migration in pending]
        backend.apply_migrations(pending)
    return names


def rollback(database: Database) -> list[str]:
    """Take every step back, the newest first; for tests and for a failed upgrade."""
    migrations = read_migrations(str(_FOLDER))
    with get_backend(f"sqlite:///{database.path}") as backend, backend.lock():
        applied = backend.to_rollback(migrations)
        names = [migration.id for migration in applied]
        backend.rollback_migrations(applied)
    return names


def check_schema(database: Database) -> None:
    """Refuse a store whose schema is not this program's.

    Raises:
        SchemaError: Steps are missing; says which command brings it up.
    """
    migrations = read_migrations(str(_FOLDER))
    with get_backend(f"sqlite:///{database.path}") as backend:
        pending = [migration.id for migration in backend.to_apply(migrations)]
    if pending:
        raise SchemaError(
            f"{database.path} lacks {', '.join(pending)}: run `gtx-cloud migrate` first"
        )
