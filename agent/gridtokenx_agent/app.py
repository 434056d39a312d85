"""Wires the agent together, runs it, and stops it cleanly."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Coroutine
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gridtokenx_agent.acquire import BusLoop, Meter, plan_meter
from gridtokenx_agent.adapters.keyfile import load_key
from gridtokenx_agent.adapters.modbus import open_bus, parse_bus_url
from gridtokenx_agent.adapters.mqtt import MqttAddress, MqttLink
from gridtokenx_agent.adapters.profile_files import find_profile
from gridtokenx_agent.adapters.sqlite_buffer import SqliteBuffer, open_buffer
from gridtokenx_agent.adapters.system import SystemClock, jitter, new_epoch, notify
from gridtokenx_agent.clock import ClockWatch, watch_clock
from gridtokenx_agent.counters import Limits, MeterState
from gridtokenx_agent.errors import ConfigError
from gridtokenx_agent.health import stuck
from gridtokenx_agent.ports import Clock, MeterBus, RecordSigner, TrueTime
from gridtokenx_agent.profiles import (
    bus_busy_percent,
    busy_fault,
    evidence_warning,
    may_mint,
)
from gridtokenx_agent.publish import Publisher, PublisherParts
from gridtokenx_agent.reader import MeterReader, bus_loads
from gridtokenx_agent.recorder import Recorder, RecorderParts
from gridtokenx_agent.settings import (
    AgentSettings,
    BusSettings,
    MqttSettings,
    load_settings,
    notify_socket,
)
from gridtokenx_agent.validation import Thresholds
from gridtokenx_wire.base58 import decode_key
from gridtokenx_wire.record import GATEWAY_STREAM

CLOCK_CHECK_MS = 10_000
WATCHDOG_MS = 10_000
STUCK_AFTER_MS = 180_000
_log = logging.getLogger(__name__)


def read_settings(path: Path) -> AgentSettings:
    """Read and check the whole configuration: profiles, bus URLs, and what each bus can carry.

    Raises:
        ConfigError: Lists every fault.
    """
    settings = load_settings(path, find_profile, parse_bus_url)
    faults = [fault for bus in settings.bus if (fault := _busy_fault(bus)) is not None]
    if faults:
        raise ConfigError(tuple(f"{path}: {fault}" for fault in faults))
    return settings


def warnings_of(settings: AgentSettings) -> list[str]:
    """Return what is allowed, but should be known: counters whose registers are not proven."""
    return [
        f"{meter.meter_id}: profile {meter.profile}: {warning}"
        for bus in settings.bus
        for meter in bus.meter
        if (
            warning := evidence_warning(
                find_profile(meter.profile), accept_disputed=meter.accept_disputed
            )
        )
    ]


def _busy_fault(bus: BusSettings) -> str | None:
    place = parse_bus_url(bus.url)
    baudrate = None if place.kind == "tcp" else place.baudrate
    loads = [
        load
        for meter in bus.meter
        for load in bus_loads(find_profile(meter.profile), meter.interval_s, meter.sample_s)
    ]
    fault = busy_fault(bus_busy_percent(loads, baudrate), len(bus.meter), baudrate)
    return f"bus {bus.url}: {fault}" if fault else None


async def run(settings: AgentSettings) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        PermanentError: Something an operator must change; nothing was lost.
    """
    signer = load_key(settings.gateway.key_file)
    clock = SystemClock()
    address = mqtt_address(settings.mqtt, signer.gateway_id)
    buffer = open_buffer(
        settings.buffer.path,
        signer.gateway_id,
        settings.buffer.max_mb,
        settings.buffer.resend_after_s,
        clock.now().wall_ms,
    )
    try:
        await _run(settings, signer, clock, buffer, address)
    finally:
        buffer.close()


def mqtt_address(mqtt: MqttSettings, gateway_id: str) -> MqttAddress:
    """Return broker and credentials.

    Raises:
        ConfigError: The password file cannot be read.
    """
    password = None
    if mqtt.password_file is not None:
        try:
            password = mqtt.password_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError(
                (f"mqtt.password_file {mqtt.password_file} cannot be read: {exc}",)
            ) from exc
    return MqttAddress(
        url=mqtt.url,
        client_id=gateway_id,
        username=mqtt.username or (gateway_id if password is not None else None),
        password=password,
        ca_file=mqtt.ca_file,
        cert_file=mqtt.cert_file,
        key_file=mqtt.key_file,
    )


@dataclass(frozen=True, slots=True)
class Heart:
    """When each loop last made progress."""

    beats: dict[str, int]

    def beat(self, name: str, now_ms: int) -> None:
        """Note progress of one loop."""
        self.beats[name] = now_ms


