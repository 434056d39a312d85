"""What ingest relies on in any store: all or nothing, one writer, exact credits in any order."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.ingest import SqlIngestStore
from gridtokenx_cloud.adapters.store.stored_seqs import ask_ranges, ranges_of
from gridtokenx_cloud.errors import StoreBusyError, StoreRefusedError
from gridtokenx_cloud.intake import Intake
from gridtokenx_cloud.opened import OpenedLine, identity_of
from gridtokenx_cloud.ports.ingest import Changes, IngestStore
from gridtokenx_cloud.verify import ReadingRules
from gridtokenx_wire.record import SlotRecord, Stamp
from tests.support import build_cloud as build
from tests.support.build_cloud import GATEWAY, METER_ID, Cloud
from tests.support.stores import another, sqlite_of

KEY = (METER_ID, build.EPOCH)
_epochs = count(1)


@pytest.fixture(scope="module")
def cloud(new_store: Callable[[], Database]) -> Iterator[Cloud]:
    """Give one store for the module; each test counts in an epoch of its own."""
    with build.cloud(new_store(), epoch_policy="any") as made:
        yield made


@pytest.fixture
def own(new_store: Callable[[], Database]) -> Iterator[Cloud]:
    with build.cloud(new_store()) as made:
        yield made


IMPATIENT = {False: "PRAGMA busy_timeout = 1", True: "SET lock_timeout = '10ms'"}


class _UndoneError(Exception):
    pass


@contextmanager
def writing_elsewhere(cloud: Cloud) -> Iterator[None]:
    """Let another process be in the middle of a change that does not come to its end."""
    other = another(cloud.database)
    try:
        with suppress(_UndoneError), other.transaction() as tx:
            tx.execute("UPDATE meters SET rated_power_w = 9000")
            yield
            raise _UndoneError
    finally:
        other.close()


def in_time_of_its_own(epoch: str, seq: int) -> Stamp:
    """Return a stamp in seconds that no other epoch of the meter covers."""
    wall_ms = build.NOON_MS - int(epoch, 16) * 20_000 + seq * 1_000
    return build.stamp(seq, epoch=epoch, wall_ms=wall_ms)


def changes_of(store: IngestStore, *slots: SlotRecord) -> Changes:
    """Return what these readings would change, without a commit."""
    with store.transaction() as unit:
        books = unit.load(
            {GATEWAY.gateway_id}, [identity_of(GATEWAY.gateway_id, slot) for slot in slots]
        )
    intake = Intake(books, ReadingRules(), build.TOKEN, build.NOON_MS)
    for slot in slots:
        intake.take(OpenedLine(GATEWAY.gateway_id, GATEWAY.line(slot), slot))
    return intake.changes


def save(store: IngestStore, changes: Changes) -> None:
    with store.transaction() as unit:
        unit.save(changes)


def test_what_one_unit_saves_the_next_one_loads(own: Cloud) -> None:
    store = SqlIngestStore(own.database)
    slots = [build.slot(96, 1_000), build.slot(97, 1_400)]
    save(store, changes_of(store, *slots))

    with store.transaction() as unit:
        books = unit.load(
            {GATEWAY.gateway_id, "unknown"},
            [identity_of(GATEWAY.gateway_id, slot) for slot in slots],
        )

    assert books.gateways == {GATEWAY.gateway_id: "active"}
    assert books.meters == {METER_ID: build.meter()}
    assert books.ranges == {KEY: ((96, 97),)}
    assert books.lines[(*KEY, 97)] == GATEWAY.line(slots[1])
    last_id = max(int(str(row[0])) for row in own.rows("SELECT reading_id FROM meter_readings"))
    assert [*books.reading_ids] == [last_id + 1, last_id + 2]
    span = books.epochs[KEY].span
    assert span is not None
    assert (span.baseline_wh, span.credited_through_wh) == (1_000, 1_400)
    assert (span.first.seq, span.newest.seq) == (96, 97)
    assert span.newest.reading_id == last_id


def test_a_row_the_store_never_takes_leaves_nothing_of_its_batch(own: Cloud) -> None:
    store = SqlIngestStore(own.database)
    changes = changes_of(store, build.slot(96, 1_000), build.slot(97, 1_400))
    changes.readings[1] = replace(changes.readings[1], credit_wh=-1)

    with pytest.raises(StoreRefusedError):
        save(store, changes)

    assert own.readings() == []
    assert own.rows("SELECT * FROM seq_ranges") == []
    assert own.rows("SELECT * FROM meter_epochs") == []
    assert own.rows("SELECT * FROM events") == []


def test_a_store_that_another_process_writes_to_is_busy_and_not_broken(own: Cloud) -> None:
    read = own.database.connection
    read.execute(IMPATIENT[read.dialect.locks_rows])

    with writing_elsewhere(own), pytest.raises(StoreBusyError):
        own.take(GATEWAY.sends(build.slot(96, 1_000)))

    own.take(GATEWAY.sends(build.slot(96, 1_000)))
    assert len(own.readings()) == 1


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.integers(0, 2_000), min_size=1, max_size=8).flatmap(
        lambda moves: st.tuples(
            st.just(moves),
            st.lists(
                st.lists(st.integers(1, len(moves)), min_size=1, max_size=5),
                min_size=1,
                max_size=6,
            ),
        )
    )
)
def test_any_order_repetition_and_batching_credits_what_the_register_moved(
    cloud: Cloud, arrivals: tuple[list[int], list[list[int]]]
) -> None:
    moves, batches = arrivals
    epoch = f"{next(_epochs):016x}"
    registers = {seq: sum(moves[:seq]) for seq in range(1, len(moves) + 1)}

    receipt = None
    for batch in batches:
        slots = [
            build.slot(at=in_time_of_its_own(epoch, seq), export_wh=registers[seq]) for seq in batch
        ]
        receipt = build.receipt(cloud.take(GATEWAY.sends(*slots)))
        assert all(receipt.covers(METER_ID, epoch, seq) for seq in batch)

    arrived = {seq for batch in batches for seq in batch}
    seen = [registers[seq] for seq in arrived]
    moved_wh = max(seen) - min(seen)
    assert cloud.rows(
        "SELECT count(*), sum(credit_wh) FROM meter_readings WHERE epoch = ?", epoch
    ) == [(len(arrived), moved_wh)]
    assert cloud.rows(
        "SELECT credited_through_wh - baseline_wh FROM meter_epochs WHERE epoch = ?", epoch
    ) == [(moved_wh,)]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=12),
    st.sets(st.integers(1, 30), min_size=1, max_size=6),
)
def test_the_ranges_near_the_asked_for_are_found_and_are_whole(
    cloud: Cloud, stored: list[int], asked: set[int]
) -> None:
    epoch = f"{next(_epochs):016x}"
    for seq in stored:
        cloud.take(GATEWAY.sends(build.sample(seq, 1, at=build.stamp(seq, epoch=epoch))))

    key = (METER_ID, epoch)
    touched = {key: asked}
    found = ranges_of(ask_ranges(cloud.database.connection, touched), touched)[key]

    near = {seq + step for seq in asked for step in (-1, 0, 1)}
    covered = {seq for first, last in found for seq in range(first, last + 1)}
    assert near & covered == near & set(stored)
    assert all({first - 1, last + 1}.isdisjoint(stored) for first, last in found)


def test_two_workers_with_the_same_lines_store_and_credit_them_once(own: Cloud) -> None:
    messages = [GATEWAY.sends(build.slot(seq, seq * 100)) for seq in range(40, 100)]
    failures: list[BaseException] = []

    def work(order: list[int]) -> None:
        try:
            for at in order:
                own.service.process([messages[at]])
        except BaseException as exc:  # noqa: BLE001 - told by the assertion below
            failures.append(exc)

    orders = [list(range(60)), list(reversed(range(60)))]
    threads = [threading.Thread(target=work, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert own.rows("SELECT count(*), sum(credit_wh) FROM meter_readings") == [(60, 5_900)]
    assert own.rows("SELECT first_seq, last_seq FROM seq_ranges") == [(40, 99)]
    assert own.rows("SELECT last_offset FROM event_streams") == [(60,), (60,)]


def test_no_query_of_ingest_reads_a_whole_table(tmp_path: Path) -> None:
    with build.cloud(tmp_path) as own:
        plans = plans_of_ingest(own)

    assert plans
    scans = [plan for plan in plans if plan.startswith("SCAN")]
    assert [plan for plan in scans if not re.search("CONSTANT|VIRTUAL TABLE|SCAN k", plan)] == []


def plans_of_ingest(own: Cloud) -> list[str]:
    plans: list[str] = []
    asked: list[str] = []
    sqlite_of(own.database).connection.set_trace_callback(asked.append)
    own.take(
        GATEWAY.sends(
            build.slot(96, 1_000),
            build.sample(97, 5),
            build.clock_record(1, mono_ms=1, wall_ms=build.NOON_MS),
        ),
        GATEWAY.message(b"noise"),
    )
    own.take(GATEWAY.sends(build.slot(96, 1_000), build.slot(98, 1_100)))
    sqlite_of(own.database).connection.set_trace_callback(None)
    for sql in asked:
        if sql.split()[0] in {"SELECT", "UPDATE", "DELETE"}:
            plans += [
                str(row["detail"])
                for row in own.database.connection.execute(f"EXPLAIN QUERY PLAN {sql}")
            ]

    return plans


def test_refused_lines_that_come_together_are_kept_once_each_and_told_once(own: Cloud) -> None:
    own.take(GATEWAY.message(b"noise 2", b"noise 1", b"noise 2"))

    own.take(GATEWAY.message(b"noise 3", b"noise 1", b"noise 1"))

    kept = own.rows("SELECT line, times FROM rejections ORDER BY times")
    assert kept == [(b"noise 3", 1), (b"noise 2", 2), (b"noise 1", 3)]
    assert len(own.rows("SELECT * FROM events")) == 3
