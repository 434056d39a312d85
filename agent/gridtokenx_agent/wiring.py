"""Every part of a running agent with what it needs; the only place that knows them all."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gridtokenx_agent.actions import actions, plain, search_for_meters
from gridtokenx_agent.adapters.buffer_depth import buffer_depth
from gridtokenx_agent.adapters.buffer_status import read_status
from gridtokenx_agent.adapters.command_log import SqliteCommandLog
from gridtokenx_agent.adapters.config_file import staged
from gridtokenx_agent.adapters.home_assistant import HomeAssistant
from gridtokenx_agent.adapters.metrics_http import MetricsServer
from gridtokenx_agent.adapters.modbus import open_bus
from gridtokenx_agent.adapters.mqtt import MqttLink
from gridtokenx_agent.adapters.profile_files import find_profile
from gridtokenx_agent.adapters.sqlite_buffer import SqliteBuffer
from gridtokenx_agent.adapters.system import SystemClock, jitter, new_epoch, notify
from gridtokenx_agent.checking import home_address, mqtt_address, read_settings
from gridtokenx_agent.configuring import Configuration
from gridtokenx_agent.errors import StoreError
from gridtokenx_agent.fleet import Fleet, FleetParts
from gridtokenx_agent.gateway import GatewayStream
from gridtokenx_agent.home import HomeMeter, announcements
from gridtokenx_agent.logs import set_up_logging
from gridtokenx_agent.metrics import (
    buffer_figures,
    command_figures,
    process_figures,
    render,
    tally_figures,
    uplink_figures,
)
from gridtokenx_agent.observed import ObservedBuffer, ObservedBus, Tally
from gridtokenx_agent.ports import MeterBus, RecordSigner
from gridtokenx_agent.publish import Publisher, PublisherParts
from gridtokenx_agent.recorder import Recorder, RecorderParts
from gridtokenx_agent.remote import Remote, RemoteParts
from gridtokenx_agent.services import UPLINK, ConfiguredServices, ServiceParts
from gridtokenx_agent.settings import (
    AgentSettings,
    LogSettings,
    MetricsSettings,
    MqttSettings,
    notify_socket,
)
from gridtokenx_agent.tasks import Job, Supervisor
from gridtokenx_agent.watchdog import Heart, Watchdog
from gridtokenx_wire.base58 import decode_key
from gridtokenx_wire.record import GATEWAY_STREAM

CHECK_MS = 10_000
_CLOCK, _STORE = "clock", "store"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """What the agent stands on."""

    settings: AgentSettings
    path: Path
    signer: RecordSigner
    clock: SystemClock
    buffer: SqliteBuffer

    @property
    def gateway_id(self) -> str:
        """Public key in base58."""
        return self.signer.gateway_id


class Agent:
    """A wired agent.

    Attributes:
        stop: Set when it is to end.
        restarts: It ends to begin anew.
    """

    def __init__(self, base: Base) -> None:
        settings, clock = base.settings, base.clock
        self.stop = asyncio.Event()
        self.restarts = False
        self.supervisor = Supervisor()
        self._base = base
        self._tally = Tally()
        self._heart = Heart()
        self._wake = asyncio.Event()
        self._observed = ObservedBuffer(base.buffer, self._tally)
        self._records = self._recorder_parts()
        self._publisher = self._new_publisher()
        self._fleet = Fleet(
            FleetParts(
                recorder=self._records,
                supervisor=self.supervisor,
                clock=clock,
                beat=self._heart.beat,
                open_bus=self._open_bus,
                find_profile=find_profile,
            )
        )
        self._watchdog = Watchdog(
            self._heart, self._parts_that_beat, clock, partial(notify, notify_socket())
        )
        self._services = ConfiguredServices(
            ServiceParts(
                publisher=self._publisher,
                supervisor=self.supervisor,
                link=self._link,
                metrics=self._metrics_job,
                home_assistant=self._home_job,
                log=_log_as,
            ),
            settings,
        )
        self.configuration = Configuration(
            base.path, settings, read_settings, staged, self._fleet, self._services, clock
        )

    async def start(self) -> None:
        """Start everything."""
        base = self._base
        states = await base.buffer.states()
        base.clock.remember(
            state.counter.at for state in states.values() if state.counter is not None
        )
        self._tally.units |= {name: state.unit for name, state in states.items()}
        own = Recorder(self._records, GATEWAY_STREAM, "", states.get(GATEWAY_STREAM))
        self._stream = stream = GatewayStream(own, base.clock, base.clock)
        await stream.open()
        if base.buffer.moved_aside is not None:
            file = base.buffer.moved_aside
            _log.error("buffer was broken and moved aside", extra={"file": str(file)})
            await stream.event("BufferReplaced", file.name)
        self._remote = self._new_remote(stream)
        self._publisher.inbox = self._remote.inbox
        self._publisher.taken = self._skip_to
        settings = self.configuration.settings
        await self._fleet.switch(settings.bus, settings.validation.thresholds())
        self._services.start()
        self.supervisor.start("commands", self._remote.run)
        self.supervisor.start(_CLOCK, partial(self._watch, _CLOCK, stream.watch_clock))
        self.supervisor.start(_STORE, partial(self._watch, _STORE, base.buffer.states))
        self.supervisor.start("watchdog", self._watchdog.run)

    async def _restart(self) -> None:
        await self._services.replies_are_out()
        self.restarts = True
        self.stop.set()

    async def _watch(self, name: str, look: Callable[[], Awaitable[object]]) -> None:
        """Do something again and again, and tell that it was done."""
        while True:
            await look()
            now_ms = self._base.clock.now().mono_ms
            self._heart.beat(name, now_ms)
            await self._base.clock.sleep_until(now_ms + CHECK_MS)

    def _parts_that_beat(self) -> tuple[str, ...]:
        return (*self._fleet.names, _CLOCK, _STORE, UPLINK)

    def _recorder_parts(self) -> RecorderParts:
        settings = self._base.settings
        return RecorderParts(
            buffer=self._observed,
            signer=self._base.signer,
            token=settings.gateway.token,
            group_ms=settings.buffer.group_s * 1000,
            new_epoch=new_epoch,
            committed=self._wake.set,
        )

    def _new_publisher(self) -> Publisher:
        settings = self._base.settings
        return Publisher(
            PublisherParts(
                link=self._link(settings.mqtt),
                outbox=self._base.buffer,
                signer=self._base.signer,
                cloud_key=decode_key(settings.cloud.public_key),
                clock=self._base.clock,
                jitter=jitter,
                software=_software(),
                beat=self._heart.beat,
                wake=self._wake,
                lines_per_s=settings.mqtt.lines_per_s,
            )
        )

    def _new_remote(self, stream: GatewayStream) -> Remote:
        base = self._base
        return Remote(
            RemoteParts(
                log=SqliteCommandLog(base.settings.buffer.path),
                clock=base.clock,
                signer=base.signer,
                cloud_key=decode_key(base.settings.cloud.public_key),
                reply=self._publisher.reply,
                note=stream.event,
                actions=actions(
                    self._fleet,
                    self.configuration,
                    self._status,
                    search_for_meters,
                    self._restart,
                ),
            )
        )

    def _skip_to(self, meter_id: str, epoch: str, seq: int) -> None:
        if meter_id == GATEWAY_STREAM:
            self._stream.skip_to(epoch, seq)
        else:
            self._fleet.skip_to(meter_id, epoch, seq)

    def _link(self, section: MqttSettings) -> MqttLink:
        return MqttLink(mqtt_address(section, self._base.gateway_id), self._wake.set)

    def _open_bus(self, url: str) -> MeterBus:
        clock = self._base.clock
        return ObservedBus(open_bus(url, clock), url, clock, self._tally)

    def _metrics_job(self, section: MetricsSettings) -> Job | None:
        if section.bind is None:
            return None
        host, _, port = section.bind.rpartition(":")
        return MetricsServer(
            host.strip("[]"), int(port), self._metrics_text, self._watchdog.late
        ).run

    def _home_job(self, settings: AgentSettings) -> Job | None:
        self._observed.listener = None
        address = home_address(settings.home_assistant, self._base.gateway_id)
        if address is None:
            return None
        meters = [
            HomeMeter(meter_id=m.meter_id, interval_s=m.interval_s, sample_s=m.sample_s)
            for bus in settings.bus
            for m in bus.meter
        ]
        prefix = settings.home_assistant.prefix
        told = list(announcements(prefix, self._base.gateway_id, meters, _software()))
        home = HomeAssistant(address, lambda: told)
        self._observed.listener = home.show
        return home.run

    async def _metrics_text(self) -> str:
        now = self._base.clock.now()
        figures = [
            *process_figures(
                _software(), int(now.clock), self.supervisor.restarts, self._watchdog.late()
            ),
            *tally_figures(self._tally),
            *uplink_figures(self._publisher.counts),
            *command_figures(asdict(self._remote.counts)),
        ]
        try:
            depth = await asyncio.to_thread(buffer_depth, self._base.settings.buffer.path)
        except StoreError as exc:
            _log.warning("buffer cannot be counted", extra={"reason": str(exc)})
        else:
            figures += buffer_figures(depth, now.wall_ms)
        return render(figures)

    async def _status(self) -> dict[str, Any]:
        base = self._base
        held = await asyncio.to_thread(read_status, base.settings.buffer.path)
        now = base.clock.now()
        config = await asyncio.to_thread(base.path.read_bytes)
        told: dict[str, Any] = plain(
            {
                "software": _software(),
                "boot_id": now.boot_id,
                "mono_ms": now.mono_ms,
                "wall_ms": now.wall_ms,
                "clock": int(now.clock),
                "config_file_sha256": hashlib.sha256(config).hexdigest(),
                "buses": self._fleet.names,
                "stuck": self._watchdog.late(),
                "restarts": self.supervisor.restarts,
                "uplink": asdict(self._publisher.counts),
                "buffer": held.as_json(),
            }
        )
        return told


def _software() -> str:
    return f"gtx-agent {version('gridtokenx')}"


def _log_as(section: LogSettings) -> None:
    set_up_logging(section.level, section.format)
