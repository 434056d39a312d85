"""The rules that decide what may become money."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_agent.clock import DAY_MS, elapsed_ms
from gridtokenx_agent.counters import (
    Accepted,
    Counter,
    Doubt,
    Doubted,
    Limits,
    RawReading,
    Register,
    Rejected,
    Restarted,
    judge,
    largest_step_wh,
    settle,
)
from gridtokenx_wire.record import ClockQuality
from tests.support import build

SLOT_MS = 900_000
LIMITS = Limits(rated_power_w=5_000, resolution_wh=1)
LATER = build.instant(1_000_000 + SLOT_MS)
LAST = build.counter(13_423_700, 500_000)


def answers(*import_wh: int, export_wh: int = 500_000) -> tuple[RawReading, RawReading, RawReading]:
    first, second, third = (
        build.raw(value, export_wh, build.instant(LATER.mono_ms + 1000 * number))
        for number, value in enumerate(import_wh)
    )
    return first, second, third


def test_the_first_reading_of_an_epoch_is_believed() -> None:
    verdict = judge(None, build.raw(7, 9), LIMITS)

    assert verdict == Accepted(counter=build.counter(7, 9))


def test_a_step_the_connection_can_carry_is_believed() -> None:
    most = 5_000 * 12 // 10 // 4 + 2

    verdict = judge(LAST, build.raw(13_423_700 + most, 500_000, LATER), LIMITS)

    assert isinstance(verdict, Accepted)
    assert verdict.counter.import_.total_wh == 13_423_700 + most


def test_a_watt_hour_beyond_it_is_doubted() -> None:
    most = 5_000 * 12 // 10 // 4 + 2

    verdict = judge(LAST, build.raw(13_423_700 + most + 1, 500_000, LATER), LIMITS)

    assert verdict == Doubted(Doubt.LEAP)


def test_without_a_rated_power_only_a_step_back_is_doubted() -> None:
    forward = judge(LAST, build.raw(10**12, 500_000, LATER), Limits())
    back = judge(LAST, build.raw(13_423_700, 499_999, LATER), Limits())

    assert isinstance(forward, Accepted)
    assert back == Doubted(Doubt.BACKWARDS)


def test_a_single_zero_does_not_become_the_base() -> None:
    verdict = settle(LAST, Doubt.BACKWARDS, answers(0, 13_423_702, 13_423_702), LIMITS)

    assert isinstance(verdict, Accepted)
    assert verdict.doubt is Doubt.BACKWARDS
    assert verdict.counter.import_.total_wh - LAST.import_.total_wh == 2


def test_values_that_flicker_are_refused_and_the_base_stays() -> None:
    verdicts = [
        settle(LAST, Doubt.BACKWARDS, answers(0, 0, 13_423_702), LIMITS),
        settle(LAST, Doubt.BACKWARDS, answers(0, 13_423_702, 0), LIMITS),
        settle(LAST, Doubt.BACKWARDS, answers(9_000, 0, 0), LIMITS),
        settle(LAST, Doubt.BACKWARDS, answers(0, 7_000_000, 7_000_000), LIMITS),
    ]

    assert verdicts == [Rejected(Doubt.BACKWARDS)] * 4


def test_a_counter_set_back_at_the_meter_begins_a_new_epoch_at_its_new_value() -> None:
    verdict = settle(LAST, Doubt.BACKWARDS, answers(0, 0, 1), LIMITS)

    assert isinstance(verdict, Restarted)
    assert verdict.counter.import_ == Register(1)


def test_a_counter_at_exactly_zero_sleeps_until_it_counts_or_a_day_has_passed() -> None:
    zero = answers(0, 0, 0, export_wh=0)

    asleep = settle(LAST, Doubt.BACKWARDS, zero, LIMITS, asleep_ms=DAY_MS - 1)
    patience_over = settle(LAST, Doubt.BACKWARDS, zero, LIMITS, asleep_ms=DAY_MS)
    counts = settle(LAST, Doubt.BACKWARDS, answers(1, 1, 1, export_wh=0), LIMITS)

    assert asleep == Rejected(Doubt.BACKWARDS, asleep=True)
    assert isinstance(patience_over, Restarted)
    assert isinstance(counts, Restarted)


def test_a_leap_that_stays_begins_a_new_epoch_so_nothing_is_credited_for_it() -> None:
    huge = 67_123_456

    verdict = settle(LAST, Doubt.LEAP, answers(huge, huge, huge), LIMITS)

    assert isinstance(verdict, Restarted)


def test_a_turn_over_goes_on_counting_where_it_is_declared_and_possible() -> None:
    last = build.counter(99_999_900)
    limits = replace(LIMITS, modulus_wh=100_000_000)

    verdict = settle(last, Doubt.BACKWARDS, answers(50, 50, 50, export_wh=0), limits)

    assert isinstance(verdict, Accepted)
    assert verdict.counter.import_.total_wh == 100_000_050
    assert verdict.doubt is None


def test_after_a_turn_over_totals_keep_growing() -> None:
    turned = Counter(import_=Register(50, 100_000_000), export=Register(0), at=build.instant())

    verdict = judge(turned, build.raw(90, 0, LATER), LIMITS)

    assert isinstance(verdict, Accepted)
    assert verdict.counter.import_.total_wh == 100_000_090


def test_a_reset_is_never_taken_for_a_turn_over() -> None:
    halfway = build.counter(50_000_000)
    near_the_end = build.counter(99_999_900)
    declared = replace(LIMITS, modulus_wh=100_000_000)
    no_power = Limits(modulus_wh=100_000_000)
    not_declared = LIMITS
    anew = answers(1, 1, 1, export_wh=0)

    verdicts = [
        settle(halfway, Doubt.BACKWARDS, anew, declared),
        settle(near_the_end, Doubt.BACKWARDS, anew, no_power),
        settle(near_the_end, Doubt.BACKWARDS, anew, not_declared),
    ]

    assert all(isinstance(verdict, Restarted) for verdict in verdicts)


def test_after_an_outage_of_unknown_length_nothing_counts_as_a_turn_over() -> None:
    before = build.instant(boot_id="f" * 32, clock=ClockQuality.UNSYNCHRONISED)
    last = build.counter(99_999_900, at=before)
    limits = replace(LIMITS, modulus_wh=100_000_000)

    verdict = settle(last, Doubt.BACKWARDS, answers(50, 50, 50, export_wh=0), limits)

    assert isinstance(verdict, Restarted)


def test_after_an_outage_of_unknown_length_a_day_is_believed_and_a_month_is_asked_again() -> None:
    before = build.instant(boot_id="f" * 32, clock=ClockQuality.UNSYNCHRONISED)
    last = build.counter(1_000, at=before)
    day_wh, month_wh, garbage_wh = 1_000 + 120_000, 1_000 + 3_600_000, 0xFFFF_FFF0

    day = judge(last, build.raw(day_wh, 0, LATER), LIMITS)
    month = judge(last, build.raw(month_wh, 0, LATER), LIMITS)
    settled = settle(last, Doubt.LEAP, answers(*[month_wh] * 3, export_wh=0), LIMITS)
    garbage = settle(last, Doubt.LEAP, answers(*[garbage_wh] * 3, export_wh=0), LIMITS)

    assert isinstance(day, Accepted)
    assert month == Doubted(Doubt.LEAP)
    assert isinstance(settled, Accepted)
    assert isinstance(garbage, Restarted)


def test_a_wall_clock_in_the_past_does_not_make_a_good_value_a_leap() -> None:
    wrong = build.instant(1_000_000 + SLOT_MS, wall_ms=9_396_000)

    verdict = judge(LAST, build.raw(13_424_000, 500_000, wrong), LIMITS)

    assert isinstance(verdict, Accepted)


def test_time_across_boots_is_known_only_by_two_true_clocks() -> None:
    before = build.instant(boot_id="f" * 32)
    unsure = build.instant(5_000, clock=ClockQuality.UNSYNCHRONISED)

    assert elapsed_ms(before, LATER) == SLOT_MS
    assert elapsed_ms(before, unsure) is None
    assert elapsed_ms(before, build.instant(wall_ms=before.wall_ms - 1)) is None


def test_the_largest_step_is_rounded_up_never_down() -> None:
    assert largest_step_wh(Limits(rated_power_w=1, resolution_wh=10), 1) == 21
    assert largest_step_wh(Limits(), 1) is None


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=30), st.integers(0, 10**8))
def test_accepted_totals_never_run_backwards(values: list[int], rated_power_w: int) -> None:
    limits = Limits(rated_power_w=rated_power_w or None)
    last: Counter | None = None
    totals = []

    for number, value in enumerate(values):
        verdict = judge(last, build.raw(value, 0, build.instant(1000 * number)), limits)
        if isinstance(verdict, Accepted):
            last = verdict.counter
            totals.append(last.import_.total_wh)

    assert totals == sorted(totals)
