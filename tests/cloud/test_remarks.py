"""What is remarked of a reading, and that a remark never holds it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gridtokenx_cloud.remarks import Remark, last_slot, remarks_on
from gridtokenx_cloud.verify import ReadingRules
from gridtokenx_wire.encoding import line_hash
from gridtokenx_wire.record import LiveValues, Quality, SlotRecord
from tests.support import build_cloud as build
from tests.support.build_cloud import GATEWAY, Cloud


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with build.cloud(tmp_path) as made:
        yield made


def slot(seq: int, export_wh: int, power_w: int | None = None) -> SlotRecord:
    return build.slot(seq, export_wh, live=LiveValues(active_power_w=power_w))


def chained(*slots: SlotRecord) -> list[SlotRecord]:
    """Return the slots as a gateway chains them."""
    done: list[SlotRecord] = []
    for one in slots:
        prev = line_hash(GATEWAY.line(done[-1])) if done else one.prev
        done.append(one._replace(prev=prev))
    return done


def remarked(
    earlier: SlotRecord,
    later: SlotRecord,
    rules: ReadingRules = ReadingRules(),  # noqa: B008 - frozen
    resolution_wh: int = 1,
) -> Remark:
    """Return what is remarked of *later* when it follows *earlier* in an unbroken chain."""
    one, other = chained(earlier, later)
    last = last_slot(one, GATEWAY.line(one), one.stamp.wall_ms)
    seen = last_slot(other, GATEWAY.line(other), other.stamp.wall_ms)
    return remarks_on(other, seen, [last], build.meter(resolution_wh=resolution_wh), rules)


def test_an_ordinary_pair_of_readings_is_not_remarked() -> None:
    assert remarked(slot(96, 1_000, -2_000), slot(97, 1_500, -2_100)) == Remark.NONE


def test_a_slot_whose_predecessor_is_missing_is_a_gap_and_a_resend_is_none(cloud: Cloud) -> None:
    first, second, third, fourth = chained(*(slot(seq, seq * 10) for seq in (96, 97, 98, 99)))

    cloud.take(GATEWAY.sends(first))
    outcome = cloud.take(GATEWAY.sends(third, fourth))
    cloud.take(GATEWAY.sends(second))

    assert outcome.remarks == {"chain_gap": 1}
    assert cloud.rows("SELECT seq, status, remarks FROM meter_readings ORDER BY seq") == [
        (96, "accepted", 0),
        (97, "late", 0),
        (98, "accepted", int(Remark.CHAIN_GAP)),
        (99, "accepted", 0),
    ]
    assert cloud.service.totals["remark:chain_gap"] == 1


def test_a_register_that_stands_still_under_power_is_stuck() -> None:
    assert remarked(slot(96, 1_000, -2_000), slot(97, 1_000, -2_000)) == Remark.STUCK


@pytest.mark.parametrize("power_w", [None, 0, -390])
def test_a_register_that_stands_still_without_much_power_is_not_stuck(
    power_w: int | None,
) -> None:
    assert remarked(slot(96, 1_000, power_w), slot(97, 1_000, power_w)) == Remark.NONE


def test_the_same_answer_under_a_new_seq_is_stuck() -> None:
    again = build.slot(at=build.stamp(97, mono_ms=96 * build.SLOT_MS), export_wh=1_000)

    assert remarked(slot(96, 1_000), again) == Remark.STUCK


@pytest.mark.parametrize(
    ("step_wh", "found"), [(700, Remark.NONE), (1_395, Remark.NONE), (1_500, Remark.SPIKE)]
)
def test_a_step_far_above_the_measured_power_is_a_spike(step_wh: int, found: Remark) -> None:
    # 2,000 W for a quarter of an hour are 500 Wh; 280 % of them 1,400 Wh.
    assert remarked(slot(96, 1_000, -2_000), slot(97, 1_000 + step_wh, -1_000)) == found


def test_without_measured_power_no_step_is_a_spike() -> None:
    assert remarked(slot(96, 1_000), slot(97, 3_000)) == Remark.NONE


def test_phases_that_do_not_add_up_are_remarked_as_the_gateway_found_it(cloud: Cloud) -> None:
    odd = slot(96, 1_000)._replace(flags=Quality.POWER_MISMATCH)

    outcome = cloud.take(GATEWAY.sends(odd))

    assert outcome.remarks == {"phase_sum": 1}
    assert cloud.rows("SELECT status, flags, remarks FROM meter_readings") == [
        ("accepted", int(Quality.POWER_MISMATCH), int(Remark.PHASE_SUM))
    ]


def test_each_threshold_is_the_settings_own() -> None:
    spike = slot(96, 1_000, -2_000), slot(97, 2_500, -1_000)
    stuck = slot(96, 1_000, -2_000), slot(97, 1_000, -2_000)

    assert remarked(*spike, ReadingRules(spike_percent=299)) == Remark.SPIKE
    assert remarked(*spike, ReadingRules(spike_percent=300)) == Remark.NONE
    assert remarked(*spike, ReadingRules(spike_rated_percent=39)) == Remark.SPIKE
    assert remarked(*spike, ReadingRules(spike_rated_percent=40)) == Remark.NONE
    assert remarked(*stuck, ReadingRules(stuck_wh=500)) == Remark.STUCK
    assert remarked(*stuck, ReadingRules(stuck_wh=501)) == Remark.NONE


@pytest.mark.parametrize(("resolution_wh", "found"), [(250, Remark.STUCK), (251, Remark.NONE)])
def test_a_coarse_register_may_stand_while_less_than_two_of_its_steps_flow(
    resolution_wh: int, found: Remark
) -> None:
    stuck = slot(96, 1_000, -2_000), slot(97, 1_000, -2_000)

    assert remarked(*stuck, resolution_wh=resolution_wh) == found
