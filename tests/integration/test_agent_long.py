"""What only shows after a hundred thousand polls: memory that grows, descriptors that stay open."""

import gc
from contextlib import suppress

import pytest

from bench.agent_rig import SlaveSpec, resident_mb, slave
from gridtokenx_agent.adapters.modbus import open_bus
from gridtokenx_agent.adapters.profile_files import find_profile
from gridtokenx_agent.adapters.system import SystemClock
from gridtokenx_agent.errors import MeterTimeoutError
from gridtokenx_agent.ports import MeterBus
from gridtokenx_agent.reader import MeterReader
from tests.support.descriptors import left_open, open_files

pytestmark = pytest.mark.integration

WARM_UP = 10_000
FLAT_WITHIN_MB = 2


@pytest.mark.parametrize("polls", [25_000, pytest.param(100_000, marks=pytest.mark.long)])
async def test_ten_thousands_of_polls_leave_no_memory_and_no_file_behind(polls: int) -> None:
    """thingsboard-gateway#1684, ioBroker#573: memory from 1 to 6 GB, a crash each day."""
    with slave(SlaveSpec(kind="tcp")) as served:
        bus = open_bus(served.url, SystemClock())
        profile = find_profile("eastron-sdm630").model_copy(update={"min_gap_ms": 0})
        reader = MeterReader(bus, 1, profile, None)
        for _ in range(WARM_UP // 2):
            with suppress(MeterTimeoutError):
                await reader.read_slot(identity=False)
        gc.collect()
        before_mb, files = resident_mb(), open_files()

        for _ in range(polls // 2):
            # A busy machine may let the slave wait longer than the time-out.
            with suppress(MeterTimeoutError):
                await reader.read_slot(identity=False)

        gc.collect()
        grown_mb = resident_mb() - before_mb
        assert served.seen().requests[1] >= polls // 2
        assert not left_open(files)
        await bus.close()
    assert grown_mb < FLAT_WITHIN_MB


async def test_failures_leave_no_memory_and_no_file_behind() -> None:
    with slave(SlaveSpec(kind="tcp", dead=(2,))) as served:
        bus = open_bus(served.url, SystemClock())
        await until_it_answers(bus)
        gc.collect()
        before_mb, files = resident_mb(), open_files()

        for _ in range(12):
            with pytest.raises(MeterTimeoutError):
                await bus.read_words(2, 4, 0, 2, 0)
            await until_it_answers(bus)

        gc.collect()
        assert not left_open(files)
        assert resident_mb() - before_mb < FLAT_WITHIN_MB
        await bus.close()


async def until_it_answers(bus: MeterBus) -> None:
    """Read a meter that is well; on a busy machine it may be late now and then."""
    while True:
        with suppress(MeterTimeoutError):
            await bus.read_words(1, 4, 0, 2, 0)
            return
