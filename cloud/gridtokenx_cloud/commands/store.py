"""Commands about the store and the configuration: migrate, check-config, backup, moving."""

import os
from pathlib import Path

import click

from gridtokenx_cloud.adapters.store.copy import copy_store
from gridtokenx_cloud.adapters.store.database import open_database
from gridtokenx_cloud.adapters.store.migrate import migrate as bring_up
from gridtokenx_cloud.commands.context import Context
from gridtokenx_cloud.errors import ConfigError
from gridtokenx_cloud.settings import non_default_values


@click.command("migrate")
@click.pass_obj
def migrate(context: Context) -> None:
    """Create the store, or bring its schema up to this program's."""
    database = open_database(context.database_url)
    try:
        database.create()
        steps = bring_up(database)
    finally:
        database.close()
    for step in steps:
        click.echo(f"applied {step}")
    if not steps:
        click.echo(f"{database.name} is up to date")


@click.command("check-config")
@click.option("--json", "as_json", is_flag=True, help="Print the settings as JSON.")
@click.pass_obj
def check_config(context: Context, as_json: bool) -> None:
    """Check every setting and list every fault at once; print what differs from the defaults."""
    values = non_default_values(context.complete_settings())
    context.emit([{"setting": name, "value": text} for name, text in values.items()], as_json)


@click.command("backup")
@click.argument("target", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_obj
def backup(context: Context, target: Path) -> None:
    """Copy the store to TARGET while it is in use; whole or not at all."""
    if target.exists():
        raise ConfigError((f"{target} exists; name another file or move it away",))
    fresh = target.with_name(f"{target.name}.part")
    database = context.database()
    try:
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        database.backup(fresh)
        with fresh.open("rb") as written:
            os.fsync(written.fileno())
        fresh.rename(target)
    except OSError as exc:
        raise ConfigError((f"{target} cannot be written ({exc}); name another file",)) from exc
    click.echo(f"{target}")


@click.command("migrate-store")
@click.argument("target_url", metavar="POSTGRESQL_URL")
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
@click.pass_obj
def migrate_store(context: Context, target_url: str, as_json: bool) -> None:
    """Copy the SQLite store to an empty PostgreSQL database; stop the cloud before.

    Leave the password out of the URL: it is taken from ~/.pgpass or PGPASSFILE.
    """
    source, target = context.database(), open_database(target_url)
    try:
        bring_up(target)
        copied = copy_store(source, target)
    finally:
        target.close()
    context.emit([{"table": name, "rows": rows} for name, rows in copied.items()], as_json)


COMMANDS = (migrate, check_config, backup, migrate_store)
