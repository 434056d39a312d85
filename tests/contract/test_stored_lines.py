"""A line under a stored name is compared with the stored one, whatever its time says."""

from collections.abc import Callable, Iterator

import pytest

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.ingest import SqlIngestStore
from gridtokenx_cloud.opened import identity_of
from gridtokenx_wire.record import ClockQuality, Record, SlotRecord
from tests.support import build_cloud as build
from tests.support.build_cloud import GATEWAY, METER_ID, NOON_MS, Cloud, receipt
from tests.support.stores import sqlite_of

OTHER_EPOCH = "0000000000000002"
UNDATED = build.stamp(98, clock=ClockQuality.UNSYNCHRONISED)


@pytest.fixture
def cloud(new_store: Callable[[], Database]) -> Iterator[Cloud]:
    with build.cloud(new_store(), epoch_policy="any") as made:
        yield made


def loaded(cloud: Cloud, *records: Record) -> dict[tuple[str, str, int], bytes]:
    """Return the stored lines that a batch of these records is compared with."""
    with SqlIngestStore(cloud.database).transaction() as unit:
        names = [identity_of(GATEWAY.gateway_id, record) for record in records]
        return unit.load({GATEWAY.gateway_id}, names).lines


def codes(cloud: Cloud, *records: Record) -> list[str]:
    outcome = cloud.take(GATEWAY.sends(*records))
    return [one.code for one in receipt(outcome).rejected]


def moved(slot: SlotRecord, later_ms: int) -> SlotRecord:
    """Return the reading as if taken at another time."""
    stamp = slot.stamp
    at = build.stamp(stamp.seq, epoch=stamp.epoch, wall_ms=stamp.wall_ms + later_ms)
    return build.slot(at=at, export_wh=slot.export_wh)


def test_what_is_stored_is_found_by_its_own_time_or_without(cloud: Cloud) -> None:
    slots = [build.slot(96, 1_000), build.slot(97, 1_400), build.slot(at=UNDATED, export_wh=1_500)]
    cloud.take(GATEWAY.sends(*slots))
    kept = {(METER_ID, build.EPOCH, slot.stamp.seq): GATEWAY.line(slot) for slot in slots}

    assert loaded(cloud, *slots) == kept
    assert loaded(cloud, moved(slots[1], 60_000)).items() <= kept.items()
    assert loaded(cloud, moved(slots[1], 60_000))[METER_ID, build.EPOCH, 97]
    assert loaded(cloud, build.sample(96, 5))[METER_ID, build.EPOCH, 96] == GATEWAY.line(slots[0])


def test_another_time_or_none_under_a_stored_seq_is_a_conflict_and_not_a_second_reading(
    cloud: Cloud,
) -> None:
    first, second = build.slot(96, 1_000), build.slot(97, 1_400)
    undated = build.slot(at=UNDATED, export_wh=1_500)
    cloud.take(GATEWAY.sends(first, second, undated))
    before = cloud.readings()

    refused = codes(
        cloud,
        moved(second, 60_000),
        build.slot(at=build.stamp(96, clock=ClockQuality.UNSYNCHRONISED), export_wh=1_000),
        build.slot(at=build.stamp(98), export_wh=1_500),
        build.sample(97, 5),
    )

    assert refused == ["ConflictingReading"] * 4
    assert codes(cloud, first, second, undated) == []
    assert cloud.readings() == before


def test_a_reading_that_was_dated_since_is_known_when_its_line_comes_again(cloud: Cloud) -> None:
    undated = build.slot(at=UNDATED, export_wh=1_500)
    cloud.take(GATEWAY.sends(build.slot(96, 1_000), undated))
    cloud.take(GATEWAY.sends(build.clock_record(1, mono_ms=0, wall_ms=NOON_MS)))
    (dated,) = cloud.rows("SELECT reading_timestamp_ms FROM meter_readings WHERE seq = 98")

    outcome = cloud.take(GATEWAY.sends(undated))

    assert dated != (None,)
    assert outcome.tally == {"duplicate": 1}


def test_the_same_seq_and_time_of_another_epoch_is_another_reading(cloud: Cloud) -> None:
    mine = build.slot(96, 1_000)
    other = build.slot(at=build.stamp(96, epoch=OTHER_EPOCH), export_wh=1_000)
    cloud.take(GATEWAY.sends(mine))

    assert codes(cloud, other) == []

    lines = loaded(cloud, mine, other)
    assert lines[METER_ID, build.EPOCH, 96] == GATEWAY.line(mine)
    assert lines[METER_ID, OTHER_EPOCH, 96] == GATEWAY.line(other)


def test_a_different_line_of_a_reading_that_stays_is_a_conflict_though_others_are_archived(
    cloud: Cloud,
) -> None:
    slots = [build.slot(seq, 1_000) for seq in (96, 97, 98)]
    cloud.take(GATEWAY.sends(*slots))
    with cloud.database.transaction() as tx:
        tx.execute("UPDATE meter_epochs SET archived_through_seq = 97")
        tx.execute("DELETE FROM meter_readings WHERE seq = 97")

    refused = codes(cloud, moved(slots[0], 60_000), moved(slots[1], 60_000), slots[1])

    assert refused == ["ConflictingReading"]
    assert cloud.service.totals["duplicate"] == 2


def test_a_line_that_comes_again_is_not_searched_for(cloud: Cloud) -> None:
    if cloud.database.connection.dialect.locks_rows:
        pytest.skip("the plan of SQLite")
    ran: list[str] = []
    cloud.take(GATEWAY.sends(build.slot(96, 1_000), build.slot(97, 1_400)))
    read = sqlite_of(cloud.database).connection
    read.set_trace_callback(ran.append)
    loaded(cloud, build.slot(96, 1_000), moved(build.slot(97, 1_400), 60_000))
    read.set_trace_callback(None)

    plans = [
        str(row["detail"])
        for sql in ran
        if "r.line" in sql and "meter_readings" in sql
        for row in read.execute(f"EXPLAIN QUERY PLAN {sql}")
    ]

    found = [plan for plan in plans if plan.startswith("SEARCH r")]
    assert len(found) == 3, plans
    assert any("(meter_id=? AND at_ms=? AND seq=?)" in plan for plan in found), plans
    assert not any(plan.startswith("SCAN r") for plan in plans), plans
