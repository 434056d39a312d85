"""One odd device, one odd library, one odd disk: each costs itself and nothing else."""

import asyncio
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

from gridtokenx_agent.acquire import BusLoop, plan_meter
from gridtokenx_agent.adapters.profile_files import find_profile
from gridtokenx_agent.adapters.simulator import MeterSimulator
from gridtokenx_agent.counters import Limits
from gridtokenx_agent.errors import BufferFullError
from gridtokenx_agent.observed import ObservedBuffer, Tally
from gridtokenx_agent.ports import Lost, WordsRead
from gridtokenx_agent.profiles import ModelPlace, NotFound, locate
from gridtokenx_agent.reader import MeterReader
from gridtokenx_agent.recorder import Recorder
from gridtokenx_agent.registers import ReadFunction
from gridtokenx_wire.record import EventRecord, SlotRecord
from tests.agent.test_publish import Uplink
from tests.agent.test_remote import Gateway, command, signed
from tests.support import build
from tests.support.fake_bus import FakeBus, SteadyClock
from tests.support.memory_buffer import MemoryBuffer
from tests.support.site import PROFILE


@dataclass
class OddBus(FakeBus):
    """A bus whose first meter brings out a defect that nobody thought of."""

    async def read_words(
        self, device_id: int, function: ReadFunction, address: int, count: int, min_gap_ms: int
    ) -> WordsRead:
        if device_id == 1:
            raise ZeroDivisionError("nobody thought of this")
        return await super().read_words(device_id, function, address, count, min_gap_ms)

    async def close(self) -> None:
        return


async def test_a_meter_that_brings_out_a_defect_costs_the_others_on_its_bus_no_slot() -> None:
    """thingsboard-gateway#2132: an uncaught error ended the loop of the whole bus."""
    clock, buffer = SteadyClock(), MemoryBuffer()
    energy = dict.fromkeys(PROFILE.points, Decimal(1)) | {"voltage_l1": Decimal(230)}
    bus = OddBus({2: MeterSimulator(PROFILE, lambda: energy)}, clock)
    meters = tuple(
        plan_meter(
            f"M{unit}",
            MeterReader(bus, unit, PROFILE, None),
            Recorder(build.recorder_parts(buffer), f"M{unit}", "p", None),
            Limits(),
            interval_s=60,
            sample_s=0,
            at=clock.now(),
        )
        for unit in (1, 2)
    )
    loop = BusLoop("bus", bus, meters, clock, lambda *_: None)
    end_ms = clock.mono_ms + 601_000

    while clock.mono_ms < end_ms:
        before_ms = clock.mono_ms
        await loop.step()
        clock.advance(1 if clock.mono_ms == before_ms else 0)

    slots = [r.stamp.meter_id for r in buffer.records if isinstance(r, SlotRecord)]
    downs = [r for r in buffer.records if isinstance(r, EventRecord) and r.event == "MeterDown"]
    assert slots == ["M2"] * 10
    assert [(r.stamp.meter_id, "ZeroDivisionError" in r.detail) for r in downs] == [("M1", True)]


@pytest.mark.parametrize("name", ["sunspec-201-204", "sunspec-211-214"])
def test_a_sunspec_device_whose_model_would_reach_beyond_the_last_register(name: str) -> None:
    place = ModelPlace(address=65_500, model=203, length=124, common_address=65_300)

    located = locate(find_profile(name), place)

    assert isinstance(located, NotFound)
    assert "beyond address 65535" in located.reason


async def test_rows_that_cannot_be_shown_in_the_house_are_committed_all_the_same() -> None:
    def fail(_state: object, _rows: object) -> None:
        raise ValueError("nobody thought of this")

    unhandled: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: unhandled.append(str(context["exception"]))
    )
    observed = ObservedBuffer(MemoryBuffer(), Tally())
    observed.listener = fail

    await build.fill(observed, "M1", ["slot", "slot"])
    await asyncio.sleep(0)

    assert unhandled == ["nobody thought of this"] * 2


async def test_a_command_that_was_done_is_not_called_refused_when_the_disk_fills_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = Gateway(tmp_path)

    async def full(_nonce: str, _reply: bytes) -> None:
        raise BufferFullError("disk full")

    monkeypatch.setattr(gateway.log, "finish", full)

    await gateway.remote.handle(signed(command()))

    assert gateway.outcomes() == ["done"]


async def test_two_gateways_with_one_key_are_told_what_may_be_wrong(
    caplog: pytest.LogCaptureFixture,
) -> None:
    uplink = Uplink()
    async with uplink:
        uplink.link.session.happened.append(Lost("Session taken over"))
        uplink.wake.set()
        await uplink.settle()

    assert "from a copied card?" in caplog.records[0].__dict__["reason"]
