"""What is wrong, in words, and what to do."""

import asyncio
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gridtokenx_agent.commands.options import config_option, json_option
from gridtokenx_agent.diagnosis import (
    Check,
    Level,
    check_clock,
    check_disk,
    check_failed_meter,
    check_kept_meter,
    check_port,
    check_read_meter,
    check_receipts,
    check_refused,
    check_service,
)
from gridtokenx_agent.errors import (
    AgentError,
    ConfigError,
    KeyFileError,
    ProfileError,
    StoreError,
    TransientError,
)

if TYPE_CHECKING:
    from gridtokenx_agent.ports import Instant
    from gridtokenx_agent.reading import Reading
    from gridtokenx_agent.settings import AgentSettings, BusSettings, MeterSettings


@click.command()
@config_option
@json_option
@click.pass_context
def doctor(context: click.Context, config: Path, as_json: bool) -> None:
    """Look at everything between meter and cloud, and say what is wrong and what to do.

    Works while the agent runs: then ports and meters are judged by what it has stored, and
    nothing of it is disturbed. Exit code 1 when something is bad.
    """
    checks: list[Check] = []
    for check in examine(config):
        checks.append(check)
        if not as_json:
            click.echo(shown(check))
    good = all(check.level is not Level.BAD for check in checks)
    if as_json:
        click.echo(json.dumps({"ok": good, "checks": [asdict(check) for check in checks]}))
    context.exit(0 if good else 1)


def examine(config: Path) -> Iterator[Check]:
    """Yield one check after the other; without a configuration only those of the machine."""
    from gridtokenx_agent.adapters.host import lock_holder, service_facts
    from gridtokenx_agent.adapters.system import SystemClock
    from gridtokenx_agent.app import read_settings, warnings_of

    at = SystemClock().now()
    settings = None
    try:
        settings = read_settings(config)
    except (ConfigError, ProfileError) as exc:
        faults = exc.faults if isinstance(exc, ConfigError) else (str(exc),)
        way_out = "edit the file, then run doctor again" if _readable(config) else ""
        for fault in faults:
            yield Check("configuration", Level.BAD, fault, way_out)
    yield check_clock(at)
    if settings is None:
        return
    yield Check("configuration", Level.OK, f"{config} is right")
    for warning in warnings_of(settings):
        yield Check("configuration", Level.WARN, warning, "see docs/meters.md")
    service = service_facts()
    agent_pid = lock_holder(settings.buffer.path.with_name(settings.buffer.path.name + ".lock"))
    if agent_pid is None and service is not None and service.state == "active":
        agent_pid = 0  # its buffer is not for this user to see, but systemd knows
    yield check_service(service, agent_pid)
    yield from _ports(settings, agent_pid, service=service is not None)
    yield from _meters(settings, agent_pid, at)
    yield from _disk(settings)
    yield from _stored(settings, at, running=agent_pid is not None)
    yield from _broker(settings, at)


def _readable(config: Path) -> bool:
    try:
        return config.is_file() and os.access(config, os.R_OK)
    except PermissionError:
        return False


def _ports(settings: "AgentSettings", agent_pid: int | None, *, service: bool) -> Iterator[Check]:
    from gridtokenx_agent.adapters.host import port_facts
    from gridtokenx_agent.adapters.modbus import parse_bus_url

    for bus in settings.bus:
        place = parse_bus_url(bus.url)
        if place.kind == "rtu":
            yield check_port(port_facts(Path(place.host)), agent_pid, service=service)


def _meters(settings: "AgentSettings", agent_pid: int | None, at: "Instant") -> Iterator[Check]:
    if agent_pid is not None:
        yield from _kept_meters(settings, at)
        return
    for bus in settings.bus:
        yield from asyncio.run(_read_meters(bus))


def _kept_meters(settings: "AgentSettings", at: "Instant") -> Iterator[Check]:
    from gridtokenx_agent.adapters.buffer_status import read_status

    try:
        known = {meter.meter_id: meter for meter in read_status(settings.buffer.path).meters}
    except (StoreError, PermissionError):
        return  # told by the check of what is stored
    for bus in settings.bus:
        for meter in bus.meter:
            kept = known.get(meter.meter_id)
            yield check_kept_meter(
                meter.meter_id,
                kept.state if kept else "unknown",
                kept.last_slot_wall_ms if kept else None,
                meter.interval_s,
                at.wall_ms,
            )


