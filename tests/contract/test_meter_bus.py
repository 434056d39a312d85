"""What every `MeterBus` keeps, the fake one and the real one over each transport."""

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from gridtokenx_agent.adapters.modbus import open_bus
from gridtokenx_agent.adapters.profile_files import find_profile
from gridtokenx_agent.adapters.simulator import BusSimulator, Faults, MeterSimulator
from gridtokenx_agent.errors import (
    BusDownError,
    MeterBusyError,
    MeterRefusedError,
    MeterTimeoutError,
)
from gridtokenx_agent.ports import MeterBus
from gridtokenx_agent.profiles import plan_blocks
from gridtokenx_agent.registers import decode
from tests.support.fake_bus import FakeBus, SteadyClock

SDM630 = find_profile("eastron-sdm630")


class Bench:
    """One meter with device id 1 on the bus under test."""

    def __init__(self) -> None:
        self.clock = SteadyClock()
        self.faults = Faults()
        values = {"import_energy": Decimal("5188.847"), "voltage_l1": Decimal("230.1")}
        self.meters = {1: MeterSimulator(SDM630, lambda: values, self.faults)}
        self.bus: MeterBus = FakeBus(self.meters, self.clock)


@pytest.fixture(
    params=[
        "fake",
        pytest.param("tcp", marks=pytest.mark.integration),
        pytest.param("rtu+tcp", marks=pytest.mark.integration),
        pytest.param("pty", marks=pytest.mark.integration),
    ]
)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench()
    if request.param == "fake":
        yield bench
        return
    simulator = BusSimulator(bench.meters)
    if request.param == "tcp":
        service = await simulator.serve_tcp("127.0.0.1", 0)
    elif request.param == "rtu+tcp":
        service = await simulator.serve_rtu_tcp("127.0.0.1", 0)
    else:
        service = await simulator.serve_pty(tmp_path / "bus")
    bench.bus = open_bus(service.url, bench.clock)
    yield bench
    await bench.bus.close()
    await service.close()


async def test_words_come_in_bus_order_with_the_moment_of_the_answer(bench: Bench) -> None:
    read = await bench.bus.read_words(1, 4, 0x48, 2, 0)

    assert read.words == (0x45A2, 0x26C7)
    assert read.at == bench.clock.now()


async def test_every_block_of_a_profile_can_be_read(bench: Bench) -> None:
    found = {}

    for block in plan_blocks(SDM630, [*SDM630.points, "identity"]):
        read = await bench.bus.read_words(1, block.function, block.address, block.count, 0)
        for name, point in block.points:
            found[name] = decode(block.words_of(name, read.words), point).text

    assert {name: text for name, text in found.items() if text is not None} == {
        "import_energy": "5188.847",
        "voltage_l1": "230.1",
    }


async def test_a_register_the_meter_does_not_have_is_refused_with_its_code(bench: Bench) -> None:
    with pytest.raises(MeterRefusedError) as caught:
        await bench.bus.read_words(1, 4, 0x300, 2, 0)

    assert caught.value.code == 2


@pytest.mark.parametrize("code", [4, 6, 0x0A, 0x0B])
async def test_trouble_of_the_unit_is_not_a_refusal(bench: Bench, code: int) -> None:
    bench.faults.exception = code

    with pytest.raises(MeterBusyError):
        await bench.bus.read_words(1, 4, 0x48, 2, 0)


async def test_a_silent_meter_times_out_and_is_heard_again(bench: Bench) -> None:
    await bench.bus.read_words(1, 4, 0x48, 2, 0)
    bench.faults.silent = True

    with pytest.raises(MeterTimeoutError, match="meter 1"):
        await bench.bus.read_words(1, 4, 0x48, 2, 0)

    bench.faults.silent = False
    assert (await bench.bus.read_words(1, 4, 0x48, 2, 0)).words == (0x45A2, 0x26C7)


async def test_a_bus_that_is_not_there_says_so(bench: Bench, tmp_path: Path) -> None:
    if isinstance(bench.bus, FakeBus):
        bench.bus.down = True
        bus: MeterBus = bench.bus
    else:
        bus = open_bus(f"rtu://{tmp_path}/nowhere", bench.clock)

    with pytest.raises(BusDownError):
        await bus.read_words(1, 4, 0x48, 2, 0)


async def test_closing_twice_is_harmless(bench: Bench) -> None:
    await bench.bus.close()
    await bench.bus.close()
