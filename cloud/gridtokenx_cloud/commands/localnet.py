"""The command that serves a Solana cluster of one for development and tests."""

import asyncio
import errno
import signal
from pathlib import Path

import click

from gridtokenx_cloud.adapters.localnet.server import run_localnet
from gridtokenx_cloud.errors import ConfigError


@click.command("localnet")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8899, show_default=True, type=click.IntRange(0, 65535), help="0 = a free one."
)
@click.option(
    "--block-ms",
    default=400,
    show_default=True,
    type=click.IntRange(1, 60_000),
    help="Time between blocks.",
)
@click.option(
    "--state-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the chain survives a restart; without it the end forgets it.",
)
@click.option(
    "--nodes",
    default=1,
    show_default=True,
    type=click.IntRange(1, 9),
    help="RPC nodes of the cluster, on the ports that follow; each may go wrong on its own.",
)
def localnet(host: str, port: int, block_ms: int, state_file: Path | None, nodes: int) -> None:
    """Serve a Solana cluster on this machine until Ctrl-C; print the URL of each node."""
    asyncio.run(_until_stopped(host, port, block_ms, state_file, nodes))


async def _until_stopped(
    host: str, port: int, block_ms: int, state_file: Path | None, nodes: int
) -> None:
    serving = asyncio.ensure_future(
        run_localnet(
            host,
            port,
            block_ms=block_ms,
            state_file=state_file,
            nodes=nodes,
            on_ready=click.echo,
        )
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, serving.cancel)
    try:
        await serving
    except asyncio.CancelledError:
        return
    except OSError as exc:
        if exc.errno != errno.EADDRINUSE:
            raise
        raise ConfigError(
            (f"port {port} of {host} is in use; stop what listens there or give --port",)
        ) from exc


COMMANDS = (localnet,)