async def _read_meters(bus: "BusSettings") -> list[Check]:
    from gridtokenx_agent.adapters.modbus import open_bus
    from gridtokenx_agent.adapters.profile_files import find_profile
    from gridtokenx_agent.adapters.system import SystemClock
    from gridtokenx_agent.reader import MeterReader, read_patiently

    link = open_bus(bus.url, SystemClock())
    results: list[tuple[MeterSettings, Reading | AgentError]] = []
    try:
        for meter in bus.meter:
            profile = find_profile(meter.profile)
            reader = MeterReader(link, meter.device_id, profile, meter.rated_power_w)
            try:
                results.append((meter, await read_patiently(reader)))
            except AgentError as exc:
                results.append((meter, exc))
    finally:
        await link.close()
    # A refusal is an answer too.
    others = any(not isinstance(found, TransientError) for _, found in results)
    return [_meter_check(bus, meter, found, others=others) for meter, found in results]


def _meter_check(
    bus: "BusSettings", meter: "MeterSettings", found: "Reading | AgentError", *, others: bool
) -> Check:
    from gridtokenx_wire.record import Quality

    if isinstance(found, AgentError):
        where = f"{bus.url}, device id {meter.device_id}"
        return check_failed_meter(meter.meter_id, where, found, others=others)
    energy = found.energy
    values = (
        f"answers: import {energy.import_wh} Wh, export {energy.export_wh} Wh" if energy else ""
    )
    odd = bool(found.flags & (Quality.OUT_OF_RANGE | Quality.POWER_MISMATCH))
    return check_read_meter(meter.meter_id, found.fault, values, implausible=odd)


def _disk(settings: "AgentSettings") -> Iterator[Check]:
    from gridtokenx_agent.adapters.host import free_bytes, may_write

    path = settings.buffer.path
    try:
        used = path.stat().st_size
    except OSError:
        used = 0
    folder = path.parent
    yield check_disk(
        folder, free_bytes(folder), used, settings.buffer.max_mb, writable=may_write(folder)
    )


def _stored(settings: "AgentSettings", at: "Instant", *, running: bool) -> Iterator[Check]:
    from gridtokenx_agent.adapters.buffer_status import read_status

    path = settings.buffer.path
    try:
        if not path.exists():
            yield Check("buffer", Level.WARN, f"{path} is not there yet", "start the agent")
            return
        status = read_status(path)
    except PermissionError:
        yield Check("buffer", Level.BAD, f"{path} is not for this user", "run doctor with sudo")
        return
    except StoreError as exc:
        yield Check(
            "buffer", Level.BAD, str(exc), "the agent moves a broken file aside when it starts"
        )
        return
    waiting = sum(status.pending.values())
    yield Check("buffer", Level.OK, f"can be read; {waiting} lines wait")
    last = (
        f"{status.dead_lines[0].code}: {status.dead_lines[0].reason}" if status.dead_lines else ""
    )
    yield check_refused(status.dead, last)
    yield check_receipts(status.last_receipt_ms, waiting, at.wall_ms, running=running)


def _broker(settings: "AgentSettings", at: "Instant") -> Iterator[Check]:
    from gridtokenx_agent.adapters.broker_probe import broker_checks
    from gridtokenx_agent.adapters.keyfile import load_key
    from gridtokenx_agent.app import mqtt_address
    from gridtokenx_wire.topics import Channel, topic

    try:
        gateway_id = load_key(settings.gateway.key_file).gateway_id
        address = mqtt_address(settings.mqtt, gateway_id)
    except (KeyFileError, ConfigError) as exc:
        yield Check("key and password", Level.BAD, str(exc), "run doctor as the service's user")
        return
    yield Check("key", Level.OK, f"gateway {gateway_id}")
    yield from broker_checks(address, topic(gateway_id, Channel.RECEIPTS), at.wall_ms)


def shown(check: Check) -> str:
    """Return a check as it is printed: one line, and the way out below."""
    line = f"{check.level.value:<5} {check.name}: {check.said}"
    return line if not check.way_out else f"{line}\n      -> {check.way_out}"
