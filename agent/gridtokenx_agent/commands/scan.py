"""Find meters, say how sure it is, print what to paste."""

import asyncio
import json
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gridtokenx_agent.commands.options import complete_profile, json_option
from gridtokenx_agent.errors import ConfigError

if TYPE_CHECKING:
    from gridtokenx_agent.commands.searching import FoundMeter, Search
    from gridtokenx_agent.identification import Judgement
    from gridtokenx_agent.profiles import MeterProfile

_WIDTH = 98
_SURE = {
    "CERTAIN": "certain: the meter itself says so",
    "LIKELY": "likely: voltage, frequency and power agree",
    "POSSIBLE": "possible: its values are plausible",
    "GUESS": "a guess: compare it with the name plate",
}


@click.command()
@click.option("--port", "ports", multiple=True, type=click.Path(path_type=Path), metavar="DEVICE",
              help="Serial port; by default all of /dev/serial/by-id.")  # fmt: skip
@click.option("--tcp", "hosts", multiple=True, metavar="HOST[:PORT],...",
              help="Modbus TCP; a network only when asked, as 192.168.1.0/24.")  # fmt: skip
@click.option("--url", "urls", multiple=True, metavar="URL",
              help="A bus as the configuration names it, such as rtu+tcp://host:4001.")  # fmt: skip
@click.option("--profile", "names", multiple=True, shell_complete=complete_profile,
              help="Look only for these models; much quicker.")  # fmt: skip
@click.option("--full", is_flag=True, help="Ask all 247 device ids, not only 1 to 10.")
@json_option
@click.pass_context
def scan(
    context: click.Context,
    ports: tuple[Path, ...],
    hosts: tuple[str, ...],
    urls: tuple[str, ...],
    names: tuple[str, ...],
    full: bool,
    as_json: bool,
) -> None:
    """Find and identify meters; nothing is ever written to one.

    Tries the usual baud rates and parities at each serial port until somebody answers. Ctrl-C
    prints what was found so far. Exit code 1 when nothing was found.
    """
    from gridtokenx_agent.adapters.profile_files import find_profile, profile_paths
    from gridtokenx_agent.commands.searching import Search

    profiles = {name: find_profile(name) for name in names or profile_paths()}
    search, stopped = run_search(Search(profiles=profiles, full=full), ports, hosts, urls)
    if as_json:
        found = [_as_json(meter, profiles) for meter in search.found]
        shown = {"meters": found, "remarks": search.remarks, "interrupted": stopped}
        click.echo(json.dumps(shown | {"toml": paste(search.found)}))
    else:
        click.echo(_text(search, profiles, stopped=stopped))
    context.exit(0 if search.found else 1)


def run_search(
    search: "Search", ports: tuple[Path, ...], hosts: tuple[str, ...], urls: tuple[str, ...]
) -> "tuple[Search, bool]":
    """Search where asked, by default at all serial ports; return whether it was interrupted."""
    from gridtokenx_agent.commands.progress import Progress
    from gridtokenx_agent.commands.searching import open_endpoints, tcp_targets

    targets = tcp_targets(hosts)
    if not (ports or targets or urls):
        ports = _all_ports()

    async def everything() -> None:
        for path in ports:
            await search.serial(path)
        for url in (*urls, *await open_endpoints(targets)):
            await search.url(url)

    with Progress() as progress:
        search.tell = progress.tell
        try:
            asyncio.run(everything())
        except KeyboardInterrupt:
            return search, True
    return search, False


def paste(found: "Iterable[FoundMeter]") -> str:
    """Return the part of a configuration that names the found meters."""
    buses: dict[str, list[FoundMeter]] = {}
    for meter in found:
        if meter.device.fits:
            buses.setdefault(meter.url, []).append(meter)
    return "\n".join(_bus_toml(url, meters) for url, meters in buses.items())


def _all_ports() -> tuple[Path, ...]:
    from gridtokenx_agent.adapters.host import serial_ports

    ports = serial_ports()
    if not ports:
        raise ConfigError(
            ("there is no serial port; plug the adapter in, or name a meter with --tcp HOST",)
        )
    return ports


def _bus_toml(url: str, meters: "list[FoundMeter]") -> str:
    entries = "".join(
        "\n[[bus.meter]]\n"
        f'meter_id = "METER-{meter.device.device_id}"  # its name, as it will be enrolled\n'
        f'profile = "{meter.device.fits[0].profile}"\n'
        f"device_id = {meter.device.device_id}\n"
        for meter in meters
    )
    return f"[[bus]]\nurl = {json.dumps(url)}\n{entries}"


def _text(search: "Search", profiles: "Mapping[str, MeterProfile]", *, stopped: bool) -> str:
    lines = [line for meter in search.found for line in _meter_lines(meter, profiles)]
    lines += [f"note: {remark}" for remark in search.remarks]
    if stopped:
        lines.append("note: stopped; not everything was asked")
    toml = paste(search.found)
    if toml:
        lines += ["", "Paste into the configuration, and give each meter its name:", "", toml]
    return "\n".join(lines).rstrip()


def _meter_lines(meter: "FoundMeter", profiles: "Mapping[str, MeterProfile]") -> Iterable[str]:
    device = meter.device
    yield f"{meter.url}  device id {device.device_id}"
    if not device.fits:
        yield "  answers, but no profile fits; see `gtx-agent probe` and firmware-config/meters"
        yield from (f"  not {miss.profile}: {_why_not(miss)}" for miss in device.misses)
        return
    best, *others = device.fits
    yield f"  {best.profile}  {_SURE[best.sureness.name]}"
    yield _wrapped("because", best.agrees)
    if best.missing:
        yield _wrapped("without", best.missing)
    same = [other for other in others if _same(best, other, profiles)]
    rest = [other for other in others if other not in same]
    if same:
        yield f"  same registers: {', '.join(other.profile for other in same)}"
    if rest:
        named = ", ".join(f"{other.profile} ({other.sureness.name.lower()})" for other in rest)
        yield f"  or  {named}"


def _wrapped(label: str, said: Iterable[str]) -> str:
    return textwrap.fill(
        ", ".join(said), _WIDTH, initial_indent=f"  {label}  ", subsequent_indent=" " * 11
    )


def _why_not(miss: "Judgement") -> str:
    return ", ".join(miss.against) or "nothing in it could be checked"


def _same(best: "Judgement", other: "Judgement", profiles: "Mapping[str, MeterProfile]") -> bool:
    from gridtokenx_agent.identification import same_registers

    return same_registers(profiles[best.profile], profiles[other.profile])


def _as_json(meter: "FoundMeter", profiles: "Mapping[str, MeterProfile]") -> dict[str, Any]:
    device = meter.device
    shown: dict[str, Any] = {"url": meter.url, "device_id": device.device_id}
    if not device.fits:
        misses = [{"profile": miss.profile, "against": miss.against} for miss in device.misses]
        return shown | {"profile": None, "sureness": "no", "misses": misses}
    best, *others = device.fits
    return shown | {
        "profile": best.profile,
        "sureness": best.sureness.name.lower(),
        "agrees": best.agrees,
        "missing": best.missing,
        "alternatives": [
            {
                "profile": other.profile,
                "sureness": other.sureness.name.lower(),
                "same_registers": _same(best, other, profiles),
            }
            for other in others
        ],
    }
