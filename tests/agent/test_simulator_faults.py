"""Faults of a simulated meter: how they are typed, and what the agent makes of each."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from decimal import Decimal
from pathlib import Path

import pytest

from gridtokenx_agent.adapters.modbus import PymodbusBus, open_bus
from gridtokenx_agent.adapters.profile_files import find_profile
from gridtokenx_agent.adapters.simulator import (
    BusSimulator,
    Faults,
    MeterSimulator,
    parse_faults,
)
from gridtokenx_agent.errors import ConfigError, MeterRefusedError, MeterTimeoutError
from tests.support.fake_bus import SteadyClock

SDM630 = find_profile("eastron-sdm630")
VOLTAGES = {0: (0x42C8, 0), 2: (0x42CC, 0), 4: (0x42D0, 0)}
FRAME_OF_UNIT_2 = bytes.fromhex("02 04 04 00 00 00 00 C8 84")
SERIAL = ["rtu+tcp", "rtu"]


def test_faults_are_read_as_they_are_typed() -> None:
    found = parse_faults(["silent-after=3", "noise=01 04 10", "echo", "stuck=0x436C"])

    assert found == Faults(silent_after=3, noise=b"\x01\x04\x10", echo=True, stuck=0x436C)


def test_no_fault_is_a_healthy_meter() -> None:
    assert parse_faults([]) == Faults()


def test_every_fault_of_the_simulator_can_be_typed() -> None:
    typed = {bool: "", int: "=1", bytes: "=FF", int | None: "=1"}

    for field in fields(Faults):
        text = field.name + typed[field.type]  # type: ignore[index]  # only these four types
        assert getattr(parse_faults([text]), field.name) == (b"\xff" if field.type is bytes else 1)


def test_every_mistyped_fault_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_faults(["help", "delay_ms", "delay_ms=soon", "echo=1", "noise=F", "exception=0"])

    assert len(caught.value.faults) == 6
    assert "there is silent, silent_after" in caught.value.faults[0]
    assert caught.value.faults[1] == "--fault delay_ms: give a value, as in delay_ms=3"
    assert "from 0 to 60000" in caught.value.faults[2]


def test_a_meter_falls_silent_after_so_many_requests() -> None:
    meter = MeterSimulator(SDM630, dict, Faults(silent_after=2))

    assert [meter.reacts() for _ in range(4)] == [True, True, False, False]


def test_every_third_request_is_lost() -> None:
    meter = MeterSimulator(SDM630, dict, Faults(lose_every=3))

    assert [meter.reacts() for _ in range(6)] == [True, True, False, True, True, False]


@asynccontextmanager
async def bus_of(kind: str, place: Path, meter: MeterSimulator) -> AsyncIterator[PymodbusBus]:
    simulator = BusSimulator({1: meter})
    if kind == "tcp":
        service = await simulator.serve_tcp("127.0.0.1", 0)
    elif kind == "rtu+tcp":
        service = await simulator.serve_rtu_tcp("127.0.0.1", 0)
    else:
        service = await simulator.serve_pty(place / "bus")
    bus = open_bus(service.url, SteadyClock())
    try:
        yield bus
    finally:
        await bus.close()
        await service.close()


def meter_with(faults: Faults) -> MeterSimulator:
    """A meter whose voltages are their own addresses plus 100."""
    values = {f"voltage_l{1 + at // 2}": Decimal(100 + at) for at in VOLTAGES}
    return MeterSimulator(SDM630, lambda: values, faults)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("kind", "faults"),
    [
        *((kind, Faults(glue=FRAME_OF_UNIT_2)) for kind in SERIAL),
        *((kind, Faults(noise=FRAME_OF_UNIT_2, glue=FRAME_OF_UNIT_2)) for kind in SERIAL),
        *((kind, Faults(echo=True, cut_echo=1)) for kind in SERIAL),
        *((kind, Faults(echo=True, glue=b"\x00")) for kind in SERIAL),
        *((kind, Faults(byte_gap_ms=10)) for kind in (*SERIAL, "tcp")),
        ("tcp", Faults(hang_up=True)),
    ],
    ids=lambda value: value if isinstance(value, str) else _name(value),
)
async def test_a_disturbed_answer_is_still_the_right_one(
    kind: str, faults: Faults, tmp_path: Path
) -> None:
    async with bus_of(kind, tmp_path, meter_with(faults)) as bus:
        for address, words in VOLTAGES.items():
            assert (await bus.read_words(1, 4, address, 2, 0)).words == words


@pytest.mark.integration
@pytest.mark.parametrize("kind", ["tcp", *SERIAL])
@pytest.mark.parametrize(
    "faults",
    [
        Faults(wrong_count=1),
        Faults(wrong_count=6),
        Faults(odd_bytes=True),
        Faults(lie=2),
        Faults(zero_transaction=True, corrupt_crc=True),
        Faults(lose_every=1),
    ],
    ids=lambda value: _name(value),
)
async def test_a_wrong_answer_is_an_error_and_never_a_value(
    kind: str, faults: Faults, tmp_path: Path
) -> None:
    meter = meter_with(faults)

    async with bus_of(kind, tmp_path, meter) as bus:
        with pytest.raises(MeterTimeoutError, match="meter 1"):
            await bus.read_words(1, 4, 0, 2, 0)
        meter.faults = Faults()

        assert (await bus.read_words(1, 4, 4, 2, 0)).words == VOLTAGES[4]


@pytest.mark.integration
async def test_a_late_answer_without_a_number_is_not_taken_for_the_next_one(
    tmp_path: Path,
) -> None:
    """Pymodbus takes transaction id 0 for any request: 100 for 102, 102 for 104."""
    meter = meter_with(Faults(zero_transaction=True, delay_ms=700))

    async with bus_of("tcp", tmp_path, meter) as bus:
        for address in VOLTAGES:
            with pytest.raises(MeterTimeoutError):
                await bus.read_words(1, 4, address, 2, 0)


@pytest.mark.integration
async def test_a_request_that_is_too_long_is_refused_with_its_code(tmp_path: Path) -> None:
    async with bus_of("tcp", tmp_path, meter_with(Faults(refuse_over=4))) as bus:
        assert len((await bus.read_words(1, 4, 0, 4, 0)).words) == 4
        with pytest.raises(MeterRefusedError) as caught:
            await bus.read_words(1, 4, 0, 6, 0)

    assert caught.value.code == 3


def _name(faults: Faults) -> str:
    healthy = Faults()
    return " ".join(
        field.name
        for field in fields(Faults)
        if getattr(faults, field.name) != getattr(healthy, field.name)
    )
