"""One contract for the outbox: the fake and both databases."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.events import SqlEventStore
from gridtokenx_cloud.adapters.store.migrate import migrate, rollback
from gridtokenx_cloud.adapters.store.outbox import append_event
from gridtokenx_cloud.events import from_json
from gridtokenx_cloud.ports.events import EventStore, StreamHead, Tail
from tests.support import build_events as build
from tests.support.fake_events import FakeEventStore
from tests.support.store_rows import StoreRows
from tests.support.stores import migrated


class Outbox(NamedTuple):
    store: EventStore
    append: Callable[[str], None]


@pytest.fixture(
    params=["fake", "sqlite", pytest.param("postgresql", marks=pytest.mark.integration)]
)
def outbox(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Outbox]:
    if request.param == "fake":
        fake = FakeEventStore()
        yield Outbox(fake, lambda stream: fake.append(stream, build.slot()))
        return
    url = f"sqlite:///{tmp_path / 'cloud.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").new_database()
    rows = StoreRows(migrated(url))
    yield Outbox(SqlEventStore(rows.database), lambda stream: rows.event((stream,), build.slot()))
    rows.database.close()


def test_an_empty_outbox_has_no_events(outbox: Outbox) -> None:
    assert outbox.store.last_number() == 0
    assert outbox.store.read_after(0, 10) == Tail(events=[], last_number=0, more=False)


def test_events_come_in_order_of_commits_over_all_streams(outbox: Outbox) -> None:
    for stream in ("user:a", "user:b", "user:a"):
        outbox.append(stream)

    first, *rest = outbox.store.read_after(0, 10).events

    assert (first.stream, first.offset, first.type) == ("user:a", 1, "MeterReadingReceived")
    assert from_json(first.body) == build.slot()
    assert [(event.stream, event.offset) for event in rest] == [("user:b", 1), ("user:a", 2)]
    assert outbox.store.last_number() == rest[-1].event_number
    assert outbox.store.read_after(first.event_number, 1) == Tail(
        events=rest[:1], last_number=rest[0].event_number, more=True
    )


def test_only_streams_that_matter_are_read_and_the_others_passed_by(outbox: Outbox) -> None:
    for stream in ("user:a", "user:b", "user:a", "user:b"):
        outbox.append(stream)

    tail = outbox.store.read_after(0, 10, {"user:a", "user:c"})

    assert [(event.stream, event.offset) for event in tail.events] == [("user:a", 1), ("user:a", 2)]
    assert (tail.last_number, tail.more) == (outbox.store.last_number(), False)


def test_a_stream_has_an_epoch_before_its_first_event_and_keeps_it(outbox: Outbox) -> None:
    outbox.store.ensure_stream("user:a")
    before = outbox.store.head("user:a")

    outbox.append("user:a")
    outbox.store.ensure_stream("user:a")

    assert before.last_offset == 0
    assert outbox.store.head("user:a") == StreamHead(before.epoch, 1)


def test_history_is_the_asked_part_of_one_stream(outbox: Outbox) -> None:
    for stream in ("user:a", "user:b", "user:a", "user:a", "user:a"):
        outbox.append(stream)

    part = outbox.store.history("user:a", after=1, through=3)

    assert [(event.stream, event.offset) for event in part] == [("user:a", 2), ("user:a", 3)]


@pytest.fixture
def told(new_store: Callable[[], Database]) -> Iterator[Database]:
    database = new_store()
    with database.transaction() as tx:
        for streams in (("user:a", "admin"), ("admin",), ("user:b", "admin"), ("user:a",)):
            append_event(tx, streams, build.slot(), 1_000)
    yield database
    database.close()


def test_what_an_owner_and_the_staff_are_told_has_a_name_in_both_streams(told: Database) -> None:
    store = SqlEventStore(told)
    epochs = {name: store.head(name).epoch for name in ("user:a", "user:b", "admin")}

    events = store.read_after(0, 100).events

    assert [(event.event_number, event.stream, event.offset) for event in events] == [
        (1, "user:a", 1),
        (1, "admin", 1),
        (2, "admin", 2),
        (3, "user:b", 1),
        (3, "admin", 3),
        (4, "user:a", 2),
    ]
    for event in events:
        name = f"{epochs[event.stream]}-{event.stream}-{event.offset}"
        assert json.loads(event.body)["id"] == name
        assert from_json(event.body) == build.slot()
    assert store.history("admin", 1, 3) == [one for one in events if one.stream == "admin"][1:]
    assert store.history("user:a", 0, 2) == [one for one in events if one.stream == "user:a"]
    assert store.read_after(2, 1).events == events[3:5]


def test_the_outbox_is_the_same_one_schema_back_and_forth_again(told: Database) -> None:
    store = SqlEventStore(told)
    before = [store.history(name, 0, 10) for name in ("admin", "user:a", "user:b")]

    rollback(told, to=8)
    rows = told.connection.execute("SELECT stream, stream_offset, body FROM events").fetchall()
    migrate(told)

    with told.transaction() as tx:
        append_event(tx, ("user:b", "admin"), build.slot(), 2_000)
    after = [store.history(name, 0, 10) for name in ("admin", "user:a", "user:b")]
    assert sorted(tuple(row) for row in rows) == sorted(
        (event.stream, event.offset, event.body) for stream in before for event in stream
    )
    assert [[(one.offset, one.body) for one in stream] for stream in before] == [
        [(one.offset, one.body) for one in stream][: len(was)]
        for stream, was in zip(after, before, strict=True)
    ]
    assert [len(stream) for stream in after] == [4, 2, 2]
