"""When meters are read."""

import time
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridtokenx_agent.clock import watch_clock
from gridtokenx_agent.health import (
    Unit,
    UnitState,
    answered,
    failed,
    pause_ms,
    probe_gap_ms,
    stuck,
)
from gridtokenx_agent.schedule import (
    Kind,
    after_sample,
    after_slot,
    choose,
    expire,
    first_plan,
    is_late,
    next_edge_ms,
    realign,
)
from gridtokenx_wire.record import ClockQuality
from tests.support import build
from tests.support.fake_world import World

UNSURE = ClockQuality.UNSYNCHRONISED


def test_slots_fall_on_multiples_of_the_interval_of_unix_time() -> None:
    at = build.instant(1_000_000, wall_ms=build.NOON_MS + 250)

    edge_ms = next_edge_ms(at, 900, 0)

    assert (build.NOON_MS + 250 + edge_ms - 1_000_000) % 900_000 == 0
    assert 0 < edge_ms - 1_000_000 <= 900_000


def test_while_nobody_knows_the_time_slots_follow_the_boot_time_clock() -> None:
    at = build.instant(1_000_001, wall_ms=12_345, clock=UNSURE)

    assert next_edge_ms(at, 60, 0) == 1_020_000


@given(st.integers(0, 10**9), st.integers(0, 2 * 10**12), st.sampled_from([1, 15, 60, 900, 86_400]))
def test_an_edge_is_always_ahead_and_never_more_than_one_interval(
    mono_ms: int, wall_ms: int, interval_s: int
) -> None:
    edge_ms = next_edge_ms(build.instant(mono_ms, wall_ms=wall_ms), interval_s, 0)

    assert 0 < edge_ms - mono_ms <= interval_s * 1000


def test_a_clock_set_back_a_little_does_not_give_one_edge_twice() -> None:
    plan = first_plan(build.instant(1_000_000, wall_ms=build.NOON_MS + 1), 900, 0)
    fired = build.instant(plan.slot_ms + 5, wall_ms=build.NOON_MS + 900_000 - 20)

    following = after_slot(plan, fired)

    assert following.slot_ms - plan.slot_ms > 800_000


def test_a_clock_that_becomes_true_moves_the_next_slot_to_the_true_edge() -> None:
    plan = first_plan(build.instant(1_000, wall_ms=0, clock=UNSURE), 60, 0)
    true = build.instant(plan.slot_ms + 50, wall_ms=build.NOON_MS + 45_000)

    following = after_slot(plan, true)

    assert (true.wall_ms - true.mono_ms + following.slot_ms) % 60_000 == 0


def test_slots_missed_in_a_row_collapse_to_the_one_that_runs() -> None:
    plan = first_plan(build.instant(1_000_000, wall_ms=build.NOON_MS), 60, 0)
    later = build.instant(1_000_000 + 400_000, wall_ms=build.NOON_MS + 400_000)

    kept = expire(plan, later)

    assert kept.missed
    assert kept.slot_ms <= later.mono_ms < kept.slot_end_ms
    assert (kept.slot_ms - plan.slot_ms) % 60_000 == 0


def test_a_slot_is_kept_until_its_interval_ends() -> None:
    plan = first_plan(build.instant(1_000_000, wall_ms=build.NOON_MS), 60, 0)

    kept = expire(plan, build.instant(plan.slot_end_ms - 1))

    assert kept == plan


def test_samples_missed_in_a_row_collapse_to_one_without_drift() -> None:
    plan = first_plan(build.instant(1_000_000), 900, 10)

    following = after_sample(plan, build.instant(1_034_567))

    assert following.sample_ms == 1_040_000


def test_slots_go_before_samples_and_older_deadlines_first() -> None:
    base = first_plan(build.instant(0), 60, 10)
    waiting = [
        replace(base, slot_ms=9_000, sample_ms=1_000),
        replace(base, slot_ms=8_000, sample_ms=20_000),
    ]

    choice = choose(waiting, 9_500)

    assert (choice.index, choice.kind) == (1, Kind.SLOT)


def test_failing_slots_do_not_starve_a_sample() -> None:
    base = first_plan(build.instant(0), 60, 10)
    waiting = [
        replace(base, slot_ms=40_000, sample_ms=None),
        replace(base, slot_ms=90_000, sample_ms=29_000),
    ]

    choice = choose(waiting, 41_000)

    assert (choice.index, choice.kind) == (1, Kind.SAMPLE)


def test_with_nothing_due_the_next_deadline_is_named() -> None:
    plan = replace(first_plan(build.instant(0), 60, 0), slot_ms=9_000, not_before_ms=12_000)

    assert choose([plan], 9_500).at_ms == 12_000


def test_an_answer_is_late_after_a_tenth_of_the_interval() -> None:
    plan = replace(first_plan(build.instant(0), 900, 0), slot_ms=1_000)

    assert not is_late(plan, 91_000)
    assert is_late(plan, 91_001)


def test_one_failure_makes_a_meter_suspect_and_two_with_silence_make_it_down() -> None:
    unit = Unit(answered_ms=0, period_ms=10_000)

    once = failed(unit, 30_000)
    soon = failed(failed(unit, 1_000), 20_000)
    down = failed(once, 30_500)

    assert (once.state, soon.state) == (UnitState.SUSPECT, UnitState.SUSPECT)
    assert down.state is UnitState.DOWN
    assert failed(down, 31_000).state is UnitState.DOWN
    assert answered(down, 40_000) == replace(unit, answered_ms=40_000)


