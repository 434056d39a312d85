"""Many rows in one call come to the same as one by one, in any store."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.errors import StoreRefusedError
from tests.support import build_cloud as build
from tests.support.stores import sqlite_of

_USER = "INSERT INTO users (user_id, wallet, created_at_ms) VALUES (?, ?, ?)"
_STREAM = "INSERT INTO event_streams (stream, epoch, last_offset)\nVALUES (?, ?, ?)"
_MOVED = f"{_STREAM}\nON CONFLICT (stream) DO UPDATE SET last_offset = excluded.last_offset"


@pytest.fixture
def database(new_store: Callable[[], Database]) -> Iterator[Database]:
    store = new_store()
    yield store
    store.close()


def users(count: int) -> list[tuple[str, str, int]]:
    return [(f"user-{number:02}", f"wallet-{number}", number) for number in range(count)]


@pytest.mark.parametrize("count", [0, 1, 19, 20, 21, 40, 45])
def test_every_row_is_inserted_once_and_as_it_was_given(database: Database, count: int) -> None:
    with database.transaction() as tx:
        tx.executemany(_USER, iter(users(count)))

    found = database.connection.execute("SELECT user_id, wallet, created_at_ms FROM users")

    assert sorted(map(tuple, found)) == users(count)


def test_rows_that_are_there_are_changed_and_the_others_inserted(database: Database) -> None:
    names = [f"s{number}" for number in range(45)]
    with database.transaction() as tx:
        tx.executemany(_MOVED, [(name, "e", 1) for name in names[:30]])
        tx.executemany(_MOVED, [(name, "e", 2) for name in names[15:]])

    found = database.connection.execute("SELECT stream, last_offset FROM event_streams")

    assert dict(map(tuple, found)) == {n: 1 + (names.index(n) >= 15) for n in names}


def test_one_row_that_cannot_be_stored_refuses_all(database: Database) -> None:
    rows = [*users(30), ("user-99", "wallet-3", 0)]

    with pytest.raises(StoreRefusedError), database.transaction() as tx:
        tx.executemany(_USER, rows)

    assert database.connection.execute("SELECT * FROM users").fetchall() == []


def test_sqlite_is_given_twenty_rows_a_statement(tmp_path: Path) -> None:
    with build.cloud(tmp_path) as cloud, cloud.database.transaction() as tx:
        ran: list[str] = []
        sqlite_of(cloud.database).connection.set_trace_callback(ran.append)
        tx.executemany(_MOVED, [(f"s{number}", "e", 1) for number in range(42)])

    assert len([sql for sql in ran if "INSERT" in sql]) == 2 + 2
