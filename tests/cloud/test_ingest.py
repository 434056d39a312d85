"""From lines to commits: what is stored, credited, told and receipted, over a real store."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gridtokenx_wire.record import ClockQuality, EventRecord
from tests.support import build_cloud as build
from tests.support.build_cloud import GATEWAY, METER_ID, OTHER_GATEWAY, Cloud


@pytest.fixture()
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with build.cloud(tmp_path) as made:
        yield made


def test_a_register_that_moves_is_credited_from_its_first_reading_on(cloud: Cloud) -> None:
    outcome = cloud.take(
        GATEWAY.sends(build.slot(96, 1_000), build.slot(97, 1_400)),
        GATEWAY.sends(build.slot(98, 1_900)),
    )

    assert cloud.readings() == [
        (96, "accepted", 0, None),
        (97, "accepted", 400, None),
        (98, "accepted", 500, None),
    ]
    assert outcome.credited_wh == 900
    assert cloud.commits == [True]
    assert build.receipt(outcome).durable == {METER_ID: {build.EPOCH: ((96, 98),)}}


def test_the_same_line_again_is_receipted_again_and_stored_once(cloud: Cloud) -> None:
    message = GATEWAY.sends(build.slot(96, 1_000), build.slot(97, 1_400))
    cloud.take(message)

    outcome = cloud.take(message, message)

    assert len(cloud.readings()) == 2
    assert outcome.tally == {"duplicate": 4}
    assert build.receipt(outcome).covers(METER_ID, build.EPOCH, 97)


def test_another_line_under_a_stored_seq_is_rejected_and_moves_nothing(cloud: Cloud) -> None:
    cloud.take(GATEWAY.sends(build.slot(96, 1_000), build.slot(97, 1_400)))

    outcome = cloud.take(GATEWAY.sends(build.slot(97, 1_500)))

    assert cloud.readings()[-1] == (97, "accepted", 400, None)
    assert build.receipt(outcome).rejected[0].code == "ConflictingReading"


def test_readings_in_any_order_credit_what_the_register_moved(cloud: Cloud) -> None:
    for seq, export_wh in ((98, 1_900), (96, 1_000), (99, 2_500), (97, 1_400)):
        cloud.take(GATEWAY.sends(build.slot(seq, export_wh)))

    assert cloud.readings() == [
        (96, "late", 900, None),
        (97, "late", 0, None),
        (98, "accepted", 0, None),
        (99, "accepted", 600, None),
    ]
    assert build.receipt(cloud.take(GATEWAY.sends(build.slot(99, 2_500)))).durable == {
        METER_ID: {build.EPOCH: ((96, 99),)}
    }


def test_a_forged_foreign_or_broken_line_leaves_its_neighbours_alone(cloud: Cloud) -> None:
    good = GATEWAY.line(build.slot(96, 1_000))
    forged = OTHER_GATEWAY.line(build.slot(97, 9_000))
    foreign = GATEWAY.line(build.slot(at=build.stamp(1, meter_id="HOUSE-18")))

    outcome = cloud.take(GATEWAY.message(forged, good, b"noise", foreign))

    assert cloud.readings() == [(96, "accepted", 0, None)]
    assert [r.code for r in build.receipt(outcome).rejected] == [
        "BadSignature",
        "NotCanonical",
        "MeterNotOfGateway",
    ]
    assert cloud.rows("SELECT DISTINCT stream FROM events WHERE type LIKE '%Failed'") == [
        ("admin",)
    ]


def test_a_refused_line_that_comes_again_is_counted_but_told_once(cloud: Cloud) -> None:
    message = GATEWAY.message(b"noise")

    cloud.take(message, message)
    outcome = cloud.take(message)

    assert cloud.rows("SELECT code, times FROM rejections") == [("NotCanonical", 3)]
    assert cloud.rows("SELECT count(*) FROM events") == [(1,)]
    assert build.receipt(outcome).rejected[0].code == "NotCanonical"


def test_a_dip_of_the_register_mints_only_what_it_really_moved(cloud: Cloud) -> None:
    for seq, export_wh in ((96, 200_000), (97, 150), (98, 200_010)):
        cloud.take(GATEWAY.sends(build.slot(seq, export_wh)))

    assert cloud.readings() == [
        (96, "accepted", 0, None),
        (97, "held", 0, "CounterBackwards"),
        (98, "accepted", 10, None),
    ]


def test_samples_are_receipted_shown_and_thinned_but_never_credited(cloud: Cloud) -> None:
    samples = [
        build.sample(seq, -seq, at=build.stamp(seq, wall_ms=build.NOON_MS + seq * 10_000))
        for seq in range(1, 14)
    ]

    outcome = cloud.take(GATEWAY.sends(*samples))

    assert cloud.rows("SELECT seq FROM meter_samples ORDER BY seq") == [(1,), (7,), (13,)]
    assert cloud.rows("SELECT active_power_w FROM meter_live") == [(-13,)]
    assert [event.active_power_w for event in cloud.samples] == list(range(-1, -14, -1))
    assert build.receipt(outcome).durable == {METER_ID: {build.EPOCH: ((1, 13),)}}
    assert cloud.rows("SELECT count(*) FROM events") == [(0,)]


def test_a_clock_record_dates_the_readings_of_its_boot_taken_before(cloud: Cloud) -> None:
    undated = build.stamp(1, wall_ms=86_400_000, clock=ClockQuality.UNSYNCHRONISED)
    cloud.take(GATEWAY.sends(build.slot(at=undated)))
    before = cloud.rows("SELECT reading_timestamp_ms FROM meter_readings")

    outcome = cloud.take(
        GATEWAY.sends(
            build.clock_record(1, mono_ms=undated.mono_ms + 60_000, wall_ms=build.NOON_MS)
        )
    )

    assert before == [(None,)]
    assert cloud.rows("SELECT reading_timestamp_ms FROM meter_readings") == [
        (build.NOON_MS - 60_000,)
    ]
    assert build.receipt(outcome).durable == {"_gateway": {build.EPOCH: ((1, 1),)}}


def test_an_event_record_is_kept_as_it_came(cloud: Cloud) -> None:
    record = EventRecord(stamp=build.stamp(1), event="MeterDown", detail="no answer")

    cloud.take(GATEWAY.sends(record))

    assert cloud.rows("SELECT stream, seq, event, detail, line FROM gateway_records") == [
        (METER_ID, 1, "MeterDown", "no answer", GATEWAY.line(record))
    ]
