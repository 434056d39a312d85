"""Run the agent, and see what it holds."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gridtokenx_agent.commands.options import config_option, json_option

if TYPE_CHECKING:
    from gridtokenx_agent.adapters.buffer_status import BufferStatus


@click.command()
@config_option
def run(config: Path) -> None:
    """Read the meters and deliver what they say, until stopped."""
    from gridtokenx_agent import app
    from gridtokenx_agent.logs import set_up_logging

    settings = app.read_settings(config)
    set_up_logging(settings.log.level, settings.log.format)
    asyncio.run(app.run(settings, config))


@click.command()
@config_option
@json_option
def status(config: Path, as_json: bool) -> None:
    """Show what waits in the buffer, what the cloud refused, and each meter's last slot."""
    from gridtokenx_agent.adapters.buffer_status import read_status
    from gridtokenx_agent.app import read_settings

    found = read_status(read_settings(config).buffer.path)
    click.echo(json.dumps(_as_json(found)) if as_json else _text(found))


def _as_json(status: "BufferStatus") -> dict[str, Any]:
    """Return plain values; energy as decimal text, which no reader rounds."""
    shown = status.as_json()
    for meter in shown["meters"]:
        for name in ("import_wh", "export_wh"):
            meter[name] = None if meter[name] is None else str(meter[name])
    return shown


def _text(status: "BufferStatus") -> str:
    pending = ", ".join(f"{count} {kind}" for kind, count in status.pending.items())
    lines = [
        f"gateway       {status.gateway_id}",
        f"pending       {pending}; {status.sent_unconfirmed} sent without receipt",
        f"last receipt  {_time(status.last_receipt_ms)}",
        f"refused       {status.dead} lines",
        *(
            f"  {dead.meter_id} {dead.kind} {dead.epoch}/{dead.seq}: {dead.code}: {dead.reason}"
            for dead in status.dead_lines
        ),
    ]
    for meter in status.meters:
        refused = "".join(f", {code} x{count}" for code, count in meter.refused.items())
        lines.append(
            f"meter         {meter.meter_id}: {meter.state}, epoch {meter.epoch} seq {meter.seq}, "
            f"import {_wh(meter.import_wh)}, export {_wh(meter.export_wh)}, "
            f"last slot {_time(meter.last_slot_wall_ms)}{refused}"
        )
    return "\n".join(lines)


def _time(wall_ms: int | None) -> str:
    if wall_ms is None:
        return "never"
    return datetime.fromtimestamp(wall_ms / 1000, UTC).isoformat(timespec="seconds")


def _wh(value: int | None) -> str:
    return "unknown" if value is None else f"{value} Wh"
