"""What spike, stuck, chain gap and sum of phases hold, what frees it, and that no Wh is doubled."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.held import SqlHeldReadings
from gridtokenx_cloud.verify import ReadingRules
from gridtokenx_wire.encoding import line_hash
from gridtokenx_wire.record import FIRST_PREV, LiveValues, Quality, SlotRecord
from tests.support import build_cloud as build
from tests.support.build_cloud import GATEWAY, METER_ID, Cloud

ALL_HOLD = ReadingRules(
    spike_holds=True, stuck_holds=True, chain_gap_holds=True, phase_sum_holds=True
)
NewCloud = Callable[[ReadingRules], Cloud]


@pytest.fixture
def new_cloud(new_store: Callable[[], Database]) -> Iterator[NewCloud]:
    with ExitStack() as opened:
        yield lambda rules: opened.enter_context(build.cloud(new_store(), rules=rules))


def day(*slots: tuple[int, int, int | None]) -> dict[int, SlotRecord]:
    """Return slots of (seq, register, measured power) by their seq, as a gateway chains them."""
    done: dict[int, SlotRecord] = {}
    prev = None
    for seq, export_wh, power_w in slots:
        slot = build.slot(seq, export_wh, live=LiveValues(active_power_w=power_w))
        done[seq] = slot if prev is None else slot._replace(prev=prev)
        prev = line_hash(GATEWAY.line(done[seq]))
    return done


def take_each(cloud: Cloud, slots: list[SlotRecord]) -> None:
    """Let each come alone, so that the store alone remembers what was before."""
    for slot in slots:
        cloud.take(GATEWAY.sends(slot))


def desk(cloud: Cloud) -> SqlHeldReadings:
    return SqlHeldReadings(cloud.database, cloud.clock, actor="test")


def held_id(cloud: Cloud, seq: int) -> int:
    ((reading_id,),) = cloud.rows(
        "SELECT reading_id FROM meter_readings WHERE status = 'held' AND seq = ?", seq
    )
    return int(str(reading_id))


SPIKE = day((95, 1_000, -400), (96, 3_000, -400), (97, 3_100, -400), (98, 3_200, -4_000))
"""2,000 Wh come at once where 100 Wh a slot were measured, then the sun shines."""


@pytest.mark.parametrize("together", [False, True])
def test_a_spike_waits_until_measured_power_explains_it_and_counts_once(
    new_cloud: NewCloud, *, together: bool
) -> None:
    cloud = new_cloud(ALL_HOLD)
    slots = list(SPIKE.values())

    if together:
        cloud.take(GATEWAY.sends(*slots[:3]))
    else:
        take_each(cloud, slots[:3])
    before = cloud.readings()
    cloud.take(GATEWAY.sends(slots[3]))

    assert before == [
        (95, "accepted", 0, None),
        (96, "held", 0, "Spike"),
        (97, "held", 0, "Spike"),
    ]
    assert cloud.readings() == [
        (95, "accepted", 0, None),
        (96, "late", 0, None),
        (97, "late", 0, None),
        (98, "accepted", 2_200, None),
    ]


def test_what_is_held_is_remembered_also_when_the_clock_was_set_back(new_cloud: NewCloud) -> None:
    cloud = new_cloud(replace(ALL_HOLD, chain_gap_holds=False))
    back = SPIKE[96].stamp._replace(wall_ms=SPIKE[95].stamp.wall_ms - 1)

    take_each(cloud, [SPIKE[95], SPIKE[96]._replace(stamp=back), SPIKE[97]])

    assert [reason for *_, reason in cloud.readings()] == [None, "Spike", "Spike"]


def test_no_hour_without_power_explains_a_spike(new_cloud: NewCloud) -> None:
    cloud = new_cloud(ALL_HOLD)
    night = day((40, 1_000, 0), (41, 3_000, 0), *((seq, 3_000, 0) for seq in range(42, 101)))

    take_each(cloud, list(night.values()))

    assert {status for _, status, _, _ in cloud.readings()[1:]} == {"held"}
    assert {reason for *_, reason in cloud.readings()[1:]} == {"Spike"}


def test_a_released_spike_credits_what_the_register_moved_and_the_next_goes_on_from_there(
    new_cloud: NewCloud,
) -> None:
    cloud = new_cloud(ALL_HOLD)
    take_each(cloud, [SPIKE[95], SPIKE[96]])

    credited_wh = desk(cloud).release(held_id(cloud, 96))
    take_each(cloud, [SPIKE[97], SPIKE[98]])

    assert credited_wh == 2_000
    assert [wh for _, _, wh, _ in cloud.readings()] == [0, 2_000, 100, 100]


def test_releasing_the_newest_leaves_nothing_of_the_others_to_decide(new_cloud: NewCloud) -> None:
    cloud = new_cloud(ALL_HOLD)
    take_each(cloud, [SPIKE[95], SPIKE[96], SPIKE[97]])

    desk(cloud).release(held_id(cloud, 97))

    assert cloud.readings()[1:] == [(96, "late", 0, None), (97, "accepted", 2_100, None)]


def test_rejecting_a_spike_does_not_let_it_through_with_the_next_reading(
    new_cloud: NewCloud,
) -> None:
    cloud = new_cloud(ALL_HOLD)
    take_each(cloud, [SPIKE[95], SPIKE[96]])

    desk(cloud).reject(held_id(cloud, 96), "the meter was on the bench")
    take_each(cloud, [SPIKE[97]])

    assert cloud.readings()[1:] == [(96, "rejected", 0, "Spike"), (97, "held", 0, "Spike")]


def test_a_register_that_spiked_by_a_read_error_stays_held_while_others_go_on(
    new_cloud: NewCloud,
) -> None:
    cloud = new_cloud(ALL_HOLD)
    odd = day((95, 1_000, -400), (96, 3_500, -400), (97, 1_200, -400), (98, 1_300, -400))

    take_each(cloud, list(odd.values()))

    assert cloud.readings() == [
        (95, "accepted", 0, None),
        (96, "held", 0, "Spike"),
        (97, "accepted", 200, None),
        (98, "accepted", 100, None),
    ]


def test_slots_that_nobody_measured_make_no_spike(new_cloud: NewCloud) -> None:
    cloud = new_cloud(replace(ALL_HOLD, chain_gap_holds=False))
    morning_and_evening = day((50, 1_000, -100), (90, 41_000, -100), (91, 41_030, -100))

    take_each(cloud, list(morning_and_evening.values()))

    assert [wh for _, _, wh, _ in cloud.readings()] == [0, 40_000, 30]


def test_a_stuck_register_is_held_by_default_and_catches_up_over_all_its_time(
    new_cloud: NewCloud,
) -> None:
    cloud = new_cloud(ReadingRules())
    stuck = day((95, 1_000, -8_000), (96, 1_000, -8_000), (97, 1_000, -8_000), (98, 7_000, -8_000))

    take_each(cloud, list(stuck.values())[:3])
    before = cloud.readings()
    take_each(cloud, [stuck[98]])

    assert [(status, reason) for _, status, _, reason in before] == [
        ("accepted", None),
        ("held", "Stuck"),
        ("held", "Stuck"),
    ]
    # In one slot 6,000 Wh would be above the rated power; in the three since it stood it is not.
    assert cloud.readings()[1:] == [
        (96, "late", 0, None),
        (97, "late", 0, None),
        (98, "accepted", 6_000, None),
    ]


def test_a_register_that_rightly_stands_while_power_is_drawn_widens_no_bound(
    new_cloud: NewCloud,
) -> None:
    cloud = new_cloud(ReadingRules())
    still = [(seq, 1_000, 900) for seq in range(91, 97)]
    night = day((90, 1_000, -400), *still, (97, 11_000, -400))

    take_each(cloud, list(night.values()))

    # 10 kWh would be right for the night at rated power, not for the slot after it.
    assert [wh for _, _, wh, _ in cloud.readings()] == [0] * 8
    assert [reason for *_, reason in cloud.readings()] == [None] * 7 + ["PowerExceeded"]
    assert cloud.service.totals["remark:stuck"] == 6


def test_a_chain_gap_holds_until_the_missing_line_is_here(new_cloud: NewCloud) -> None:
    cloud = new_cloud(ALL_HOLD)
    slots = day(*((seq, seq * 10, None) for seq in range(94, 99)))

    take_each(cloud, [slots[94], slots[96], slots[97]])
    before = cloud.readings()
    take_each(cloud, [slots[95], slots[98]])

    assert before == [
        (94, "accepted", 0, None),
        (96, "held", 0, "ChainGap"),
        (97, "held", 0, "ChainGap"),
    ]
    assert cloud.readings() == [
        (94, "accepted", 0, None),
        (95, "accepted", 10, None),
        (96, "late", 0, None),
        (97, "late", 0, None),
        (98, "accepted", 30, None),
    ]


def test_a_line_that_never_comes_stops_no_meter_for_ever(new_cloud: NewCloud) -> None:
    cloud = new_cloud(replace(ALL_HOLD, chain_gap_wait_s=3_600))
    slots = day(*((seq, seq * 10, None) for seq in range(94, 101)))
    del slots[95]

    take_each(cloud, list(slots.values()))

    assert [(seq, status, wh) for seq, status, wh, _ in cloud.readings()] == [
        (94, "accepted", 0),
        (96, "late", 0),
        (97, "late", 0),
        (98, "accepted", 40),
        (99, "accepted", 10),
        (100, "accepted", 10),
    ]


def test_phases_that_do_not_add_up_hold_until_they_do(new_cloud: NewCloud) -> None:
    cloud = new_cloud(replace(ALL_HOLD, chain_gap_holds=False))
    slots = day(*((seq, seq * 10, None) for seq in range(96, 99)))
    odd = slots[97]._replace(flags=Quality.POWER_MISMATCH)

    take_each(cloud, [slots[96], odd])
    before = cloud.readings()
    take_each(cloud, [slots[98]])

    assert before[1] == (97, "held", 0, "PhaseSum")
    assert cloud.readings()[1:] == [(97, "late", 0, None), (98, "accepted", 20, None)]


def test_what_is_only_remarked_is_credited(new_cloud: NewCloud) -> None:
    cloud = new_cloud(ReadingRules())
    odd = SPIKE[98]._replace(flags=Quality.POWER_MISMATCH)

    take_each(cloud, [SPIKE[95], SPIKE[96], odd])

    assert cloud.readings()[1:] == [(96, "accepted", 2_000, None), (98, "accepted", 200, None)]
    remarked = {name: n for name, n in cloud.service.totals.items() if ":" in name}
    assert remarked == {"remark:spike": 1, "remark:chain_gap": 1, "remark:phase_sum": 1}


def test_confirming_a_count_judges_its_readings_by_these_rules_too(new_cloud: NewCloud) -> None:
    cloud = new_cloud(ALL_HOLD)
    cloud.take(GATEWAY.sends(build.slot(at=build.stamp(1, epoch="0" * 16, wall_ms=1), export_wh=9)))
    cloud.database.connection.execute("UPDATE meters SET epoch_policy = 'none'")
    take_each(cloud, list(SPIKE.values()))

    desk(cloud).accept_epoch(METER_ID, build.EPOCH, ALL_HOLD)

    rows = cloud.rows(
        "SELECT seq, status, credit_wh, reason FROM meter_readings WHERE epoch = ? ORDER BY seq",
        build.EPOCH,
    )
    assert rows == [
        (95, "accepted", 0, None),
        (96, "late", 0, None),
        (97, "late", 0, None),
        (98, "accepted", 2_200, None),
    ]


_pairs = count(1)
_STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 100, 700, 2_900, 3_500]),
        st.sampled_from([None, 0, -400, -4_000, -9_000]),
        st.sampled_from([Quality.NONE, Quality.NONE, Quality.POWER_MISMATCH]),
    ),
    min_size=2,
    max_size=12,
)


@pytest.fixture(scope="module")
def shared(new_store: Callable[[], Database]) -> Iterator[Cloud]:
    with build.cloud(new_store(), rules=replace(ALL_HOLD, chain_gap_wait_s=3_600)) as made:
        yield made


@pytest.mark.no_cover  # the same lines a thousand times
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=_STEPS, order=st.randoms(use_true_random=False), size=st.integers(2, 6))
def test_what_a_batch_remembers_is_what_the_store_remembers(
    shared: Cloud, steps: list[tuple[int, int | None, Quality]], order: Random, size: int
) -> None:
    number = next(_pairs)
    names = f"ALONE-{number}", f"TOGETHER-{number}"
    sent = [meters_day(shared, name, steps) for name in names]
    # They come in any order, and some never.
    places = order.sample(range(len(steps)), order.randint(1, len(steps)))

    for place in places:
        shared.take(GATEWAY.sends(sent[0][place]))
    for first in range(0, len(places), size):
        shared.take(GATEWAY.sends(*(sent[1][place] for place in places[first : first + size])))

    alone, together = (
        shared.rows(
            "SELECT seq, status, credit_wh, reason, remarks FROM meter_readings"
            " WHERE meter_id = ? ORDER BY seq",
            name,
        )
        for name in names
    )
    assert alone == together


def meters_day(
    cloud: Cloud, meter_id: str, steps: list[tuple[int, int | None, Quality]]
) -> list[SlotRecord]:
    """Enrol a meter, and return its slots as a gateway chains them."""
    cloud.registry.add_meter(
        meter_id,
        gateway_id=GATEWAY.gateway_id,
        user_id="ann",
        rated_power_w=10_000,
        resolution_wh=1,
        epoch_policy="first",
    )
    export_wh, done, prev = 1_000, list[SlotRecord](), FIRST_PREV
    for seq, (step_wh, power_w, flags) in enumerate(steps, 60):
        export_wh += step_wh
        plain = build.slot(
            at=build.stamp(seq, meter_id=meter_id),
            export_wh=export_wh,
            live=LiveValues(active_power_w=power_w),
        )
        done.append(plain._replace(prev=prev, flags=flags))
        prev = line_hash(GATEWAY.line(done[-1]))
    return done
