"""The buses of a gateway: started, read on demand, and changed while the others go on."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from gridtokenx_agent.acquire import BusLoop
from gridtokenx_agent.counters import Limits, MeterState
from gridtokenx_agent.errors import AgentError
from gridtokenx_agent.examiner import Meter, plan_meter
from gridtokenx_agent.ports import Clock, MeterBus
from gridtokenx_agent.profiles import MeterProfile, counting, may_mint
from gridtokenx_agent.reader import MeterReader
from gridtokenx_agent.recorder import Recorder, RecorderParts
from gridtokenx_agent.settings import BusSettings, MeterSettings
from gridtokenx_agent.tasks import Supervisor
from gridtokenx_agent.validation import USUAL, Thresholds

LONGEST_PERIOD_S = 60
PERIODS_OF_GRACE = 3


@dataclass(frozen=True, slots=True)
class Looked:
    """Who else is on a bus, and which device ids there was no time to ask."""

    devices: list[dict[str, Any]]
    unasked: tuple[int, ...] = ()


Look = Callable[[MeterBus, frozenset[int]], Awaitable[Looked]]
"""A bus and the device ids that are known on it -> who else is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetParts:
    """What the buses share.

    Attributes:
        open_bus: URL -> a bus that is connected at its first read.
        find_profile: Name -> profile; the name was checked with the configuration.
    """

    recorder: RecorderParts
    supervisor: Supervisor
    clock: Clock
    beat: Callable[[str, int], None]
    open_bus: Callable[[str], MeterBus]
    find_profile: Callable[[str], MeterProfile]


