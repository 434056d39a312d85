"""Eight meters on one serial bus, one of them dead: who is read when.

The real loop, the real bus and raw slaves, on a clock that jumps.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise

import pytest

from gridtokenx_agent.acquire import BusLoop, Meter, plan_meter
from gridtokenx_agent.adapters.modbus import open_bus
from gridtokenx_agent.adapters.profile_files import find_profile
from gridtokenx_agent.adapters.simulator import BusSimulator, Faults, MeterSimulator
from gridtokenx_agent.counters import Limits
from gridtokenx_agent.health import UnitState
from gridtokenx_agent.reader import MeterReader
from gridtokenx_agent.recorder import Recorder
from gridtokenx_wire.record import Record, SlotRecord
from tests.support import build
from tests.support.memory_buffer import MemoryBuffer
from tests.support.ports import free_port
from tests.support.virtual_time import LoopClock, run_in_virtual_time

PROFILE = find_profile("eastron-sdm630")
INTERVAL_S = 5
UNITS = range(1, 9)
WIRE_AND_LATENCY_MS = 100
"""20 registers at 9600 baud take 60 ms, and the meter thinks 40 ms."""
BUSY_MS = 250
"""With it the live meters leave no gap that an attempt at a dead one would fit in."""


@dataclass
class Bus:
    """A serial bus of eight meters behind a serial server."""

    interval_s: int = INTERVAL_S
    sample_s: int = 0
    clock: LoopClock = field(default_factory=LoopClock)
    buffer: MemoryBuffer = field(default_factory=MemoryBuffer)

    def __post_init__(self) -> None:
        self.slaves = {unit: self._slave() for unit in UNITS}
        self.simulator = BusSimulator(self.slaves)
        self.meters: dict[int, Meter] = {}

    def _slave(self) -> MeterSimulator:
        values = {name: Decimal(1) for name in PROFILE.points} | {"voltage_l1": Decimal(230)}
        return MeterSimulator(PROFILE, lambda: values, Faults(delay_ms=WIRE_AND_LATENCY_MS))

    def kill(self, unit: int) -> None:
        self.slaves[unit].faults = Faults(silent=True)

    def revive(self, unit: int) -> None:
        self.slaves[unit].faults = Faults(delay_ms=WIRE_AND_LATENCY_MS)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        service = await self.simulator.serve_rtu_tcp("127.0.0.1", 0)
        async with self.reading(service.url):
            yield
        await service.close()

    @asynccontextmanager
    async def reading(self, url: str) -> AsyncIterator[None]:
        bus = open_bus(f"{url}?baudrate=9600", self.clock)
        self.meters = {
            unit: plan_meter(
                f"M{unit}",
                MeterReader(bus, unit, PROFILE, None),
                Recorder(build.recorder_parts(self.buffer), f"M{unit}", "eastron-sdm630", None),
                Limits(rated_power_w=None, resolution_wh=1),
                interval_s=self.interval_s,
                sample_s=self.sample_s,
                at=self.clock.now(),
            )
            for unit in UNITS
        }
        loop = BusLoop("bus", bus, tuple(self.meters.values()), self.clock, lambda *_: None)
        task = asyncio.create_task(loop.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def polls_ms(self, kind: type[Record] = SlotRecord) -> dict[str, list[int]]:
        found = defaultdict(list)
        for record in self.buffer.records:
            if isinstance(record, kind):
                found[record.stamp.meter_id].append(record.stamp.mono_ms)
        return found

    def worst_gaps_ms(self, since_ms: int, kind: type[Record] = SlotRecord) -> dict[str, int]:
        return {
            meter_id: max(after - before for before, after in pairwise(polls) if after > since_ms)
            for meter_id, polls in self.polls_ms(kind).items()
            if polls[-1] > since_ms
        }


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - the meters set no event
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("dies_after_s", [0, 22, 23.7, 24.6])
def test_a_dead_meter_costs_the_live_ones_no_slot_and_no_half_second(dies_after_s: float) -> None:
    """telegraf#11782, HA#51326, thingsboard-gateway#474: one dead slave starved the others."""

    async def live() -> tuple[Bus, int, int]:
        bus = Bus()
        async with bus.running():
            await asyncio.sleep(dies_after_s)
            bus.kill(8)
            await until(lambda: bus.meters[8].unit.state is UnitState.DOWN)
            since_ms = bus.clock.now().mono_ms
            await asyncio.sleep(300)
            return bus, since_ms, bus.clock.now().mono_ms

    bus, since_ms, until_ms = run_in_virtual_time(live())

    edges = (until_ms - since_ms) // (INTERVAL_S * 1000)
    polls = {name: times for name, times in bus.polls_ms().items() if name != "M8"}
    assert len(polls) == 7
    for times in polls.values():
        assert sum(time_ms > since_ms for time_ms in times) >= edges
    assert max(bus.worst_gaps_ms(since_ms).values()) <= 5500


