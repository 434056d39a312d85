"""The Modbus bus over sockets and pseudo-terminals, with meters that misbehave."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from gridtokenx_agent.adapters.modbus import open_bus
from gridtokenx_agent.adapters.profile_files import find_profile
from gridtokenx_agent.adapters.simulator import BusSimulator, Faults, MeterSimulator, Service
from gridtokenx_agent.errors import (
    AgentError,
    BusDownError,
    MeterBusyError,
    MeterRefusedError,
    MeterTimeoutError,
)
from tests.support.fake_bus import SteadyClock
from tests.support.ports import free_port

pytestmark = pytest.mark.integration

SDM630 = find_profile("eastron-sdm630")
ADDRESSES = {"voltage_l1": 0, "voltage_l2": 2, "voltage_l3": 4, "current_l1": 6}
KINDS = ["tcp", "rtu+tcp", "rtu"]
SERIAL_KINDS = ["rtu+tcp", "rtu"]


def meter(faults: Faults | None = None) -> MeterSimulator:
    """A meter whose values are their own addresses plus 100."""
    values = {name: Decimal(100 + address) for name, address in ADDRESSES.items()}
    return MeterSimulator(SDM630, lambda: values, faults)


def words_at(address: int) -> tuple[int, int]:
    return {0: (0x42C8, 0), 2: (0x42CC, 0), 4: (0x42D0, 0), 6: (0x42D4, 0)}[address]


async def serve(kind: str, simulator: BusSimulator, place: Path, port: int = 0) -> Service:
    if kind == "tcp":
        return await simulator.serve_tcp("127.0.0.1", port)
    if kind == "rtu+tcp":
        return await simulator.serve_rtu_tcp("127.0.0.1", port)
    return await simulator.serve_pty(place)


@pytest.fixture(params=KINDS)
async def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def bus_with(
    kind: str, place: Path, meters: dict[int, MeterSimulator]
) -> AsyncIterator["ReadWords"]:
    service = await serve(kind, BusSimulator(meters), place / "bus")
    bus = open_bus(service.url, SteadyClock())

    async def read(address: int, unit: int = 1) -> tuple[int, ...]:
        return (await bus.read_words(unit, 4, address, 2, 0)).words

    try:
        yield read
    finally:
        await bus.close()
        await service.close()


ReadWords = Callable[..., Awaitable[tuple[int, ...]]]


@pytest.mark.parametrize(
    "faults",
    [
        Faults(echo=True),
        Faults(noise=b"\x00"),
        Faults(noise=b"\xff\xff"),
        Faults(noise=b"\x01\x04\x10"),
        Faults(noise=bytes.fromhex("02 04 04 00 00 00 00 C8 84")),
        Faults(echo=True, noise=bytes(300)),
    ],
    ids=["echo", "zero", "ones", "header", "frame of unit 2", "more than pymodbus holds"],
)
@pytest.mark.parametrize("kind", SERIAL_KINDS)
async def test_the_answer_is_found_whatever_comes_before_it(
    kind: str, tmp_path: Path, faults: Faults
) -> None:
    """Libmodbus#34, epics modbus#39, pymodbus#2592: an adapter echoes the request."""
    async with bus_with(kind, tmp_path, {1: meter(faults)}) as read:
        for address in ADDRESSES.values():
            assert await read(address) == words_at(address)


async def test_noise_before_a_tcp_frame_is_skipped(tmp_path: Path) -> None:
    faults = Faults(noise=b"\xde\xad\xbe\xef")

    async with bus_with("tcp", tmp_path, {1: meter(faults)}) as read:
        assert await read(0) == words_at(0)