class Fleet:
    """Runs one task per bus."""

    def __init__(self, parts: FleetParts) -> None:
        self._parts = parts
        self._buses: dict[str, BusSettings] = {}
        self._thresholds = USUAL
        self._links: dict[str, MeterBus] = {}
        self._recorders: dict[str, Recorder] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The URLs of the buses that run."""
        return tuple(self._buses)

    @property
    def stalled(self) -> bool:
        """Whether rows wait in memory because the disk takes none; a change could lose them."""
        return any(recorder.stalled for recorder in self._recorders.values())

    async def switch(self, wanted: Sequence[BusSettings], thresholds: Thresholds = USUAL) -> None:
        """Run these buses and no others; a bus that stays the same never notices."""
        kept = [bus for bus in wanted if self._buses.get(bus.url) == bus]
        if thresholds != self._thresholds:
            self._thresholds = thresholds
            kept = []
        staying = {bus.url for bus in kept}
        # All old ones end first: a meter or a port may have moved from one to another.
        for url in [url for url in self._buses if url not in staying]:
            await self._parts.supervisor.stop(_task(url))
            del self._buses[url]
        for bus in wanted:
            if bus.url not in staying:
                self._buses[bus.url] = bus
                self._parts.supervisor.start(_task(bus.url), partial(self._run, bus))

    async def read_now(self) -> list[dict[str, Any]]:
        """Read every meter once, beside what its bus does anyway; nothing is recorded."""
        answers = await asyncio.gather(*(self._read_bus(bus) for bus in self._buses.values()))
        return [answer for bus in answers for answer in bus]

    async def answering(self, buses: Iterable[BusSettings]) -> set[str]:
        """Return the ids of the meters on running buses of these URLs that answer now."""
        there = [self._buses[bus.url] for bus in buses if bus.url in self._buses]
        answers = await asyncio.gather(*(self._read_bus(bus) for bus in there))
        return {str(one["meter_id"]) for bus in answers for one in bus if "fault" not in one}

    def holding(self, meter_ids: Collection[str]) -> list[BusSettings]:
        """Return the running buses that have one of these meters."""
        return [
            bus
            for bus in self._buses.values()
            if any(meter.meter_id in meter_ids for meter in bus.meter)
        ]

    async def wait_for(self, bus: BusSettings, meter_ids: Collection[str]) -> bool:
        """Return whether one of these meters answers on *bus* within three periods."""
        wanted = [meter for meter in bus.meter if meter.meter_id in meter_ids]
        period_s = min(meter.sample_s or meter.interval_s for meter in wanted)
        pause_ms = min(period_s, LONGEST_PERIOD_S) * 1000
        clock = self._parts.clock
        end_ms = clock.now().mono_ms + PERIODS_OF_GRACE * pause_ms
        while True:
            link = self._links.get(bus.url)
            if link is not None:
                for meter in wanted:
                    if "fault" not in await self._read(link, meter):
                        return True
            now_ms = clock.now().mono_ms
            if now_ms >= end_ms:
                return False
            await clock.sleep_until(min(now_ms + pause_ms, end_ms))

    async def scan(self, url: str, look: Look) -> Looked | None:
        """Look for meters on a running bus that are not configured; None = no such bus."""
        bus, link = self._buses.get(url), self._links.get(url)
        if bus is None or link is None:
            return None
        return await look(link, frozenset(meter.device_id for meter in bus.meter))

    def skip_to(self, meter_id: str, epoch: str, seq: int) -> None:
        """See `Recorder.skip_to`."""
        recorder = self._recorders.get(meter_id)
        if recorder is not None:
            recorder.skip_to(epoch, seq)

    async def _run(self, bus: BusSettings) -> None:
        link = self._parts.open_bus(bus.url)
        states = await self._parts.recorder.buffer.states()
        meters = tuple(self._meter(meter, link, states) for meter in bus.meter)
        self._links[bus.url] = link
        try:
            await BusLoop(bus.url, link, meters, self._parts.clock, self._parts.beat).run()
        finally:
            del self._links[bus.url]

    def _meter(self, meter: MeterSettings, link: MeterBus, states: dict[str, MeterState]) -> Meter:
        profile = self._parts.find_profile(meter.profile)
        return plan_meter(
            meter.meter_id,
            MeterReader(link, meter.device_id, profile, meter.rated_power_w),
            self._recorder(meter, states),
            Limits(
                rated_power_w=meter.rated_power_w,
                resolution_wh=profile.resolution_wh,
                modulus_wh=profile.counter_modulus_wh,
            ),
            interval_s=meter.interval_s,
            sample_s=meter.sample_s,
            at=self._parts.clock.now(),
            mints=may_mint(profile, accept_disputed=meter.accept_disputed),
            thresholds=self._thresholds,
        )

    def _recorder(self, meter: MeterSettings, states: dict[str, MeterState]) -> Recorder:
        """Return the meter's recorder: the same one as before, for the rows it may hold."""
        known = self._recorders.get(meter.meter_id)
        profile = counting(meter.profile, self._parts.find_profile(meter.profile))
        if known is None or known.state.profile != profile:
            state = known.state if known is not None else states.get(meter.meter_id)
            known = Recorder(self._parts.recorder, meter.meter_id, profile, state)
            self._recorders[meter.meter_id] = known
        return known

    async def _read_bus(self, bus: BusSettings) -> list[dict[str, Any]]:
        link = self._links.get(bus.url)
        if link is None:
            return [{"meter_id": m.meter_id, "fault": "its bus is starting"} for m in bus.meter]
        return [await self._read(link, meter) for meter in bus.meter]

    async def _read(self, link: MeterBus, meter: MeterSettings) -> dict[str, Any]:
        """Read one meter with a reader of its own: the bus takes turns by itself."""
        profile = self._parts.find_profile(meter.profile)
        reader = MeterReader(link, meter.device_id, profile, meter.rated_power_w)
        said: dict[str, Any] = {"meter_id": meter.meter_id}
        try:
            reading = await reader.read_slot(identity=False)
        except AgentError as exc:
            return said | {"fault": str(exc)}
        said |= {name: value for name, value in asdict(reading.live).items() if value is not None}
        said |= {"wall_ms": reading.at.wall_ms, "clock": int(reading.at.clock)}
        if reading.energy is None:
            return said | {"fault": reading.fault}
        return said | {
            "import_wh": reading.energy.import_wh,
            "export_wh": reading.energy.export_wh,
        }


def _task(url: str) -> str:
    return f"bus {url}"
