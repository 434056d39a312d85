"""Simulated meters without wires, and the house behind them."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_agent.adapters.profile_files import find_profile, profile_paths
from gridtokenx_agent.adapters.simulator import Faults, House, MeterSimulator, house_registers
from gridtokenx_agent.discovery import registers_of
from gridtokenx_agent.profiles import plan_blocks
from gridtokenx_agent.registers import decode, to_units
from tests.support.fake_bus import FakeBus, SteadyClock

SDM630 = find_profile("eastron-sdm630")
HOUR_MS = 3_600_000


def sdm630(faults: Faults | None = None) -> MeterSimulator:
    return MeterSimulator(SDM630, lambda: {"import_energy": Decimal("5188.847")}, faults)


@pytest.mark.parametrize(
    ("request_pdu", "answer"),
    [
        ("04 0048 0002", "04 04 45A226C7"),
        ("04 004A 0002", "04 04 7FC00000"),
        ("04 0008 0001", "04 02 7FC0"),
        ("04 0300 0002", "84 02"),
        ("04 FFFF 0002", "84 02"),
        ("03 0048 0002", "83 02"),
        ("03 FC00 0002", "03 04 FFFFFFFF"),
        ("04 0048 0000", "84 03"),
        ("04 0000 0029", "84 03"),
        ("06 0048 0002", "86 01"),
        ("04 0048", "84 01"),
    ],
)
def test_a_meter_answers_as_its_profile_says(request_pdu: str, answer: str) -> None:
    assert sdm630().answer(bytes.fromhex(request_pdu)) == bytes.fromhex(answer)


def test_registers_between_points_read_zero_unless_the_meter_refuses_them() -> None:
    gap = bytes.fromhex("04 0036 0001")

    assert sdm630().answer(gap) == bytes.fromhex("04 02 0000")
    assert sdm630(Faults(refuse_gaps=True)).answer(gap) == bytes.fromhex("84 02")


def test_an_exception_can_be_ordered() -> None:
    meter = sdm630(Faults(exception=6))

    assert meter.answer(bytes.fromhex("04 0048 0002")) == bytes.fromhex("84 06")


@pytest.mark.parametrize("name", sorted(profile_paths()))
async def test_every_shipped_profile_reads_back_what_its_house_shows(name: str) -> None:
    profile = find_profile(name)
    clock = SteadyClock()
    house = House(start_import_wh=1_234_560, start_export_wh=7_654_320)
    meter = MeterSimulator(profile, house_registers(profile, house, clock, clock.wall_ms))
    bus = FakeBus({1: meter}, clock)
    found: dict[str, int | Decimal | str | None] = {}

    located = await registers_of(bus, 1, profile)
    for block in plan_blocks(located, [*profile.points, "identity"]):
        read = await bus.read_words(1, block.function, block.address, block.count, 0)
        for point_name, point in block.points:
            value: int | Decimal | str | None = decode(
                block.words_of(point_name, read.words), point
            ).value
            if isinstance(value, Decimal) and point.unit:
                value = to_units(value, point.unit)
            found[point_name] = value

    expected: dict[str, object] = {
        "import_energy": 1_234_560 // profile.resolution_wh * profile.resolution_wh,
        "export_energy": 7_654_320 // profile.resolution_wh * profile.resolution_wh,
        "active_power": 3800 if name == "orno-we-514" else -3800,  # it has no sign
        "voltage_l1": 230_100,
        "frequency": 49_980 if profile.manufacturer != "Carlo Gavazzi" else 49_900,
        "power_factor": 985,
    }
    shown = {name: found[name] for name in expected if name in profile.points}
    assert shown == {name: expected[name] for name in shown}
    assert found.get("identity", 1001) in (1001, "1001")


def test_a_simulated_meter_says_which_model_it_is() -> None:
    profile = find_profile("abb-b23")
    meter = MeterSimulator(profile, dict)

    assert meter.answer(bytes.fromhex("03 8960 0002")) == bytes.fromhex("03 04") + b"B23\0"


def test_one_hour_of_constant_power_counts_exactly() -> None:
    house = House(load_w=0, solar_w=5_000, first_hour=12, start_import_wh=0, start_export_wh=0)

    assert house.power_w(0) == -5_000
    assert house.energy_wh(HOUR_MS) == (0, 5_000)
    assert house.energy_wh(HOUR_MS // 2) == (0, 2_500)


def test_at_night_a_house_imports_only() -> None:
    house = House(first_hour=0, start_import_wh=0, start_export_wh=0)

    imported, exported = house.energy_wh(4 * HOUR_MS)

    assert imported > 0
    assert exported == 0


def test_a_day_goes_by_faster_when_told() -> None:
    slow = House()
    fast = House(speed=3600)

    assert fast.energy_wh(24_000) == slow.energy_wh(24 * HOUR_MS)


@given(
    elapsed_ms=st.integers(0, 400 * 24 * HOUR_MS),
    step_ms=st.integers(0, 2 * 24 * HOUR_MS),
    first_hour=st.integers(0, 23),
    speed=st.integers(1, 1000),
)
def test_counters_never_run_backwards(
    elapsed_ms: int, step_ms: int, first_hour: int, speed: int
) -> None:
    house = House(first_hour=first_hour, speed=speed)

    before = house.energy_wh(elapsed_ms)
    after = house.energy_wh(elapsed_ms + step_ms)

    assert after[0] >= before[0]
    assert after[1] >= before[1]


def test_a_restarted_simulator_counts_on() -> None:
    clock = SteadyClock()
    start_wall_ms = clock.wall_ms
    first = house_registers(SDM630, House(speed=100), clock, start_wall_ms)
    clock.advance(HOUR_MS)
    before = first()

    again = house_registers(SDM630, House(speed=100), clock, start_wall_ms)

    assert again() == before


def test_a_text_identity_is_shown_as_text() -> None:
    text_identity = {"type": "string", "length": 4, "address": 0x8900}
    profile = SDM630.model_copy(
        update={"identity": type(SDM630.points["frequency"]).model_validate(text_identity)}
    )
    clock = SteadyClock()

    values = house_registers(profile, House(), clock, clock.wall_ms, identity="B23-7")()

    assert values["identity"] == "B23-7"