@pytest.mark.parametrize(
    "faults",
    [
        Faults(corrupt_crc=True),
        Faults(truncate=2),
        Faults(wrong_unit=True),
        Faults(wrong_function=True),
        Faults(silent=True),
        Faults(silent=True, echo=True),
    ],
    ids=["check sum", "short", "unit", "function", "silence", "echo only"],
)
@pytest.mark.parametrize("kind", SERIAL_KINDS)
async def test_a_broken_answer_is_an_error_and_the_next_good_one_is_right(
    kind: str, tmp_path: Path, faults: Faults
) -> None:
    broken = meter(faults)

    async with bus_with(kind, tmp_path, {1: broken, 2: meter()}) as read:
        with pytest.raises(MeterTimeoutError, match="meter 1"):
            await read(0)

        assert await read(2, unit=2) == words_at(2)
        broken.faults = Faults()
        assert await read(4) == words_at(4)


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        (Faults(wrong_unit=True), "unit 2 answered for unit 1"),
        (Faults(wrong_function=True), "function 3 answered a request for 4"),
        (Faults(truncate=2), "with no true answer"),
    ],
)
async def test_a_wrong_tcp_answer_is_an_error_with_its_reason(
    tmp_path: Path, faults: Faults, reason: str
) -> None:
    async with bus_with("tcp", tmp_path, {1: meter(faults)}) as read:
        with pytest.raises(MeterTimeoutError, match=reason):
            await read(0)


@pytest.mark.parametrize("delay_ms", [300, 700])
async def test_a_late_answer_is_never_taken_for_the_next_one(
    kind: str, tmp_path: Path, delay_ms: int
) -> None:
    """HA#40936, HA#148329, pymodbus PR 2636: each value appears one read later."""
    slow = meter()
    failures = 0

    async with bus_with(kind, tmp_path, {1: slow}) as read:
        for address in (0, 2, 4, 6):
            assert await read(address) == words_at(address)
        slow.faults = Faults(delay_ms=delay_ms)
        for address in (6, 4, 2, 0, 6, 4):
            try:
                assert await read(address) == words_at(address)
            except MeterTimeoutError:
                failures += 1

    assert 1 <= failures <= 3


async def test_a_cancelled_read_leaves_no_answer_for_the_next_one(
    kind: str, tmp_path: Path
) -> None:
    """pymodbus#3009: a cancelled read leaves its answer to the next one."""
    slow = meter(Faults(delay_ms=200))

    async with bus_with(kind, tmp_path, {1: slow}) as read:
        task = asyncio.ensure_future(read(0))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        assert await read(6) == words_at(6)


