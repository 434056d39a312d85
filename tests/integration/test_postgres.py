"""What only a real PostgreSQL shows: its schema, its locks, its dumps, its sudden end."""

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from gridtokenx_cloud.adapters.store.database import open_database
from gridtokenx_cloud.adapters.store.migrate import check_schema, migrate, rollback
from gridtokenx_cloud.adapters.store.postgres import PostgresDatabase
from gridtokenx_cloud.errors import ConfigError, SchemaError, StoreBusyError, StoreRefusedError
from gridtokenx_cloud.tokenization import owner_percentile
from tests.support import build_cloud as build
from tests.support.build_cloud import GATEWAY
from tests.support.postgres import Server, find_postgres, running_postgres
from tests.support.stores import another, migrated

pytestmark = pytest.mark.integration


@pytest.fixture
def database(postgres: Server) -> Iterator[PostgresDatabase]:
    opened = PostgresDatabase(postgres.new_database())
    yield opened
    opened.close()


def tables(database: PostgresDatabase) -> set[str]:
    rows = database.connection.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    )
    return {row[0] for row in rows}


def test_every_step_can_be_taken_back_with_data_and_taken_again(
    database: PostgresDatabase,
) -> None:
    taken = migrate(database)
    with database.transaction() as tx:
        tx.execute("INSERT INTO users VALUES ('ann', 'w', 0)")

    taken_back = rollback(database)

    assert taken == taken_back[::-1]
    assert tables(database) == {"schema_version"}
    with pytest.raises(SchemaError, match=r"lacks 0001.initial.*run `gtx-cloud migrate` first"):
        check_schema(database)
    assert migrate(database) == taken
    check_schema(database)


def test_two_programs_that_migrate_at_once_take_each_step_once(database: PostgresDatabase) -> None:
    taken: list[list[str]] = []

    def work() -> None:
        other = another(database)
        taken.append(migrate(other))
        other.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(map(len, taken))[:2] == [0, 0]
    assert len(taken) == 3
    check_schema(database)


def test_a_step_that_does_not_fit_changes_nothing(database: PostgresDatabase) -> None:
    database.connection.execute("CREATE TABLE mint_batches (x INTEGER)")

    with pytest.raises(SchemaError, match="already exists"):
        migrate(database)

    assert tables(database) == {"mint_batches"}


def test_a_store_of_a_newer_program_is_refused(database: PostgresDatabase) -> None:
    migrate(database)
    with database.transaction() as tx:
        database.set_schema_version(tx, 99)

    for refuse in (check_schema, migrate):
        with pytest.raises(SchemaError, match="has schema 99"):
            refuse(database)


def test_owners_have_the_same_percentile_in_the_database_as_in_the_program(
    database: PostgresDatabase,
) -> None:
    migrate(database)
    owners = [f"owner-{number}-é" for number in range(200)]

    told = [
        database.connection.execute("SELECT owner_percentile(?)", (owner,)).fetchone()
        for owner in owners
    ]

    assert told == [(owner_percentile(owner),) for owner in owners]


def test_a_backup_taken_in_use_restores_to_the_same_store(
    database: PostgresDatabase, postgres: Server, tmp_path: Path
) -> None:
    migrate(database)
    copy = tmp_path / "cloud.dump"
    with build.cloud(database) as cloud:
        cloud.take(GATEWAY.sends(build.slot(96, 1_000), build.slot(97, 1_400)))
        with another(database).transaction() as tx:
            tx.execute("UPDATE users SET wallet = 'not committed' WHERE user_id = 'ann'")
            database.backup(copy)
        url = postgres.new_database()
        subprocess.run(["pg_restore", "--no-owner", "-d", url, str(copy)], check=True)
        restored = PostgresDatabase(url)
        check_schema(restored)
        with build.cloud(restored) as again:
            again.take(GATEWAY.sends(build.slot(97, 1_400), build.slot(98, 1_500)))

            assert again.rows("SELECT seq, credit_wh FROM meter_readings ORDER BY seq") == [
                (96, 0),
                (97, 400),
                (98, 100),
            ]
            assert again.rows("SELECT wallet FROM users WHERE user_id = 'ann'") == [
                (build.wallet(1),)
            ]


def test_a_backup_that_cannot_be_made_says_why(database: PostgresDatabase, tmp_path: Path) -> None:
    gone = PostgresDatabase(database.url + "_gone")

    with pytest.raises(ConfigError, match="does not exist"):
        gone.backup(tmp_path / "cloud.dump")


def test_one_minter_at_a_time_also_when_the_first_one_vanishes(
    database: PostgresDatabase,
) -> None:
    first, second = another(database), another(database)
    assert isinstance(first, PostgresDatabase)
    holding = first.only_minter()

    with (
        holding,
        pytest.raises(ConfigError, match="another minter works on postgresql://"),
        second.only_minter(),
    ):
        pass
    vanishing = first.only_minter()
    vanishing.__enter__()
    first.close()
    with second.only_minter():
        pass


def test_what_the_database_does_not_take_is_told_apart_from_what_it_cannot_do_now(
    database: PostgresDatabase,
) -> None:
    migrate(database)
    for values in (("a\0b", "w", 0), ("a", "w", 2**63), ("a", None, 0), ("\ud800", "w", 0)):
        with pytest.raises(StoreRefusedError), database.transaction() as tx:
            tx.execute("INSERT INTO users VALUES (?, ?, ?)", values)
    with pytest.raises(StoreBusyError, match="no_such_table"):
        database.connection.execute("SELECT * FROM no_such_table")


def test_a_transaction_that_goes_on_after_its_own_error_is_not_taken_for_done(
    database: PostgresDatabase,
) -> None:
    migrate(database)

    def go_on() -> None:
        with database.transaction() as tx:
            for _ in range(2):
                with suppress(StoreRefusedError):
                    tx.execute("INSERT INTO users VALUES ('ann', 'w', 0)")

    with pytest.raises(StoreRefusedError, match="failed before its end"):
        go_on()

    assert database.connection.execute("SELECT count(*) FROM users").fetchone() == (0,)


def test_a_server_that_was_killed_is_found_again_and_kept_what_was_committed() -> None:
    if find_postgres() is None:
        pytest.skip("needs a PostgreSQL server of its own")
    with running_postgres() as server, build.cloud(migrated(server.new_database())) as cloud:
        cloud.take(GATEWAY.sends(build.slot(96, 1_000)))
        server.kill()

        with pytest.raises(StoreBusyError):
            cloud.take(GATEWAY.sends(build.slot(97, 1_400)))
        server.start()
        cloud.take(GATEWAY.sends(build.slot(96, 1_000), build.slot(97, 1_400)))

        assert cloud.readings() == [(96, "accepted", 0, None), (97, "accepted", 400, None)]


def test_a_server_that_is_not_there_is_busy_and_its_password_is_not_told() -> None:
    database = open_database("postgresql://gtx:word@127.0.0.1:9/gtx")

    with pytest.raises(StoreBusyError) as caught:
        check_schema(database)

    assert "127.0.0.1:9" in str(caught.value)
    assert "word" not in str(caught.value)


def test_threads_that_end_give_their_connections_back(database: PostgresDatabase) -> None:
    def look() -> None:
        database.connection.execute("SELECT 1")

    for _ in range(5):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

    count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    # The server notices the end of a connection when it gets to it.
    deadline = time.monotonic() + 5
    while database.connection.execute(count).fetchone() != (1,):
        assert time.monotonic() < deadline
