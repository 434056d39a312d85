"""The first round on a bus: who did not answer before waits until those that did were read."""

from dataclasses import dataclass
from decimal import Decimal

import pytest

from gridtokenx_agent.acquire import LONGEST_BUS_PAUSE_MS, BusLoop, Meter, plan_meter
from gridtokenx_agent.adapters.simulator import Faults, MeterSimulator
from gridtokenx_agent.counters import Limits, MeterState
from gridtokenx_agent.errors import MeterTimeoutError
from gridtokenx_agent.ports import WordsRead
from gridtokenx_agent.reader import MeterReader
from gridtokenx_agent.recorder import Recorder
from gridtokenx_agent.registers import ReadFunction
from gridtokenx_wire.record import SlotRecord
from tests.support import build
from tests.support.fake_bus import FakeBus, SteadyClock
from tests.support.memory_buffer import MemoryBuffer
from tests.support.site import PROFILE

SILENCE_MS = 1_600
INTERVAL_S = 5


@dataclass
class SlowBus(FakeBus):
    """A bus on which silence takes its time."""

    async def read_words(
        self, device_id: int, function: ReadFunction, address: int, count: int, min_gap_ms: int
    ) -> WordsRead:
        try:
            return await super().read_words(device_id, function, address, count, min_gap_ms)
        except MeterTimeoutError:
            await self.clock.sleep_until(self.clock.now().mono_ms + SILENCE_MS)
            raise


def slave(faults: Faults | None = None) -> MeterSimulator:
    values = dict.fromkeys(PROFILE.points, Decimal(1)) | {"voltage_l1": Decimal(230)}
    return MeterSimulator(PROFILE, lambda: values, faults)


def meter_on(bus: FakeBus, buffer: MemoryBuffer, unit: int, kept: str) -> Meter:
    """A meter of which *kept* was recorded before."""
    name = f"M{unit}"
    state = MeterState(meter_id=name, epoch=build.EPOCH, profile="p", unit=kept)
    return plan_meter(
        name,
        MeterReader(bus, unit, PROFILE, None),
        Recorder(build.recorder_parts(buffer), name, "p", state),
        Limits(),
        interval_s=INTERVAL_S,
        sample_s=0,
        at=bus.clock.now(),
    )


async def run(loop: BusLoop, clock: SteadyClock, elapsed_ms: int) -> None:
    end_ms = clock.mono_ms + elapsed_ms
    while clock.mono_ms < end_ms:
        before_ms = clock.mono_ms
        await loop.step()
        clock.advance(1 if clock.mono_ms == before_ms else 0)


@pytest.mark.parametrize("kept", ["down", "unknown"])
async def test_meters_that_were_dead_before_the_start_cost_the_others_no_first_slot(
    kept: str,
) -> None:
    clock, buffer = SteadyClock(), MemoryBuffer()
    slaves = {n: slave(Faults(silent=True)) for n in (1, 2, 3)}
    bus = SlowBus(slaves | {4: slave()}, clock)
    meters = tuple(
        meter_on(bus, buffer, unit, kept if unit in slaves else "ok") for unit in bus.meters
    )
    loop = BusLoop("bus", bus, meters, clock, lambda *_: None)
    first_edge_ms = meters[3].plan.slot_ms

    await run(loop, clock, first_edge_ms - clock.mono_ms + 60_000)

    slots = [r.stamp for r in buffer.records if isinstance(r, SlotRecord)]
    assert {stamp.meter_id for stamp in slots} == {"M4"}
    assert slots[0].mono_ms - first_edge_ms < 100
    assert len(slots) >= 60 // INTERVAL_S
    assert {read[0] for read in bus.reads} == {1, 2, 3, 4}


async def test_of_many_dead_meters_each_has_its_turn_and_one_that_is_alive_again_is_read() -> None:
    clock, buffer = SteadyClock(), MemoryBuffer()
    slaves = {n: slave(Faults(silent=True)) for n in range(1, 13)}
    bus = SlowBus(slaves | {13: slave()}, clock)
    meters = tuple(meter_on(bus, buffer, unit, "ok") for unit in bus.meters)
    loop = BusLoop("bus", bus, meters, clock, lambda *_: None)
    await run(loop, clock, 400_000)
    slaves[12].faults = Faults()
    asked = len(bus.reads)

    await run(loop, clock, 300_000)

    slots = [r.stamp.meter_id for r in buffer.records if isinstance(r, SlotRecord)]
    assert "M12" in slots
    assert {read[0] for read in bus.reads[asked:]} == set(range(1, 14))


async def test_an_adapter_that_was_away_for_hours_is_used_within_seconds() -> None:
    clock, buffer = SteadyClock(), MemoryBuffer()
    bus = SlowBus({1: slave(), 2: slave()}, clock)
    meters = tuple(meter_on(bus, buffer, unit, "ok") for unit in bus.meters)
    loop = BusLoop("bus", bus, meters, clock, lambda *_: None)
    bus.down = True
    await run(loop, clock, 300_000)
    bus.down = False
    asked = len(bus.reads)

    await run(loop, clock, LONGEST_BUS_PAUSE_MS + INTERVAL_S * 1000)

    assert {r.stamp.meter_id for r in buffer.records if isinstance(r, SlotRecord)} == {"M1", "M2"}
    assert asked < 200