@pytest.mark.parametrize("url", ["tcp://127.0.0.1:{port}", "rtu+tcp://127.0.0.1:{port}"])
async def test_an_end_is_heard_whichever_step_of_the_connecting_it_meets(url: str) -> None:
    server = await asyncio.start_server(_swallow, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    deaf = []
    for turns in range(40):
        bus = open_bus(url.format(port=port), SteadyClock())
        reading = asyncio.create_task(bus.read_words(1, 4, 0, 2, 0))
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait([reading], timeout=60)
        deaf += [] if reading.done() and reading.cancelled() else [turns]
        await bus.close()

    server.close()
    await asyncio.sleep(0)
    assert deaf == []


async def test_many_readers_share_the_bus_one_at_a_time(kind: str, tmp_path: Path) -> None:
    """device-modbus-go#685: two units talked on one wire at once."""
    addresses = list(ADDRESSES.values()) * 5

    async with bus_with(kind, tmp_path, {1: meter(), 2: meter()}) as read:
        found = await asyncio.gather(
            *(read(address, unit=1 + index % 2) for index, address in enumerate(addresses))
        )

    assert found == [words_at(address) for address in addresses]


async def test_a_dead_meter_does_not_keep_others_from_answering(tmp_path: Path) -> None:
    """pymodbus#2269, #1654: a slave in silence closed the port for all."""
    async with bus_with("rtu", tmp_path, {1: meter()}) as read:
        for _ in range(2):
            with pytest.raises(MeterTimeoutError):
                await read(0, unit=9)
            assert await read(0) == words_at(0)


async def test_a_gateway_that_misses_its_meter_answers_at_once(tmp_path: Path) -> None:
    async with bus_with("tcp", tmp_path, {1: meter()}) as read:
        with pytest.raises(MeterBusyError, match="exception 11"):
            await read(0, unit=9)


async def test_registers_between_two_points_may_be_refused(kind: str, tmp_path: Path) -> None:
    async with bus_with(kind, tmp_path, {1: meter(Faults(refuse_gaps=True))}) as read:
        assert await read(0) == words_at(0)
        with pytest.raises(MeterRefusedError):
            await read(0x36)


async def test_a_bus_absent_at_the_start_connects_later(kind: str, tmp_path: Path) -> None:
    """pymodbus#1635: a device absent at the start was never connected."""
    place, port = tmp_path / "bus", free_port()
    probe = await serve(kind, BusSimulator({}), place, port)
    url = probe.url
    await probe.close()
    bus = open_bus(url, SteadyClock())
    with pytest.raises(BusDownError, match="cannot be opened"):
        await bus.read_words(1, 4, 0, 2, 0)
    with pytest.raises(BusDownError, match="next try in"):
        await bus.read_words(1, 4, 0, 2, 0)

    service = await serve(kind, BusSimulator({1: meter()}), place, port)

    assert await _first_answer(bus.read_words) == words_at(0)
    await bus.close()
    await service.close()


async def test_a_bus_that_goes_and_comes_back_is_used_again(kind: str, tmp_path: Path) -> None:
    """thingsboard-gateway#829, ioBroker.modbus#594: never read again until a restart."""
    place, port = tmp_path / "bus", free_port()
    simulator = BusSimulator({1: meter()})
    service = await serve(kind, simulator, place, port)
    bus = open_bus(service.url, SteadyClock())
    await bus.read_words(1, 4, 0, 2, 0)

    await service.close()
    with pytest.raises(AgentError):
        await bus.read_words(1, 4, 0, 2, 0)
    service = await serve(kind, simulator, place, port)

    assert await _first_answer(bus.read_words) == words_at(0)
    await bus.close()
    await service.close()


async def test_a_port_that_is_no_terminal_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    bus = open_bus(f"rtu://{tmp_path}/file", SteadyClock())

    with pytest.raises(BusDownError, match=r"cannot be opened: .+"):
        await bus.read_words(1, 4, 0, 2, 0)


async def test_a_port_in_use_by_another_program_is_not_shared(tmp_path: Path) -> None:
    service = await BusSimulator({1: meter()}).serve_pty(tmp_path / "bus")
    first = open_bus(service.url, SteadyClock())
    second = open_bus(service.url, SteadyClock())
    await first.read_words(1, 4, 0, 2, 0)

    with pytest.raises(BusDownError, match="another program has it open"):
        await second.read_words(1, 4, 0, 2, 0)

    await first.close()
    await service.close()


async def test_a_peer_that_closes_is_noticed_before_the_timeout() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(12)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    bus = open_bus(f"tcp://127.0.0.1:{port}", SteadyClock())

    with pytest.raises(BusDownError, match="was lost during a request"):
        await bus.read_words(1, 4, 0, 2, 0)

    await bus.close()
    server.close()


async def test_a_half_open_connection_is_replaced_after_three_silent_requests() -> None:
    connections = 0

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while await reader.read(64):
            pass
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    bus = open_bus(f"tcp://127.0.0.1:{port}", SteadyClock())

    for unit in (1, 2, 3, 4):
        with pytest.raises(MeterTimeoutError, match="silence"):
            await bus.read_words(unit, 4, 0, 2, 0)

    assert connections == 2
    await bus.close()
    server.close()
    await asyncio.sleep(0.01)


async def test_failures_are_raised_and_not_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async with bus_with("rtu", tmp_path, {}) as read:
        with pytest.raises(MeterTimeoutError):
            await read(0)

    assert [record for record in caplog.records if record.name.startswith("pymodbus")] == []


async def test_the_meters_rest_between_requests_is_kept(tmp_path: Path) -> None:
    """SDM_Energy_Meter#50: an SDM72D restarts when it is asked back to back."""
    service = await BusSimulator({1: meter()}).serve_pty(tmp_path / "bus")
    bus = open_bus(service.url, SteadyClock())
    loop = asyncio.get_running_loop()
    await bus.read_words(1, 4, 0, 2, 0)

    before_s = loop.time()
    await bus.read_words(1, 4, 0, 2, 150)

    assert loop.time() - before_s >= 0.14
    await bus.close()
    await service.close()


async def _swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(64):
        pass
    writer.close()


async def _first_answer(read_words: Callable[..., Awaitable[object]]) -> tuple[int, ...]:
    while True:
        try:
            return (await read_words(1, 4, 0, 2, 0)).words  # type: ignore[attr-defined, no-any-return]
        except BusDownError:
            await asyncio.sleep(0.1)