def test_a_meter_that_dies_on_a_bus_without_room_is_known_to_be_dead_soon_all_the_same() -> None:
    async def live() -> int:
        bus = Bus()
        for slave in bus.slaves.values():
            slave.faults = Faults(delay_ms=BUSY_MS)
        async with bus.running():
            await asyncio.sleep(22)
            since_ms = bus.clock.now().mono_ms
            bus.kill(8)
            async with asyncio.timeout(600):
                await until(lambda: bus.meters[8].unit.state is UnitState.DOWN)
            return bus.clock.now().mono_ms - since_ms

    assert run_in_virtual_time(live()) <= 30_000


@pytest.mark.parametrize(("dead", "dies_after_s"), [(1, 25.05), (4, 24.6), (8, 22)])
def test_a_meter_that_dies_costs_the_live_ones_no_slot_before_its_quarantine_either(
    dead: int, dies_after_s: float
) -> None:
    async def live() -> tuple[Bus, int, int]:
        bus = Bus()
        async with bus.running():
            await asyncio.sleep(dies_after_s)
            since_ms = bus.clock.now().mono_ms
            bus.kill(dead)
            await until(lambda: bus.meters[dead].unit.state is UnitState.DOWN)
            await asyncio.sleep(60)
            return bus, since_ms, bus.clock.now().mono_ms

    bus, since_ms, until_ms = run_in_virtual_time(live())

    edges = (until_ms - since_ms) // (INTERVAL_S * 1000)
    polls = {name: times for name, times in bus.polls_ms().items() if name != f"M{dead}"}
    assert len(polls) == 7
    for times in polls.values():
        assert sum(time_ms > since_ms for time_ms in times) >= edges
    # The first attempts hold up those behind them: nobody knew yet. No slot is lost by it.
    assert max(gap for name, gap in bus.worst_gaps_ms(since_ms).items() if name in polls) <= 7500


def test_before_it_is_quarantined_a_dead_meter_costs_a_live_one_at_most_a_slot() -> None:
    async def live() -> Bus:
        bus = Bus()
        async with bus.running():
            await asyncio.sleep(22)
            bus.kill(4)
            await asyncio.sleep(60)
        return bus

    bus = run_in_virtual_time(live())

    live_polls = [len(times) for name, times in bus.polls_ms().items() if name != "M4"]
    assert len(live_polls) == 7
    assert min(live_polls) >= 15


def test_a_meter_that_was_dead_is_read_again_within_a_minute_and_a_slot() -> None:
    """thingsboard-gateway#352, node-red#192: after minutes of silence never read again."""

    async def live() -> tuple[Bus, int]:
        bus = Bus()
        bus.kill(8)
        async with bus.running():
            await asyncio.sleep(600)
            bus.revive(8)
            revived_ms = bus.clock.now().mono_ms
            await asyncio.sleep(120)
            return bus, revived_ms

    bus, revived_ms = run_in_virtual_time(live())

    first_ms = bus.polls_ms()["M8"][0]
    assert first_ms - revived_ms <= 60_000 + INTERVAL_S * 1000


def test_a_busy_bus_still_looks_for_its_dead_meters() -> None:
    async def live() -> tuple[Bus, int]:
        bus = Bus(interval_s=5, sample_s=4)
        bus.kill(7)
        bus.kill(8)
        async with bus.running():
            await asyncio.sleep(600)
            bus.revive(7)
            bus.revive(8)
            revived_ms = bus.clock.now().mono_ms
            await asyncio.sleep(300)
            return bus, revived_ms

    bus, revived_ms = run_in_virtual_time(live())

    for name in ("M7", "M8"):
        assert bus.polls_ms()[name][0] - revived_ms <= 150_000


def test_ten_silent_minutes_end_with_the_first_answer() -> None:
    async def live() -> tuple[Bus, int]:
        bus = Bus()
        async with bus.running():
            await asyncio.sleep(31)
            for unit in UNITS:
                bus.kill(unit)
            await asyncio.sleep(600)
            for unit in UNITS:
                bus.revive(unit)
            revived_ms = bus.clock.now().mono_ms
            await asyncio.sleep(120)
            return bus, revived_ms

    bus, revived_ms = run_in_virtual_time(live())

    for name, times in bus.polls_ms().items():
        first_ms = min(time_ms for time_ms in times if time_ms > revived_ms)
        assert first_ms - revived_ms <= 60_000 + INTERVAL_S * 1000, name


def test_meters_that_appear_after_the_agent_are_read_within_the_back_off() -> None:
    async def live() -> tuple[Bus, int]:
        bus, port = Bus(), free_port()
        async with bus.reading(f"rtu+tcp://127.0.0.1:{port}"):
            await asyncio.sleep(1000)
            service = await bus.simulator.serve_rtu_tcp("127.0.0.1", port)
            appeared_ms = bus.clock.now().mono_ms
            await asyncio.sleep(120)
        await service.close()
        return bus, appeared_ms

    bus, appeared_ms = run_in_virtual_time(live())

    for name in (f"M{unit}" for unit in UNITS):
        assert bus.polls_ms()[name][0] - appeared_ms <= 60_000 + INTERVAL_S * 1000
