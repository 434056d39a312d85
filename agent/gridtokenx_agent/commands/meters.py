"""Look at meters and profiles, decode words, serve simulated meters."""

import asyncio
import contextlib
import json
from dataclasses import asdict
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from gridtokenx_agent.commands.options import (
    complete_profile,
    config_option,
    json_option,
    reason_of,
)
from gridtokenx_agent.errors import AgentError, ConfigError, ProfileError

if TYPE_CHECKING:
    from gridtokenx_agent.profiles import MeterProfile
    from gridtokenx_agent.reader import MeterReader
    from gridtokenx_agent.registers import BitField
    from gridtokenx_agent.settings import BusSettings, MeterSettings


@click.command()
@config_option
@json_option
@click.pass_context
def read(context: click.Context, config: Path, as_json: bool) -> None:
    """Read each meter once; exit code 1 when one of them has no answer or no energy."""
    from gridtokenx_agent.app import read_settings

    settings = read_settings(config)
    results = asyncio.run(_read_all(settings.bus))
    if as_json:
        click.echo(json.dumps({"meters": results}))
    else:
        for result in results:
            click.echo(_line(result))
    context.exit(1 if any(result["error"] for result in results) else 0)


@click.command()
@click.option("--type", "register_type", required=True, help="Such as float32, uint32, int64.")
@click.option("--order", default="ABCD", show_default=True, help="ABCD, CDAB, BADC or DCBA.")
@click.option("--scale", default="1", show_default=True, help="Value = raw number x scale.")
@click.option("--sentinel", "sentinels", multiple=True, metavar="HEX", help="Means no value.")
@click.option("--bits", default=None, metavar="LOWEST:WIDTH", help="Only these bits count.")
@click.argument("words", nargs=-1, required=True, metavar="WORD...")
@json_option
@click.pass_context
def decode(
    context: click.Context,
    register_type: str,
    order: str,
    scale: str,
    sentinels: tuple[str, ...],
    bits: str | None,
    words: tuple[str, ...],
    as_json: bool,
) -> None:
    """Turn raw words, four hex digits each, into the value they mean.

    Without --sentinel the usual ones of the type mean "not available": all ones for unsigned
    types, 80.. for signed ones, 0 for acc; NaN and infinity always do.
    """
    from gridtokenx_agent.registers import RegisterType, WordOrder, decode_words

    if register_type not in get_args(RegisterType):
        raise click.BadParameter(f"{register_type}; there is {', '.join(get_args(RegisterType))}")
    if order not in get_args(WordOrder):
        raise click.BadParameter(f"{order}; there is {', '.join(get_args(WordOrder))}")
    try:
        found = decode_words(
            register_type,  # type: ignore[arg-type]  # checked above
            order,  # type: ignore[arg-type]  # checked above
            Decimal(scale),
            [_word(word) for word in words],
            sentinels or None,
            _bits(bits),
        )
    except InvalidOperation as exc:
        raise click.UsageError(f"scale {scale} is no number") from exc
    except ValueError as exc:
        raise click.UsageError(reason_of(exc)) from exc
    except ProfileError as exc:
        raise click.UsageError(str(exc)) from exc
    value = f"{found.value:f}" if isinstance(found.value, Decimal) else found.value
    shown = json.dumps({"value": value, "flag": found.flag})
    click.echo(shown if as_json else value if value is not None else f"no value: {found.flag}")
    context.exit(0 if value is not None else 1)


@click.command()
@json_option
@click.option("--markdown", is_flag=True, help="Print docs/meters.md: every register of each.")
@click.argument("files", nargs=-1, metavar="[FILE.toml...]")
@click.pass_context
def profiles(context: click.Context, as_json: bool, markdown: bool, files: tuple[str, ...]) -> None:
    """List the meter models this agent knows, or check the profiles in FILEs.

    Exit code 1 when a profile has faults.
    """
    from gridtokenx_agent.adapters.profile_files import find_profile, profile_paths
    from gridtokenx_agent.profiles.page import profile_page

    rows: list[dict[str, Any]] = []
    found: dict[str, MeterProfile] = {}
    for name in files or profile_paths():
        try:
            profile = found[name] = find_profile(name)
        except (ProfileError, ConfigError) as exc:
            rows.append({"profile": name, "error": str(exc)})
            continue
        rows.append(
            {
                "profile": name,
                "manufacturer": profile.manufacturer,
                "model": profile.model,
                "grade": profile.grade,
                "resolution_wh": profile.resolution_wh,
                "points": sorted(profile.points),
                "error": None,
            }
        )
    if markdown:
        click.echo(profile_page(found), nl=False)
    elif as_json:
        click.echo(json.dumps({"profiles": rows}))
    else:
        for row in rows:
            said = row["error"] or f"{row['manufacturer']} {row['model']} ({row['grade']})"
            click.echo(f"{row['profile']:<22} {said}")
    context.exit(1 if any(row["error"] for row in rows) else 0)


