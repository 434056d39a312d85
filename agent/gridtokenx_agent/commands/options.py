"""Options that several commands share."""

from pathlib import Path

import click

from gridtokenx_agent.settings import DEFAULT_PATH

config_option = click.option(
    "--config",
    "config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=DEFAULT_PATH,
    show_default=True,
    help="Configuration file.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
