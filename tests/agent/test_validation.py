"""Live values: what is believed, what is left out, what is marked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_agent.validation import check_live, phases_disagree
from gridtokenx_wire.record import LiveValues, Quality


def test_believable_values_pass_unmarked() -> None:
    values = {"active_power_w": -3_800, "voltage_mv": 230_100, "frequency_mhz": 49_980}

    checked = check_live(values, rated_power_w=10_000)

    assert checked.live == LiveValues(
        active_power_w=-3_800, voltage_mv=230_100, frequency_mhz=49_980
    )
    assert checked.flags is Quality.NONE


def test_a_value_the_meter_does_not_have_is_absent_and_never_zero() -> None:
    checked = check_live({"voltage_mv": None}, None)

    assert checked.live.voltage_mv is None
    assert checked.flags is Quality.VALUE_MISSING


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frequency_mhz", 5_000),
        ("frequency_mhz", 499_800),
        ("power_factor_milli", 1_001),
        ("voltage_mv", -1),
        ("active_power_w", 20_001),
        ("active_power_w", -20_001),
    ],
)
def test_an_impossible_value_is_left_out(name: str, value: int) -> None:
    checked = check_live({name: value}, rated_power_w=10_000)

    assert checked.live == LiveValues()
    assert checked.flags is Quality.OUT_OF_RANGE


def test_phases_that_do_not_add_up_are_noticed() -> None:
    assert phases_disagree([3_000], [[1_000, 1_000, 1_300]])
    assert not phases_disagree([3_000], [[1_000, 1_000, 1_100]])


def test_phases_of_a_small_load_or_unknown_phases_are_not_compared() -> None:
    assert not phases_disagree([10], [[1, 1, 1]])
    assert not phases_disagree([3_000], [[1_000, None, 1_300]])
    assert not phases_disagree([3_000], [[]])
    assert not phases_disagree([None], [[1, 2, 3]])


@given(
    before_w=st.integers(-50_000, 50_000),
    between_w=st.integers(-50_000, 50_000),
    after_w=st.integers(-50_000, 50_000),
)
def test_a_load_that_went_up_or_down_between_two_looks_is_no_disagreement(
    before_w: int, between_w: int, after_w: int
) -> None:
    phases_before, total, phases_after = sorted([before_w, between_w, after_w])

    assert not phases_disagree([total, phases_after], [[phases_before, 0, 0], [phases_after, 0, 0]])
    assert not phases_disagree(
        [total, phases_before], [[phases_after, 0, 0], [phases_before, 0, 0]]
    )


@given(load_w=st.integers(500, 50_000), change_w=st.integers(-50, 50))
def test_phases_of_which_one_is_missing_are_noticed_whatever_the_load_does(
    load_w: int, change_w: int
) -> None:
    assert phases_disagree(
        [3 * load_w, 3 * (load_w + change_w)],
        [[load_w, load_w, 0], [load_w + change_w, load_w + change_w, 0]],
    )
