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


def complete_profile(_context: click.Context, _option: click.Parameter, text: str) -> list[str]:
    """Return the profiles whose name begins with *text*, for the shell."""
    from gridtokenx_agent.adapters.profile_files import profile_paths

    return [name for name in profile_paths() if name.startswith(text)]


def reason_of(exc: Exception) -> str:
    """Return the words of a fault, without pydantic's frame around them."""
    from pydantic import ValidationError

    if not isinstance(exc, ValidationError):
        return str(exc)
    return "; ".join(error["msg"].removeprefix("Value error, ") for error in exc.errors())
