"""Readings of one meter are one row of the outbox, and the same events as ever to who reads it."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.events import SqlEventStore
from gridtokenx_cloud.adapters.store.migrate import migrate, rollback
from gridtokenx_cloud.adapters.store.outbox import append_events
from gridtokenx_cloud.broadcast import Broadcast
from gridtokenx_cloud.errors import StoreRefusedError
from gridtokenx_cloud.event_protocol import Connect, ResumePoint
from gridtokenx_cloud.events import ADMIN_STREAM, MarketEvent, to_json, user_stream
from gridtokenx_cloud.ports.ingest import NewReading
from gridtokenx_cloud.reading_events import received_event
from gridtokenx_cloud.remarks import Remark
from gridtokenx_cloud.verify import Meter
from gridtokenx_wire.record import LiveValues
from tests.support import build_cloud as build
from tests.support import build_events
from tests.support.build_cloud import FakeClock
from tests.support.fake_events import FakeOutlet

AT_MS = build.NOON_MS
METERS = (
    build.meter("HOUSE-1"),
    replace(build.meter('BARN "2" é'), user_id="bob", wallet=build.wallet(2)),
    build.meter("SHED-3"),
    # The first one in other hands.
    replace(build.meter("HOUSE-1"), user_id="bob", wallet=build.wallet(2)),
)
STREAMS = (ADMIN_STREAM, "user:ann", "user:bob", "user:zoe")
Told = tuple[tuple[str, ...], MarketEvent]


@dataclass(frozen=True)
class Commit:
    """What one transaction writes."""

    readings: tuple[NewReading, ...] = ()
    told: tuple[Told, ...] = ()


def reading(
    reading_id: int = 1,
    meter: Meter = METERS[0],
    *,
    credit_wh: int = 0,
    dated_ms: int | None = AT_MS,
    live: LiveValues | None = None,
) -> NewReading:
    return NewReading(
        reading_id=reading_id,
        slot=build.slot(reading_id, 1_000 + credit_wh, live=live),
        gateway_id=meter.gateway_id,
        meter=meter,
        dated_ms=dated_ms,
        status="accepted",
        credit_wh=credit_wh,
        code=None,
        remarks=Remark(0),
        line=b"",
    )


class Model:
    """The outbox as one event after the other: (stream, offset, body)."""

    def __init__(self, store: SqlEventStore) -> None:
        self.store = store
        self.events: list[tuple[str, int, str]] = []

    def add(self, commit: Commit) -> None:
        meters = [(new.meter.meter_id, new.meter.user_id) for new in commit.readings]
        by_meter = sorted(
            commit.readings, key=lambda new: meters.index((new.meter.meter_id, new.meter.user_id))
        )
        for new in by_meter:
            event = received_event(
                new.meter, new.slot, new.reading_id, new.dated_ms, new.status, new.credit_wh
            )
            self._tell((user_stream(new.meter.user_id), ADMIN_STREAM), event)
        for streams, told in commit.told:
            self._tell(streams, told)

    def _tell(self, streams: Sequence[str], event: MarketEvent) -> None:
        for stream in streams:
            offset = len(self.of(stream)) + 1
            name = f"{self.store.head(stream).epoch}-{stream}-{offset}"
            self.events.append((stream, offset, to_json(event, name, AT_MS)))

    def of(self, stream: str) -> list[tuple[str, int, str]]:
        return [event for event in self.events if event[0] == stream]


def tailed(
    store: SqlEventStore, limit: int, streams: set[str] | None = None
) -> list[tuple[str, int, str]]:
    """Read from the beginning as the events server does."""
    found: list[tuple[str, int, str]] = []
    at, more = 0, True
    while more:
        tail = store.read_after(at, limit, streams)
        assert tail.more or tail.last_number == store.last_number()
        assert len(tail.events) < 2 * (limit + 100)
        found += [(event.stream, event.offset, event.body) for event in tail.events]
        at, more = tail.last_number, tail.more
    return found


def part(store: SqlEventStore, stream: str, after: int, through: int) -> list[tuple[str, int, str]]:
    events = store.history(stream, after, through)
    return [(event.stream, event.offset, event.body) for event in events]


numbers = st.one_of(st.none(), st.integers(-(2**40), 2**40))
readings = st.builds(
    reading,
    st.integers(1, 2**60),
    st.sampled_from(METERS),
    credit_wh=st.integers(0, 2**40),
    dated_ms=st.one_of(st.none(), st.integers(0, 253_402_300_799_999)),
    live=st.builds(
        LiveValues,
        active_power_w=numbers,
        voltage_mv=numbers,
        current_ma=numbers,
        frequency_mhz=numbers,
    ),
)
told = st.tuples(
    st.lists(st.sampled_from(STREAMS), min_size=1, max_size=2, unique=True).map(tuple),
    st.sampled_from((build_events.slot(), build_events.minted(), build_events.completed())),
)
commits = st.builds(
    Commit,
    st.lists(readings, max_size=12).map(tuple),
    st.lists(told, max_size=3).map(tuple),
)


@pytest.fixture(scope="module")
def database(new_store: Callable[[], Database]) -> Iterator[Database]:
    made = new_store()
    yield made
    made.close()


def written(database: Database, all_commits: Sequence[Commit]) -> Model:
    """Write an outbox from its beginning, and its model."""
    model = Model(SqlEventStore(database))
    with database.transaction() as tx:
        tx.execute("DELETE FROM events")
        tx.execute("DELETE FROM event_streams")
    for stream in STREAMS:
        model.store.ensure_stream(stream)
    for commit in all_commits:
        with database.transaction() as tx:
            append_events(tx, commit.told, AT_MS, commit.readings)
        model.add(commit)
    return model


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(commits, max_size=6), st.data())
def test_any_runs_and_events_read_as_one_event_after_the_other(
    database: Database, all_commits: list[Commit], data: st.DataObject
) -> None:
    model = written(database, all_commits)
    store = model.store

    for stream in STREAMS:
        expected = model.of(stream)
        assert store.head(stream).last_offset == len(expected)
        assert part(store, stream, 0, len(expected)) == expected
        after, through = (data.draw(st.integers(0, len(expected) + 2)) for _ in range(2))
        assert part(store, stream, after, through) == expected[after:through]
    limit = data.draw(st.integers(1, 40))
    assert sorted(tailed(store, limit)) == sorted(model.events)
    some = set(data.draw(st.lists(st.sampled_from(STREAMS))))
    for stream in STREAMS:
        found = [event for event in tailed(store, limit, some) if event[0] == stream]
        assert found == (model.of(stream) if stream in some else [])


def test_a_meter_s_readings_of_one_commit_are_one_row_and_many_are_several(
    database: Database,
) -> None:
    house, barn = METERS[:2]
    mixed = [reading(number, (house, barn)[number % 2]) for number in range(1, 41)]

    model = written(
        database, [Commit(tuple(mixed)), Commit(tuple(reading(n) for n in range(1, 251)))]
    )

    rows = database.connection.execute(
        "SELECT stream, stream_offset, admin_offset, run_length FROM events ORDER BY event_number"
    ).fetchall()
    assert [tuple(row) for row in rows] == [
        ("user:bob", 1, 1, 20),
        ("user:ann", 1, 21, 20),
        ("user:ann", 21, 41, 100),
        ("user:ann", 121, 141, 100),
        ("user:ann", 221, 241, 50),
    ]
    assert part(model.store, ADMIN_STREAM, 0, 290) == model.of(ADMIN_STREAM)
    for after, through in ((119, 121), (120, 120), (120, 121), (219, 222), (269, 270)):
        assert part(model.store, "user:ann", after, through) == model.of("user:ann")[after:through]


def test_a_run_takes_a_fraction_of_the_place_its_events_would(database: Database) -> None:
    live = LiveValues(
        active_power_w=-2_400, voltage_mv=230_100, current_ma=10_435, frequency_mhz=50_010
    )
    model = written(database, [Commit(tuple(reading(10**13 + n, live=live) for n in range(15)))])

    (size,) = database.connection.execute("SELECT sum(length(body)) FROM events").fetchone()

    assert size / 15 < 100
    assert all(len(body) > 500 for _, _, body in model.events)


def test_a_client_goes_on_in_the_middle_of_a_run(database: Database) -> None:
    model = written(database, [Commit(tuple(reading(number) for number in range(1, 6)))])
    hub = Broadcast(model.store, FakeClock())
    hub.pump(0.0)
    point = ResumePoint(stream="me", epoch=model.store.head("user:ann").epoch, offset=2)
    ann, desk = FakeOutlet(), FakeOutlet()

    hub.admit(build_events.owner("ann"), ann, Connect(ticket=None, streams=(point,)), 0.0)
    hub.admit(build_events.staff(), desk, Connect(ticket=None), 0.0)
    more = Commit((reading(6), reading(7)))
    with database.transaction() as tx:
        append_events(tx, more.told, AT_MS, more.readings)
    hub.pump(1.0)

    model.add(more)
    assert ann.frames[0]["streams"][0]["recovered"]
    assert ann.chain_holds(2)
    assert (ann.offsets(), desk.offsets()) == ([3, 4, 5, 6, 7], [6, 7])
    assert [frame["ev"] for frame in ann.frames[1:]] == [
        json.loads(body) for _, _, body in model.of("user:ann")[2:]
    ]


def test_no_row_holds_more_than_a_look_up_by_place_reaches_back(database: Database) -> None:
    written(database, [Commit((reading(),))])

    for length in (0, 101):
        with pytest.raises(StoreRefusedError), database.transaction() as tx:
            tx.execute("UPDATE events SET run_length = ?", (length,))


def test_without_runs_each_event_is_a_row_again_and_the_same(
    new_store: Callable[[], Database],
) -> None:
    failed: Told = (("user:ann", ADMIN_STREAM), build_events.refused())
    all_commits = [
        Commit((reading(1, credit_wh=5), reading(2, dated_ms=None)), (failed,)),
        Commit(tuple(reading(number, METERS[number % 4]) for number in range(3, 40)), (failed,)),
        Commit((reading(40),)),
    ]
    own = new_store()
    model = written(own, all_commits)

    rollback(own, to=9)
    sql = "SELECT stream, stream_offset, admin_offset, body FROM events"
    rows = own.connection.execute(sql).fetchall()
    migrate(own)

    assert len(rows) == len(model.of(ADMIN_STREAM))
    assert all(row["body"].startswith('{"source"') for row in rows)
    assert sorted(tailed(model.store, 7)) == sorted(model.events)
    for stream in STREAMS:
        assert part(model.store, stream, 0, 1_000) == model.of(stream)
    own.close()