async def _run(
    settings: AgentSettings,
    signer: RecordSigner,
    clock: SystemClock,
    buffer: SqliteBuffer,
    address: MqttAddress,
) -> None:
    heart = Heart({})
    wake = asyncio.Event()
    publisher = _publisher(settings, signer, clock, buffer, address, heart, wake)
    parts = RecorderParts(
        buffer=buffer,
        signer=signer,
        token=settings.gateway.token,
        group_ms=settings.buffer.group_s * 1000,
        new_epoch=new_epoch,
        committed=wake.set,
    )
    states = await buffer.states()
    clock.remember(state.counter.at for state in states.values() if state.counter is not None)
    gateway = Recorder(parts, GATEWAY_STREAM, "", states.get(GATEWAY_STREAM))
    await gateway.open(clock.now())
    if buffer.moved_aside is not None:
        _log.error("buffer was broken and moved aside", extra={"file": str(buffer.moved_aside)})
        await gateway.event("BufferReplaced", buffer.moved_aside.name, clock.now())
    thresholds = settings.validation.thresholds()
    loops = [
        _bus_loop(bus, open_bus(bus.url, clock), parts, states, clock, heart, thresholds)
        for bus in settings.bus
    ]
    for warning in warnings_of(settings):
        _log.warning(warning)
    _log.info("started", extra={"gateway_id": signer.gateway_id, "broker": address.url})
    await _until_stopped(
        [
            *(loop.run() for loop in loops),
            publisher.run(),
            _watch_clock(gateway, clock, clock, heart),
            _feed_watchdog([loop.name for loop in loops], clock, heart),
        ]
    )
    _log.info("stopped")


def _publisher(
    settings: AgentSettings,
    signer: RecordSigner,
    clock: Clock,
    buffer: SqliteBuffer,
    address: MqttAddress,
    heart: Heart,
    wake: asyncio.Event,
) -> Publisher:
    return Publisher(
        PublisherParts(
            link=MqttLink(address, wake.set),
            outbox=buffer,
            signer=signer,
            cloud_key=decode_key(settings.cloud.public_key),
            clock=clock,
            jitter=jitter,
            software=f"gtx-agent {version('gridtokenx')}",
            beat=heart.beat,
            wake=wake,
            lines_per_s=settings.mqtt.lines_per_s,
        )
    )


def _bus_loop(
    bus: BusSettings,
    link: MeterBus,
    parts: RecorderParts,
    states: dict[str, MeterState],
    clock: Clock,
    heart: Heart,
    thresholds: Thresholds,
) -> BusLoop:
    meters: list[Meter] = []
    for meter in bus.meter:
        profile = find_profile(meter.profile)
        recorder = Recorder(parts, meter.meter_id, meter.profile, states.get(meter.meter_id))
        meters.append(
            plan_meter(
                meter.meter_id,
                MeterReader(link, meter.device_id, profile, meter.rated_power_w),
                recorder,
                Limits(
                    rated_power_w=meter.rated_power_w,
                    resolution_wh=profile.resolution_wh,
                    modulus_wh=profile.counter_modulus_wh,
                ),
                interval_s=meter.interval_s,
                sample_s=meter.sample_s,
                at=clock.now(),
                mints=may_mint(profile, accept_disputed=meter.accept_disputed),
                thresholds=thresholds,
            )
        )
    return BusLoop(bus.url, link, tuple(meters), clock, heart.beat)


async def _watch_clock(gateway: Recorder, clock: Clock, truth: TrueTime, heart: Heart) -> None:
    """Tell the cloud when the wall clock becomes true, and when it was set."""
    told: ClockWatch | None = None
    while True:
        at = clock.now()
        heart.beat("clock", at.mono_ms)
        told, tell = watch_clock(told, at)
        if tell:
            await gateway.clock(at, truth.error_ms())
        await gateway.flush(at)
        await clock.sleep_until(at.mono_ms + CLOCK_CHECK_MS)


async def _feed_watchdog(names: list[str], clock: Clock, heart: Heart) -> None:
    """Tell systemd that we live, as long as every loop makes progress."""
    address = notify_socket()
    notify(address, "READY=1")
    limits = dict.fromkeys((*names, "clock", "uplink"), STUCK_AFTER_MS)
    started_ms = clock.now().mono_ms
    for name in limits:
        heart.beats.setdefault(name, started_ms)
    while address:
        now_ms = clock.now().mono_ms
        late = stuck(heart.beats, limits, now_ms)
        if late:
            _log.error("loop is stuck", extra={"loops": ",".join(late)})
        else:
            notify(address, "WATCHDOG=1")
        await clock.sleep_until(now_ms + WATCHDOG_MS)
    await asyncio.get_running_loop().create_future()


async def _until_stopped(jobs: list[Coroutine[Any, Any, None]]) -> None:
    """Run all jobs until a signal; the first that fails stops the others and is raised."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    tasks = [asyncio.create_task(job) for job in jobs]
    stopper = asyncio.create_task(_wait(stop))
    try:
        done, _ = await asyncio.wait([*tasks, stopper], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopper.cancel()
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError):
                loop.remove_signal_handler(number)
    for task in done:
        task.result()
    for end in ends:
        if isinstance(end, Exception):
            raise end


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
