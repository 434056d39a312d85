"""How far the wall clock is believed: boots without a battery, jumps, leaps of years, holdover."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_agent.clock import ClockTrust, ClockWatch, Instant, offset_ms, watch_clock
from gridtokenx_wire.record import ClockQuality
from tests.support.fake_world import ONE_DAY_MS, World

UNSURE, HOLDOVER, TRUE = ClockQuality
HOUR_MS = 3_600_000
YEAR_MS = 365 * ONE_DAY_MS


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_a_boot_in_1970_is_not_believed_until_a_daemon_has_set_the_clock() -> None:
    world = World()
    world.boots(off_ms=HOUR_MS, wall_ms=36_000)

    before = world.now()
    world.advance(90_000)
    world.daemon_sets()

    assert (before.clock, before.wall_ms) == (UNSURE, 36_000)
    assert world.now().clock is TRUE


def test_a_clock_behind_one_that_was_true_is_not_believed_though_the_kernel_does() -> None:
    world = World()
    stored = world.now()
    world.boots(off_ms=HOUR_MS, wall_ms=stored.wall_ms - 1, synchronised=True)
    world.starts(stored)

    at_start = world.now().clock
    world.advance(HOUR_MS // 2)
    unconfirmed = world.now().clock
    world.daemon_sets()

    assert (at_start, unconfirmed) == (UNSURE, UNSURE)
    assert world.now().clock is TRUE


def test_after_a_leap_of_years_into_the_future_a_restart_believes_again_once_confirmed() -> None:
    world = World()
    world.daemon_sets(error_ms=9 * YEAR_MS)
    wrong = world.now()
    world.daemon_sets()
    world.advance(1_000)
    world.starts(wrong)

    doubted = world.now().clock
    world.advance(64_000)
    world.now()
    world.daemon_sets()

    assert wrong.clock is TRUE
    assert doubted is UNSURE
    assert world.now().clock is TRUE


def test_a_time_that_was_never_believed_holds_no_later_one_back() -> None:
    world = World()
    world.boots(off_ms=0, wall_ms=ms("2038-01-19T03:14:07"))
    garbage = world.now()
    world.boots(off_ms=0, synchronised=True)
    world.starts(garbage)

    assert garbage.clock is UNSURE
    assert world.now().clock is TRUE


def test_a_clock_that_was_true_in_this_boot_is_held_over_while_it_runs_on() -> None:
    world = World()
    world.now()
    world.advance(10 * HOUR_MS)

    held = world.now()

    assert held.clock is HOLDOVER
    assert held.wall_ms == world.true_ms


def test_holdover_outlives_the_process_but_not_the_boot() -> None:
    world = World()
    stored = world.now()
    world.advance(10 * HOUR_MS)
    world.starts(stored)
    same_boot = world.now().clock
    world.boots(off_ms=60_000)
    world.starts(stored)

    assert (same_boot, world.now().clock) == (HOLDOVER, UNSURE)


def test_a_clock_set_by_hand_is_no_holdover() -> None:
    world = World()
    world.now()

    world.hand_sets(error_ms=-HOUR_MS)

    assert world.now().clock is UNSURE
    world.daemon_sets()
    assert world.now().clock is TRUE


def test_a_daemon_that_steps_the_clock_is_believed_and_told() -> None:
    world = World(error_ms=7 * HOUR_MS)
    told, first = watch_clock(None, world.now())
    world.daemon_sets()

    _, second = watch_clock(told, world.now())

    assert (first, second) == (True, True)


def test_without_any_clock_that_was_true_nothing_is_told() -> None:
    world = World()
    world.boots(off_ms=0, wall_ms=0)
    world.starts()

    told, tell = watch_clock(None, world.now())

    assert (told, tell) == (None, False)
    assert world.trust == ClockTrust(kernel=world.trust.kernel)


def test_readings_from_before_the_clock_was_right_are_dated_from_the_same_boot() -> None:
    """Source: lafrech/oem_gateway issue 12: 2016-11-03 at boot, a daemon after 90 s."""
    world = World(true_ms=ms("2016-11-05T10:00:00"))
    world.boots(off_ms=0, wall_ms=ms("2016-11-03T18:22:10"))
    early = []
    for _ in range(9):
        early.append((world.now(), world.true_ms))
        world.advance(10_000)
    world.daemon_sets()

    record = world.now()
    told, tell = watch_clock(None, record)

    assert tell
    assert told == ClockWatch(offset_ms=offset_ms(record), synchronised=True)
    for reading, true_ms in early:
        assert reading.clock is UNSURE
        assert reading.boot_id == record.boot_id
        assert reading.mono_ms + offset_ms(record) == true_ms


Step = tuple[str, int]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(1, 3 * ONE_DAY_MS)),
        st.tuples(st.just("boot"), st.integers(0, 2 * 10**12)),
        st.tuples(st.just("daemon"), st.just(0)),
        st.tuples(st.just("hand"), st.integers(-YEAR_MS, YEAR_MS)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=40,
)


def play(world: World, steps: list[Step], seen: list[tuple[Instant, int]]) -> None:
    for what, number in steps:
        match what:
            case "wait":
                world.advance(number)
            case "boot":
                world.boots(off_ms=1_000, wall_ms=number)
                world.starts(*(at for at, _ in seen))
            case "daemon":
                world.daemon_sets()
            case "hand":
                world.hand_sets(error_ms=number)
            case _:
                world.starts(*(at for at, _ in seen))
        seen.append((world.now(), world.true_ms))


@given(STEPS)
def test_whatever_happens_to_the_clock_no_believed_time_is_wrong(steps: list[Step]) -> None:
    world = World()
    seen: list[tuple[Instant, int]] = []

    play(world, steps, seen)

    for at, true_ms in seen:
        assert at.clock is UNSURE or abs(at.wall_ms - true_ms) <= 1_000


@given(STEPS)
def test_in_the_end_every_moment_of_a_boot_that_was_ever_true_can_be_dated(
    steps: list[Step],
) -> None:
    world = World()
    seen: list[tuple[Instant, int]] = []
    play(world, steps, seen)
    offsets = {at.boot_id: offset_ms(at) for at, _ in seen if at.clock is TRUE}

    for at, true_ms in seen:
        if at.boot_id in offsets:
            assert abs(at.mono_ms + offsets[at.boot_id] - true_ms) <= 1_000
