"""The demo's world obeys physics, whatever happens to the demo."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.household import DAY_S, STEPS_PER_DAY, House, _day, registers_at
from demo.town import DAWN_MS, METERS, DemoMeter, TownClock, exported_wh

HOUSE = House(
    seed=7, peak_w=6_500, base_w=280, import_start_wh=3_481_256, export_start_wh=1_204_377
)
moments = st.integers(0, 5 * DAY_S * 1000)


@given(moments, moments)
def test_registers_never_run_backwards(one: int, other: int) -> None:
    earlier, later = sorted((one, other))

    before, after = registers_at(HOUSE, earlier), registers_at(HOUSE, later)

    assert after.import_wh >= before.import_wh
    assert after.export_wh >= before.export_wh


def test_what_is_bought_less_what_is_sold_is_what_was_used_less_what_was_made() -> None:
    day = _day(HOUSE, 3)

    used_ws = sum(day.consumption_w) * DAY_S // STEPS_PER_DAY
    made_ws = sum(day.generation_w) * DAY_S // STEPS_PER_DAY

    assert day.import_ws[-1] - day.export_ws[-1] == used_ws - made_ws
    assert made_ws > used_ws // 2


def test_a_day_has_a_night_without_sun_and_a_noon_that_feeds_in() -> None:
    midnight = registers_at(HOUSE, DAY_S * 1000)
    powers = [registers_at(HOUSE, DAY_S * 1000 + h * 3_600_000) for h in range(11, 15)]

    assert midnight.generation_w == 0
    assert midnight.active_power_w > 0
    assert min(p.active_power_w for p in powers) < -1_000


def test_a_town_that_was_killed_goes_on_ahead_of_what_it_showed(tmp_path: Path) -> None:
    clock = TownClock(tmp_path / "town.json")
    clock.run()
    shown_ms = clock.now_ms

    restarted = TownClock(tmp_path / "town.json")

    assert restarted.now_ms >= shown_ms


def test_a_town_that_was_stopped_goes_on_where_it_stood(tmp_path: Path) -> None:
    clock = TownClock(tmp_path / "town.json")
    clock.run()
    clock.hold()

    assert TownClock(tmp_path / "town.json").now_ms == clock.now_ms


@pytest.mark.parametrize("meter", METERS, ids=lambda m: m.meter_id)
def test_every_meter_starts_on_a_whole_step_of_its_display(meter: DemoMeter) -> None:
    assert meter.house.export_start_wh % meter.resolution_wh == 0
    assert exported_wh(meter, DAWN_MS) == 0