def test_a_dead_meter_is_asked_ever_more_seldom_down_to_once_a_minute() -> None:
    pauses = [pause_ms(failures) for failures in range(1, 11)]

    assert pauses == [0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000]
    assert pause_ms(10_000) == 60_000


def test_dead_meters_get_a_tenth_of_the_bus() -> None:
    cost_ms = 700

    assert cost_ms * 10 == cost_ms + probe_gap_ms(cost_ms)


def test_a_loop_without_progress_is_named() -> None:
    assert stuck({"a": 1_000, "b": 9_000}, {"a": 5_000, "b": 5_000}, 10_000) == ("a",)


def test_the_clock_is_told_when_it_becomes_true_and_when_it_was_set() -> None:
    told, before = watch_clock(None, build.instant(1, wall_ms=1, clock=UNSURE))
    told, first = watch_clock(told, build.instant(1_000, wall_ms=500_000))
    told, steady = watch_clock(told, build.instant(2_000, wall_ms=501_900))
    told, stepped = watch_clock(told, build.instant(3_000, wall_ms=505_000))
    _, again = watch_clock(told, build.instant(4_000, wall_ms=506_000))

    assert (before, first, steady, stepped, again) == (False, True, False, True, False)


BERLIN_CHANGES = {"to summer time": 1_774_746_000_000, "to winter time": 1_792_890_000_000}
"""2026-03-29 and 2026-10-25, 01:00 UTC."""


@pytest.mark.parametrize("change_ms", BERLIN_CHANGES.values(), ids=BERLIN_CHANGES)
def test_berlins_clock_change_gives_no_slot_twice_and_misses_none(
    monkeypatch: pytest.MonkeyPatch, change_ms: int
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    world = World(true_ms=change_ms - 12 * 3_600_000)

    edges = run_slots(world, 900, 24 * 3_600_000)

    monkeypatch.undo()
    time.tzset()
    assert len(edges) == 96
    assert {edge_ms % 900_000 for edge_ms in edges} == {0}
    assert [later - edge for edge, later in pairwise(edges)] == [900_000] * 95


def test_a_year_has_35040_quarter_hours_each_at_its_time() -> None:
    world = World(true_ms=build.NOON_MS)

    edges = run_slots(world, 900, 365 * 86_400_000)

    assert len(edges) == 35_040
    assert edges == list(range(edges[0], edges[0] + 35_040 * 900_000, 900_000))


def test_a_clock_that_becomes_true_moves_the_waiting_slot_at_once() -> None:
    world = World(true_ms=build.NOON_MS + 123_456)
    world.boots(off_ms=0, wall_ms=0)
    plan = first_plan(world.now(), 86_400, 0)
    world.advance(90_000)
    world.daemon_sets()

    moved = realign(plan, world.now())

    assert (moved.slot_ms + world.true_ms - world.mono_ms) % 86_400_000 == 0


def test_a_clock_that_is_no_longer_believed_leaves_the_edges_where_they_were() -> None:
    world = World()
    plan = first_plan(world.now(), 900, 0)
    world.hand_sets(error_ms=-7 * 3_600_000)
    world.advance(1)

    following = after_slot(plan, world.now())

    assert realign(plan, world.now()) == plan
    assert following.slot_ms == plan.slot_ms + 900_000


def test_a_slot_that_is_being_read_is_not_moved_away() -> None:
    world = World()
    plan = first_plan(world.now(), 900, 0)
    world.advance(plan.slot_ms - world.mono_ms + 5)
    world.daemon_sets(error_ms=-3_600_000)

    assert realign(plan, world.now()) == plan


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(-(10**11), 10**11)), max_size=20),
    st.sampled_from([60, 900, 86_400]),
)
def test_however_the_clock_jumps_slots_stay_half_an_interval_to_one_and_a_half_apart(
    jumps: list[tuple[int, int]], interval_s: int
) -> None:
    world = World()
    plan = first_plan(world.now(), interval_s, 0)
    fired = [world.mono_ms]

    for wait_s, error_ms in jumps:
        world.daemon_sets(error_ms=error_ms)
        until_ms = world.mono_ms + wait_s * interval_s * 10
        while world.mono_ms < until_ms:
            plan = realign(expire(plan, world.now()), world.now())
            if plan.slot_ms <= world.mono_ms:
                fired.append(plan.slot_ms)
                plan = after_slot(plan, world.now())
            world.advance(max(1, min(plan.slot_ms, until_ms) - world.mono_ms))

    gaps_ms = [later - edge for edge, later in pairwise(fired[1:])]
    assert all(interval_s * 500 <= gap_ms <= interval_s * 1_500 for gap_ms in gaps_ms)


def run_slots(world: World, interval_s: int, length_ms: int) -> list[int]:
    """Run a plan for so long; return the wall clock of each slot's edge."""
    plan = first_plan(world.now(), interval_s, 0)
    end_ms = world.mono_ms + length_ms
    edges = []
    while world.mono_ms < end_ms:
        world.advance(max(0, plan.slot_ms - world.mono_ms))
        edges.append(world.now().wall_ms)
        plan = after_slot(plan, world.now())
    return edges