@click.command()
@click.option(
    "--profile",
    required=True,
    shell_complete=complete_profile,
    help="Which model, see `gtx-agent profiles`; or a file of yours.",
)
@click.option("--url", default="tcp://127.0.0.1:5020", show_default=True, help="Where to serve it.")
@click.option("--device-id", type=click.IntRange(0, 255), default=1, show_default=True)
@click.option("--load-w", type=click.IntRange(0), default=2000, help="Load in the busiest hour.")
@click.option("--solar-w", type=click.IntRange(0), default=5000, help="Solar power at noon.")
@click.option("--speed", type=click.IntRange(1), default=1, help="Simulated seconds per second.")
@click.option("--identity", default="1001", show_default=True, help="Serial number it shows.")
@click.option(
    "--since-ms",
    type=click.IntRange(0),
    default=None,
    help="Unix ms its counters count from; the same again goes on where it was.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="What is wrong with it, as delay_ms=300 or silent; `--fault help` lists them.",
)
def simulate(
    profile: str,
    url: str,
    device_id: int,
    load_w: int,
    solar_w: int,
    speed: int,
    identity: str,
    since_ms: int | None,
    faults: tuple[str, ...],
) -> None:
    """Serve a simulated meter over TCP or a pseudo-terminal until interrupted."""
    from gridtokenx_agent.adapters import simulator
    from gridtokenx_agent.adapters.profile_files import find_profile
    from gridtokenx_agent.adapters.system import SystemClock

    wrong = simulator.parse_faults(faults)
    clock = SystemClock()
    model = find_profile(profile)
    start_ms = clock.now().wall_ms if since_ms is None else since_ms
    house = simulator.House(load_w=load_w, solar_w=solar_w, speed=speed)
    meter = simulator.MeterSimulator(
        model,
        simulator.house_registers(model, house, clock, start_ms, identity),
        wrong,
    )
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(
            simulator.simulate({device_id: meter}, url, lambda at: click.echo(f"serving {at}"))
        )


async def _read_all(buses: "tuple[BusSettings, ...]") -> list[dict[str, Any]]:
    from gridtokenx_agent.adapters.modbus import open_bus
    from gridtokenx_agent.adapters.profile_files import find_profile
    from gridtokenx_agent.adapters.system import SystemClock
    from gridtokenx_agent.reader import MeterReader

    results: list[dict[str, Any]] = []
    for bus in buses:
        link = open_bus(bus.url, SystemClock())
        for meter in bus.meter:
            profile = find_profile(meter.profile)
            reader = MeterReader(link, meter.device_id, profile, meter.rated_power_w)
            results.append(await _read_one(reader, meter))
        await link.close()
    return results


async def _read_one(reader: "MeterReader", meter: "MeterSettings") -> dict[str, Any]:
    from gridtokenx_agent.reader import read_patiently

    result: dict[str, Any] = {"meter_id": meter.meter_id, "error": None}
    try:
        reading = await read_patiently(reader)
    except AgentError as exc:
        return result | {"error": str(exc)}
    energy = reading.energy
    live = {name: value for name, value in asdict(reading.live).items() if value is not None}
    return result | {
        "import_wh": None if energy is None else str(energy.import_wh),
        "export_wh": None if energy is None else str(energy.export_wh),
        "identity": reading.identity,
        "live": live,
        "error": reading.fault or None,
    }


def _line(result: dict[str, Any]) -> str:
    if result["error"]:
        return f"{result['meter_id']}: {result['error']}"
    live = "".join(f", {name}={value}" for name, value in result["live"].items())
    identity = f", identity {result['identity']}" if result["identity"] else ""
    return (
        f"{result['meter_id']}: import {result['import_wh']} Wh, "
        f"export {result['export_wh']} Wh{identity}{live}"
    )


def _bits(text: str | None) -> "BitField | None":
    from gridtokenx_agent.registers import BitField

    if text is None:
        return None
    lowest, _, width = text.partition(":")
    return BitField.model_validate({"lowest": lowest, "width": width})


def _word(text: str) -> int:
    try:
        word = int(text, 16)
    except ValueError as exc:
        raise click.UsageError(f"{text!r} is no word; give four hex digits each") from exc
    if not 0 <= word <= 0xFFFF:
        raise click.UsageError(f"{text} is no word; give four hex digits each")
    return word
