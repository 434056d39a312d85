"""The command that runs the cloud."""

import click

from gridtokenx_cloud.app import build, serve
from gridtokenx_cloud.commands.context import Context
from gridtokenx_cloud.logs import configure_logging
from gridtokenx_cloud.settings import secret_values


@click.command("run")
@click.option("--roles", help="Comma list in place of GTX_CLOUD_ROLES.")
@click.pass_context
def run(click_context: click.Context, roles: str | None) -> None:
    """Run the cloud until SIGTERM or Ctrl-C; roles: ingest, settle, api, events."""
    context: Context = click_context.obj
    settings = context.complete_settings(roles)
    configure_logging(settings.cloud.log_level, settings.cloud.log_format, secret_values(settings))
    app = build(settings, context.clock)
    if not serve(app):
        click_context.exit(1)


COMMANDS = (run,)
