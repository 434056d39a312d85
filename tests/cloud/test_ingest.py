"""From lines to commits: what is stored, credited, told and receipted, over a real store."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.ingest import SqlIngestStore
from gridtokenx_cloud.adapters.verifier import verify
from gridtokenx_cloud.errors import StoreRefusedError
from gridtokenx_cloud.ingest import IngestService, Message
from gridtokenx_cloud.ports.ingest import Books, Changes, Identity, IngestStore, IngestUnit
from gridtokenx_cloud.verify import ReadingRules
from gridtokenx_wire.receipt import LineRejection, decode_receipt
from gridtokenx_wire.record import ClockQuality, EventRecord, SlotRecord
from gridtokenx_wire.signing import signer, verify_ed25519
from tests.support import build_cloud as build
from tests.support.build_cloud import GATEWAY, METER_ID, OTHER_GATEWAY, Cloud
from tests.support.store_rows import told


@pytest.fixture
def cloud(new_store: Callable[[], Database]) -> Iterator[Cloud]:
    with build.cloud(new_store()) as made:
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


def _dates(cloud: Cloud) -> list[tuple[object, ...]]:
    return cloud.rows("SELECT seq, reading_timestamp_ms FROM meter_readings ORDER BY seq")


def _undated(seq: int) -> SlotRecord:
    return build.slot(
        seq, 1_000, at=build.stamp(seq, wall_ms=seq, clock=ClockQuality.UNSYNCHRONISED)
    )


CLOCKS = {
    "rough": build.clock_record(1, mono_ms=0, wall_ms=build.NOON_MS, error_ms=5_000),
    "unsure": build.clock_record(
        2, mono_ms=0, wall_ms=build.NOON_MS + 70, error_ms=0, clock=ClockQuality.HOLDOVER
    ),
    "good": build.clock_record(3, mono_ms=9_000, wall_ms=build.NOON_MS + 8_000, error_ms=10),
    "again": build.clock_record(4, mono_ms=9_500, wall_ms=build.NOON_MS + 8_501, error_ms=10),
}


@pytest.mark.parametrize(
    "order",
    [
        ("rough", "unsure", "good", "again"),
        ("again", "good", "unsure", "rough"),
        ("good", "rough", "again", "unsure"),
        ("unsure", "again", "rough", "good"),
    ],
)
def test_the_best_clock_record_of_a_boot_dates_it_in_whatever_order_they_come(
    cloud: Cloud, order: tuple[str, ...]
) -> None:
    cloud.take(GATEWAY.sends(_undated(1)))
    for name in order:
        cloud.take(GATEWAY.sends(CLOCKS[name]))
    cloud.take(GATEWAY.sends(_undated(2)))

    true_ms = build.NOON_MS - 1_000
    assert _dates(cloud) == [(1, true_ms + build.SLOT_MS), (2, true_ms + 2 * build.SLOT_MS)]


def test_a_reading_with_a_date_of_its_own_keeps_it_whatever_the_clock_records_say(
    cloud: Cloud,
) -> None:
    cloud.take(GATEWAY.sends(build.slot(96, 1_000)))

    cloud.take(GATEWAY.sends(CLOCKS["rough"]), GATEWAY.sends(CLOCKS["good"]))

    assert _dates(cloud) == [(96, build.stamp(96).wall_ms)]


def test_an_event_record_is_kept_as_it_came(cloud: Cloud) -> None:
    record = EventRecord(stamp=build.stamp(1), event="MeterDown", detail="no answer")

    cloud.take(GATEWAY.sends(record))

    assert cloud.rows("SELECT stream, seq, event, detail, line FROM gateway_records") == [
        (METER_ID, 1, "MeterDown", "no answer", GATEWAY.line(record))
    ]


def test_a_reading_that_came_too_old_turns_late_once_a_newer_one_credits_it(cloud: Cloud) -> None:
    day = 96
    cloud.take(GATEWAY.sends(build.slot(1, 1_000)))
    cloud.clock.at_ms += 30 * 86_400_000

    cloud.take(GATEWAY.sends(build.slot(50, 1_500)))
    held = cloud.readings()
    cloud.take(GATEWAY.sends(build.slot(100 + 30 * day, 9_000)))

    assert held == [(1, "accepted", 0, None), (50, "held", 0, "ReadingTooOld")]
    assert cloud.readings()[1:] == [
        (50, "late", 0, None),
        (100 + 30 * day, "accepted", 8_000, None),
    ]


def test_readings_too_old_before_any_baseline_stay_with_the_operator(cloud: Cloud) -> None:
    cloud.clock.at_ms += 30 * 86_400_000

    cloud.take(GATEWAY.sends(build.slot(50, 1_500)))
    cloud.take(GATEWAY.sends(build.slot(100 + 30 * 96, 9_000)))

    assert cloud.readings()[0] == (50, "held", 0, "ReadingTooOld")


def test_every_stored_slot_is_told_to_its_owner_and_to_operators(cloud: Cloud) -> None:
    cloud.take(GATEWAY.sends(build.slot(96, 1_000), build.slot(97, 150)))

    assert told(cloud.database) == [
        (stream, offset, name)
        for stream in ("admin", "user:ann")
        for offset, name in enumerate(
            ("MeterReadingReceived", "MeterReadingReceived", "MeterReadingValidationFailed"), 1
        )
    ]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gridtokenx/v1/+/readings", "BadTopic"),
        ("gridtokenx/v1/#", "BadTopic"),
        ("gridtokenx/v1//readings", "BadTopic"),
        (f"gridtokenx/v1/{GATEWAY.gateway_id}/receipts", "BadTopic"),
        ("\ud800\x00", "BadTopic"),
        (f"gridtokenx/v1/{build.wallet(9)}/readings", "UnknownGateway"),
    ],
)
def test_a_message_from_nowhere_is_kept_as_refused_and_gets_no_receipt(
    cloud: Cloud, name: str, told: str
) -> None:
    outcome = cloud.take(Message(name, GATEWAY.line(build.slot(96, 1_000))))

    assert outcome.receipts == []
    assert cloud.rows("SELECT code FROM rejections") == [(told,)]
    assert cloud.readings() == []


def test_a_line_under_the_seq_of_a_sample_is_a_conflict(cloud: Cloud) -> None:
    cloud.take(GATEWAY.sends(build.sample(96, 5), build.slot(97, 1_000)))

    outcome = cloud.take(GATEWAY.sends(build.slot(96, 900), build.sample(97, 5)))

    assert [r.code for r in build.receipt(outcome).rejected] == ["ConflictingReading"] * 2
    assert cloud.readings() == [(97, "accepted", 0, None)]


class PickyStore:
    """`IngestStore` that never takes one of the readings."""

    def __init__(self, store: IngestStore, never_seq: int) -> None:
        self._store = store
        self._never_seq = never_seq

    @contextmanager
    def transaction(self) -> Iterator[IngestUnit]:
        with self._store.transaction() as unit:
            yield PickyUnit(unit, self._never_seq)


@dataclass
class PickyUnit:
    unit: IngestUnit
    never_seq: int

    def load(self, gateway_ids: Iterable[str], wanted: Iterable[Identity]) -> Books:
        return self.unit.load(gateway_ids, wanted)

    def save(self, changes: Changes) -> None:
        self.unit.save(changes)
        if any(new.slot.stamp.seq == self.never_seq for new in changes.readings):
            raise StoreRefusedError("a row the store never takes")


def test_a_line_the_store_never_takes_is_set_aside_and_its_neighbours_stored(cloud: Cloud) -> None:
    service = IngestService(
        PickyStore(SqlIngestStore(cloud.database), 97),
        verify,
        signer(build.CLOUD_KEY),
        ReadingRules,
        build.TOKEN,
        cloud.clock,
    )

    outcome = service.process([GATEWAY.sends(*(build.slot(s, s * 10) for s in (96, 97, 98)))])

    assert [row[0] for row in cloud.readings()] == [96, 98]
    told = {r.code for _, payload in outcome.receipts for r in _told(payload)}
    assert told == {"StoreRefused"}


def _told(payload: bytes) -> tuple[LineRejection, ...]:
    key = build.CLOUD_KEY.public_key().public_bytes_raw()
    return decode_receipt(payload, key, verify_ed25519).rejected


def test_one_receipt_per_gateway_tells_of_the_whole_batch(cloud: Cloud) -> None:
    other = OTHER_GATEWAY.sends(build.slot(at=build.stamp(96, meter_id="HOUSE-18")))

    outcome = cloud.take(GATEWAY.sends(build.slot(96)), other, GATEWAY.sends(build.slot(97)))

    assert len(outcome.receipts) == 2
    assert build.receipt(outcome).durable == {METER_ID: {build.EPOCH: ((96, 97),)}}
    assert build.receipt(outcome, OTHER_GATEWAY).durable == {"HOUSE-18": {build.EPOCH: ((96, 96),)}}
