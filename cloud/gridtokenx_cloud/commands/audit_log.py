"""Commands about who did what."""

import json

import click

from gridtokenx_cloud.adapters.store.records import SqlRecords
from gridtokenx_cloud.commands.context import CommandContext


@click.group("audit-log")
def audit_log() -> None:
    """Who did what, when; each entry's hash covers all before it."""


@audit_log.command("list")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_obj
def audit_log_list(context: CommandContext, limit: int, as_json: bool) -> None:
    """Show the newest entries."""
    rows = SqlRecords(context.database(), context.clock).audit_page(None, limit)
    if not as_json:
        rows = [{**row, "detail": json.dumps(row["detail"])} for row in rows]
    context.emit(rows, as_json)


@audit_log.command("verify")
@click.pass_obj
def audit_log_verify(context: CommandContext) -> int:
    """Check that no entry was changed or cut out; exit 1 when one was.

    Prints the newest hash: note it elsewhere, and a cut at the end shows too.
    """
    records = SqlRecords(context.database(), context.clock)
    broken = records.broken_audit_entry()
    if broken is not None:
        click.echo(f"entry {broken} or one before it was changed or cut out; call the auditor")
        return 1
    newest = records.audit_page(None, 1)
    click.echo(f"ok {newest[0]['hash'] if newest else '(no entry yet)'}")
    return 0


GROUPS = (audit_log,)
