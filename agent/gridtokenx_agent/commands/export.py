"""Records as a table, for a spreadsheet or another program."""

import csv
import json
from collections.abc import Callable, Iterable
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from gridtokenx_agent.commands.options import config_option, json_option

if TYPE_CHECKING:
    from gridtokenx_agent.adapters.stored_records import StoredRecord

_KINDS: Final = ("slot", "sample", "event", "clock")
_HEAD: Final = (
    "state", "meter_id", "kind", "time", "clock", "epoch", "seq",
    "interval_s", "import_wh", "export_wh",
)  # fmt: skip
_TAIL: Final = ("flags", "event", "detail", "error_ms", "reason")


def moment(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    """Read a time as ISO 8601; without a zone it is UTC; return Unix milliseconds."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as exc:
        raise click.BadParameter(
            f"{text!r}; give a time as 2026-01-31 or 2026-01-31T12:00"
        ) from exc
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


@click.command()
@config_option
@click.option("--since", callback=moment, metavar="TIME", help="From this time on, UTC.")
@click.option("--until", callback=moment, metavar="TIME", help="Before this time, UTC.")
@click.option("--meter", "meters", multiple=True, metavar="METER_ID", help="Only these meters.")
@click.option("--kind", "kinds", multiple=True, type=click.Choice(_KINDS), help="Only these kinds.")
@click.option("--output", type=click.File("w", lazy=False), default="-", help="File to write.")
@click.option("--lines", is_flag=True, help="The signed lines themselves, one a line.")
@json_option
def export(
    config: Path,
    since: int | None,
    until: int | None,
    meters: tuple[str, ...],
    kinds: tuple[str, ...],
    output: Any,
    lines: bool,
    as_json: bool,
) -> None:
    """Write the records that are still here as CSV; works while the agent runs.

    A record leaves the gateway with the cloud's receipt: what is not here any more, the cloud has.
    Times are those of the gateway's clock; `clock` tells how far they may be trusted.
    """
    from gridtokenx_agent.adapters.stored_records import stored_records
    from gridtokenx_agent.app import read_settings

    wanted = _filter(since, until, meters, kinds)
    records = (
        entry for entry in stored_records(read_settings(config).buffer.path) if wanted(entry)
    )
    if lines:
        output.writelines(f"{entry.line}\n" for entry in records)
    elif as_json:
        output.write(json.dumps({"records": [row(entry) for entry in records]}) + "\n")
    else:
        _write_csv(output, records)
    # Here, where it is told: what fails when the file is closed, nobody hears of.
    output.flush()


def columns() -> tuple[str, ...]:
    """Return the names of the columns."""
    from gridtokenx_wire.record import LiveValues

    return (*_HEAD, *(field.name for field in fields(LiveValues)), *_TAIL)


def row(entry: "StoredRecord") -> dict[str, str]:
    """Return one record by column; numbers as decimal text, empty where there is none."""
    record = entry.record
    stamp = record.stamp
    time = datetime.fromtimestamp(stamp.wall_ms / 1000, UTC).isoformat(timespec="milliseconds")
    live = getattr(record, "live", None)
    found: dict[str, Any] = {
        "state": entry.state,
        "meter_id": stamp.meter_id,
        "kind": record.kind,
        "time": time,
        "clock": stamp.clock.name.lower(),
        "epoch": stamp.epoch,
        "seq": stamp.seq,
        "reason": entry.reason,
    }
    for name in columns():
        value = getattr(record, name, None) if name not in found else found[name]
        value = getattr(live, name, None) if value is None else value
        found[name] = "" if value is None else str(int(value)) if name == "flags" else str(value)
    return {name: found[name] for name in columns()}


def _filter(
    since: int | None, until: int | None, meters: tuple[str, ...], kinds: tuple[str, ...]
) -> "Callable[[StoredRecord], bool]":
    def wanted(entry: "StoredRecord") -> bool:
        stamp = entry.record.stamp
        return (
            (since is None or stamp.wall_ms >= since)
            and (until is None or stamp.wall_ms < until)
            and (not meters or stamp.meter_id in meters)
            and (not kinds or entry.record.kind in kinds)
        )

    return wanted


def _write_csv(output: Any, records: "Iterable[StoredRecord]") -> None:
    table = csv.DictWriter(output, columns(), lineterminator="\n")
    table.writeheader()
    table.writerows(row(entry) for entry in records)
