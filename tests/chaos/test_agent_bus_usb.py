"""A USB adapter that is pulled and put back, on real pseudo-terminals."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from gridtokenx_agent.acquire import BusLoop, plan_meter
from gridtokenx_agent.adapters.modbus import open_bus
from gridtokenx_agent.adapters.profile_files import find_profile
from gridtokenx_agent.adapters.simulator import BusSimulator, MeterSimulator
from gridtokenx_agent.adapters.system import SystemClock
from gridtokenx_agent.counters import Limits
from gridtokenx_agent.reader import MeterReader
from gridtokenx_agent.recorder import Recorder
from gridtokenx_wire.record import SampleRecord
from tests.support import build
from tests.support.descriptors import left_open, open_files
from tests.support.memory_buffer import MemoryBuffer

pytestmark = pytest.mark.chaos

PROFILE = find_profile("eastron-sdm230")
BACK_WITHIN_S = 60


class Site:
    """Two meters that are read every second."""

    def __init__(self, link: Path) -> None:
        self.link = link
        self.buffer = MemoryBuffer()
        values = {name: Decimal(1) for name in PROFILE.points} | {"voltage_l1": Decimal(230)}
        meters = {unit: MeterSimulator(PROFILE, lambda: values) for unit in (1, 2)}
        self.simulator = BusSimulator(meters)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        clock = SystemClock()
        bus = open_bus(f"rtu://{self.link}", clock)
        meters = tuple(
            plan_meter(
                f"M{unit}",
                MeterReader(bus, unit, PROFILE, None),
                Recorder(build.recorder_parts(self.buffer), f"M{unit}", "eastron-sdm230", None),
                Limits(rated_power_w=None, resolution_wh=1),
                interval_s=900,
                sample_s=1,
                at=clock.now(),
            )
            for unit in (1, 2)
        )
        task = asyncio.create_task(BusLoop("bus", bus, meters, clock, lambda *_: None).run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def samples(self, meter_id: str) -> int:
        return sum(
            isinstance(record, SampleRecord) and record.stamp.meter_id == meter_id
            for record in self.buffer.records
        )

    def all_told(self) -> list[int]:
        return [self.samples(meter_id) for meter_id in ("M1", "M2")]

    async def both_read_again(self) -> None:
        before = self.all_told()
        await until(
            lambda: all(now > then + 1 for now, then in zip(self.all_told(), before, strict=True))
        )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(BACK_WITHIN_S):
        while not condition():  # noqa: ASYNC110 - records come without an event
            await asyncio.sleep(0.05)


async def test_an_adapter_that_is_pulled_and_put_back_is_read_again(tmp_path: Path) -> None:
    site = Site(tmp_path / "usb")
    service = await site.simulator.serve_pty(site.link)

    async with site.reading():
        await site.both_read_again()
        before = open_files()
        for _ in range(4):
            await service.close()
            await asyncio.sleep(2.5)
            service = await site.simulator.serve_pty(site.link)
            await site.both_read_again()
        leaked = left_open(before)

    await service.close()
    assert not leaked


async def test_an_adapter_that_comes_back_under_another_name_is_found(tmp_path: Path) -> None:
    site = Site(tmp_path / "usb")
    service = await site.simulator.serve_pty(site.link)

    async with site.reading():
        await site.both_read_again()
        other = await site.simulator.serve_pty(tmp_path / "other")
        (tmp_path / "new").symlink_to((tmp_path / "other").readlink())
        (tmp_path / "new").replace(site.link)
        await service.close()
        await site.both_read_again()

    await other.close()


async def test_an_agent_that_starts_before_its_adapter_reads_it_when_it_comes(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path / "usb")

    async with site.reading():
        await asyncio.sleep(8)
        service = await site.simulator.serve_pty(site.link)
        await site.both_read_again()

    await service.close()
