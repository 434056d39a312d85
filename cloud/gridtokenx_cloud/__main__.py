"""The command `gtx-cloud`; a command's module is imported only when that command runs."""

import importlib
import sys
from pathlib import Path
from typing import Any

import click

from gridtokenx_cloud.adapters.system import forbid_core_dumps
from gridtokenx_cloud.commands.context import Context
from gridtokenx_cloud.errors import CloudError, ConfigError

_COMMANDS = {
    "run": "run",
    "check-config": "store",
    "migrate": "store",
    "backup": "store",
    "archive": "archive",
    "migrate-store": "store",
    "localnet": "localnet",
    "user": "registry",
    "gateway": "registry",
    "meter": "registry",
    "held": "registry",
    "config": "config",
    "audit-log": "audit_log",
    "api-token": "access",
    "keys": "keys",
    "mint-account": "chain",
    "audit": "mint",
    "retry": "mint",
    "estimate-fee": "mint",
    "proof": "mint",
    "verify-proof": "mint",
    "batch": "mint_ops",
    "rebuild": "mint_ops",
    "check-chain": "chain",
}
"""Command -> its module in `gridtokenx_cloud.commands`, which lists it in COMMANDS or GROUPS."""


class LazyGroup(click.Group):
    """A group that imports what runs: `gtx-cloud user list` must not load a Solana wheel."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See `click.Group.list_commands`."""
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See `click.Group.get_command`."""
        module_name = _COMMANDS.get(cmd_name)
        if module_name is None:
            return None
        module = importlib.import_module(f"gridtokenx_cloud.commands.{module_name}")
        commands: tuple[click.Command, ...] = (
            *getattr(module, "COMMANDS", ()),
            *getattr(module, "GROUPS", ()),
        )
        return next(command for command in commands if command.name == cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """See `click.Group.format_commands`: here each first sentence is shown whole."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, command.get_short_help_str(200)) for name, command in commands if command]
            )


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--env-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Settings for what the environment does not set. Default: .env, if there is one.",
)
@click.option("--database-url", help="In place of GTX_CLOUD_DATABASE_URL.")
@click.version_option(package_name="gridtokenx", prog_name="gtx-cloud")
@click.pass_context
def cli(ctx: click.Context, env_file: Path | None, database_url: str | None) -> None:
    """Signed electricity meter readings become energy tokens, exactly once."""
    context = Context(env_file, database_url)
    ctx.obj = context
    ctx.call_on_close(context.close)


def main() -> None:
    """Run one command; 0 done, 1 the thing asked about is bad, 2 usage or configuration."""
    # Many commands read a key; none of them leaves it in a file.
    forbid_core_dumps()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; an error is one line that names the way out."""
    try:
        result: Any = cli.main(arguments, prog_name="gtx-cloud", standalone_mode=False)
    except ConfigError as exc:
        for fault in exc.faults:
            click.echo(f"gtx-cloud: {fault}", err=True)
        return 2
    except CloudError as exc:
        click.echo(f"gtx-cloud: {exc}", err=True)
        return 1
    except click.exceptions.NoArgsIsHelpError as exc:
        click.echo(exc.format_message(), err=True)
        return 2
    except click.ClickException as exc:
        hint = " (try --help)" if isinstance(exc, click.UsageError) else ""
        click.echo(f"gtx-cloud: {exc.format_message()}{hint}", err=True)
        return exc.exit_code
    except click.Abort:
        click.echo("gtx-cloud: stopped", err=True)
        return 1
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    main()
