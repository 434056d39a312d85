"""One contract for the outbox: the fake and both databases."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from gridtokenx_cloud.adapters.store.events import SqlEventStore
from gridtokenx_cloud.events import from_json
from gridtokenx_cloud.ports.events import EventStore, StreamHead
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
    assert list(outbox.store.read_after(0, 10)) == []


def test_events_come_in_order_of_commits_over_all_streams(outbox: Outbox) -> None:
    for stream in ("user:a", "user:b", "user:a"):
        outbox.append(stream)

    first, *rest = outbox.store.read_after(0, 10)

    assert (first.stream, first.offset, first.type) == ("user:a", 1, "MeterReadingReceived")
    assert from_json(first.body) == build.slot()
    assert [(event.stream, event.offset) for event in rest] == [("user:b", 1), ("user:a", 2)]
    assert outbox.store.last_number() == rest[-1].event_number
    assert list(outbox.store.read_after(first.event_number, 1)) == rest[:1]


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
