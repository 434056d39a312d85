"""Where simulated meters are served: ports, pseudo-terminals, and the command behind them."""

import asyncio
from decimal import Decimal
from pathlib import Path

import pytest

from gridtokenx_agent.adapters.modbus import open_bus
from gridtokenx_agent.adapters.profile_files import find_profile
from gridtokenx_agent.adapters.simulator import BusSimulator, MeterSimulator, simulate
from gridtokenx_agent.errors import ConfigError
from tests.support.fake_bus import SteadyClock

pytestmark = pytest.mark.integration

SDM630 = find_profile("eastron-sdm630")
WORDS = (0x45A2, 0x26C7)


def meters() -> dict[int, MeterSimulator]:
    return {1: MeterSimulator(SDM630, lambda: {"import_energy": Decimal("5188.847")})}


async def read_once(url: str) -> tuple[int, ...]:
    bus = open_bus(url, SteadyClock())
    try:
        return (await bus.read_words(1, 4, 0x48, 2, 0)).words
    finally:
        await bus.close()


async def test_a_terminal_outlives_the_program_that_opened_it(tmp_path: Path) -> None:
    service = await BusSimulator(meters()).serve_pty(tmp_path / "bus")

    answers = [await read_once(service.url) for _ in range(3)]

    assert answers == [WORDS] * 3
    await service.close()


async def test_a_stale_link_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    stale = tmp_path / "bus"
    stale.symlink_to(tmp_path / "gone")
    precious = tmp_path / "file"
    precious.write_text("keep me")

    service = await BusSimulator(meters()).serve_pty(stale)
    with pytest.raises(ConfigError, match="is in use"):
        await BusSimulator(meters()).serve_pty(precious)

    assert await read_once(f"rtu://{stale}") == WORDS
    assert precious.read_text() == "keep me"
    await service.close()
    assert not stale.is_symlink()


async def test_closing_leaves_the_link_of_a_successor_alone(tmp_path: Path) -> None:
    first = await BusSimulator(meters()).serve_pty(tmp_path / "bus")
    second = await BusSimulator(meters()).serve_pty(tmp_path / "bus")

    await first.close()

    assert await read_once(second.url) == WORDS
    await second.close()


async def test_a_flood_of_noise_leaves_a_terminal_usable(tmp_path: Path) -> None:
    service = await BusSimulator(meters()).serve_pty(tmp_path / "bus")
    noise = bytes(range(256)) * 8
    with (tmp_path / "bus").open("wb", buffering=0) as line:
        for start in range(0, len(noise), 256):
            line.write(noise[start : start + 256])
            await asyncio.sleep(0)
    await asyncio.sleep(0.05)

    assert await read_once(service.url) == WORDS
    await service.close()


@pytest.mark.parametrize("place", ["tcp://127.0.0.1:0", "rtu+tcp://127.0.0.1:0", "rtu://{tmp}/bus"])
async def test_the_command_serves_until_it_is_cancelled(place: str, tmp_path: Path) -> None:
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(
        simulate(meters(), place.format(tmp=tmp_path), on_ready=ready.set_result)
    )
    url = await ready

    words = await read_once(url)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert words == WORDS
    assert not (tmp_path / "bus").is_symlink()


async def test_a_place_that_is_taken_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    service = await BusSimulator(meters()).serve_tcp("127.0.0.1", 0)

    with pytest.raises(ConfigError, match="cannot serve"):
        await simulate(meters(), service.url, on_ready=lambda _: None)
    with pytest.raises(ConfigError, match="cannot serve"):
        await simulate(meters(), f"rtu://{tmp_path}/no/where", on_ready=lambda _: None)

    await service.close()
