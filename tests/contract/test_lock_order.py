"""Whoever changes stored readings holds their meters first: no two wait for each other."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from gridtokenx_cloud.adapters.store.database import Connection, Database
from gridtokenx_cloud.adapters.store.held import SqlHeldReadings
from gridtokenx_cloud.adapters.store.ingest import SqlIngestUnit
from gridtokenx_cloud.adapters.store.ingest_load import lock_meter
from gridtokenx_cloud.adapters.verifier import verify
from gridtokenx_cloud.ingest import IngestService, Message
from gridtokenx_cloud.ports.ingest import IngestUnit
from gridtokenx_cloud.verify import ReadingRules
from gridtokenx_wire.record import ClockQuality
from gridtokenx_wire.signing import signer
from tests.support import build_cloud as build
from tests.support.build_cloud import GATEWAY, METER_ID, Cloud
from tests.support.stores import another

NEW_EPOCH = "00000000000000e2"
WAIT_S = 60.0
BLOCKED_SQL = "SELECT count(*) FROM pg_locks WHERE NOT granted"
TOUCH_SQL = "UPDATE meter_readings SET remarks = remarks WHERE seq = ?"


@pytest.fixture
def cloud(new_store: Callable[[], Database]) -> Iterator[Cloud]:
    """Give a store with two undated readings of an epoch that nobody confirmed.

    The one with the higher seq is stored first: by number and by seq are two orders.
    """
    with build.cloud(new_store(), epoch_policy="none") as made:
        if not made.database.connection.dialect.locks_rows:
            pytest.skip("there is one writer at a time")
        for seq in (2, 1):
            at = build.stamp(seq, epoch=NEW_EPOCH, clock=ClockQuality.UNSYNCHRONISED)
            made.take(GATEWAY.sends(build.slot(at=at, export_wh=seq * 100)))
        yield made


class Other:
    """Another worker or operator, in a thread and on a connection of its own."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as exc:  # noqa: BLE001 - told by `finish`
            self._failures.append(exc)

    def wait_until_blocked(self, database: Database) -> None:
        watch = another(database)
        pause = threading.Event()
        try:
            while watch.connection.execute(BLOCKED_SQL).fetchone()[0] == 0:
                assert self._thread.is_alive(), self._failures
                pause.wait(0.01)
        finally:
            watch.close()

    def finish(self) -> None:
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        assert self._failures == []


class PausedStore:
    """`IngestStore` that does something before each commit."""

    def __init__(self, database: Database, before_commit: Callable[[Connection], None]) -> None:
        self._database = database
        self._before_commit = before_commit

    @contextmanager
    def transaction(self) -> Iterator[IngestUnit]:
        with self._database.transaction() as tx:
            yield SqlIngestUnit(tx)
            self._before_commit(tx)


def clock_batch() -> Message:
    return GATEWAY.sends(build.clock_record(1, mono_ms=0, wall_ms=build.NOON_MS - 86_400_000))


def accept_epoch(cloud: Cloud) -> int:
    held = SqlHeldReadings(cloud.database, build.FakeClock(), actor="test")
    return held.accept_epoch(METER_ID, NEW_EPOCH, ReadingRules())


def touch(tx: Connection, *order: int) -> None:
    """Change both readings; an error when somebody else has one of them."""
    tx.execute("SET LOCAL lock_timeout = '1s'")
    for seq in order:
        tx.execute(TOUCH_SQL, (seq,))


def dated_and_credited(cloud: Cloud) -> list[tuple[object, ...]]:
    return cloud.rows(
        "SELECT seq, status, credit_wh, reading_timestamp_ms IS NOT NULL FROM meter_readings"
        " ORDER BY seq"
    )


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_a_clock_batch_waits_for_the_meter_before_it_touches_any_reading(
    cloud: Cloud, order: tuple[int, int]
) -> None:
    with cloud.database.transaction() as tx:
        lock_meter(tx, METER_ID)
        batch = Other(lambda: cloud.service.process([clock_batch()]))
        batch.wait_until_blocked(cloud.database)
        touch(tx, *order)
    batch.finish()

    assert dated_and_credited(cloud) == [(1, "held", 0, True), (2, "held", 0, True)]


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_an_epoch_is_accepted_behind_a_clock_batch_that_has_begun(
    cloud: Cloud, order: tuple[int, int]
) -> None:
    others: list[Other] = []

    def while_somebody_accepts(tx: Connection) -> None:
        others.append(Other(lambda: accept_epoch(cloud)))
        others[-1].wait_until_blocked(cloud.database)
        touch(tx, *order)

    service = IngestService(
        PausedStore(cloud.database, while_somebody_accepts),
        verify,
        signer(build.CLOUD_KEY),
        ReadingRules,
        build.TOKEN,
        cloud.clock,
    )

    service.process([clock_batch()])
    others[-1].finish()

    assert dated_and_credited(cloud) == [(1, "accepted", 0, True), (2, "accepted", 100, True)]


def test_a_line_that_waits_while_its_meter_changes_hands_counts(cloud: Cloud) -> None:
    with cloud.database.transaction() as tx:
        tx.execute("UPDATE meters SET user_id = 'bob' WHERE meter_id = ?", (METER_ID,))
        batch = Other(lambda: cloud.service.process([GATEWAY.sends(build.slot(9, 900))]))
        batch.wait_until_blocked(cloud.database)
    batch.finish()

    assert cloud.rows("SELECT code FROM rejections") == []
    assert cloud.rows("SELECT user_id FROM meter_readings WHERE seq = 9") == [("bob",)]
