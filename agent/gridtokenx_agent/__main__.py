"""`gtx-agent`: exit code 0 done, 1 the thing asked about is bad, 2 usage or configuration."""

import sys

import click

from gridtokenx_agent.commands.completion import completion
from gridtokenx_agent.commands.doctor import doctor
from gridtokenx_agent.commands.export import export
from gridtokenx_agent.commands.init import init
from gridtokenx_agent.commands.meters import decode, profiles, read, simulate
from gridtokenx_agent.commands.operate import run, status
from gridtokenx_agent.commands.probe import probe
from gridtokenx_agent.commands.scan import scan
from gridtokenx_agent.commands.setup import change_key, check_config, claim, keygen
from gridtokenx_agent.errors import AgentError, ConfigError, KeyFileError, ProfileError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gridtokenx", prog_name="gtx-agent")
def cli() -> None:
    """Read electricity meters, sign what they say, and keep it until the cloud has it."""


_COMMANDS = (
    run, init, keygen, change_key, check_config, claim, scan, probe, read, decode, profiles,
    simulate, status, export, doctor, completion,
)  # fmt: skip
for _command in _COMMANDS:
    cli.add_command(_command)


def main() -> None:
    """Run the command line; every error is one line on stderr."""
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as exc:
        exc.show()
        sys.exit(exc.exit_code if isinstance(exc, click.UsageError) else 1)
    except click.Abort:
        sys.exit(1)
    except ConfigError as exc:
        for fault in exc.faults:
            click.echo(f"gtx-agent: {fault}", err=True)
        sys.exit(2)
    except (KeyFileError, ProfileError) as exc:
        click.echo(f"gtx-agent: {exc}", err=True)
        sys.exit(2)
    except AgentError as exc:
        click.echo(f"gtx-agent: {exc}", err=True)
        sys.exit(1)
    except OSError as exc:
        click.echo(f"gtx-agent: {_words(exc)}", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _words(exc: OSError) -> str:
    place = f"{exc.filename}: " if exc.filename else ""
    # Key and buffer are for the service alone; an installer forgets sudo.
    way_out = "run it with sudo" if isinstance(exc, PermissionError) else "check the disk"
    return f"{place}{exc.strerror or exc}; {way_out}"


if __name__ == "__main__":
    main()
