import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import gridtokenx_cloud
from gridtokenx_cloud.adapters.store.database import open_database
from gridtokenx_cloud.adapters.store.migrate import check_schema, migrate, rollback, statements
from gridtokenx_cloud.adapters.store.sqlite import SqliteDatabase
from gridtokenx_cloud.errors import SchemaError
from tests.support import build_cloud as build
from tests.support.build_cloud import GATEWAY

MIGRATIONS = Path(gridtokenx_cloud.__file__).parent / "migrations"
STEPS = sorted(step.stem for step in MIGRATIONS.glob("*.sql") if ".rollback" not in step.suffixes)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[SqliteDatabase]:
    opened = SqliteDatabase(tmp_path / "cloud.db")
    yield opened
    opened.close()


def tables(database: SqliteDatabase) -> set[str]:
    rows = database.connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    return {row["name"] for row in rows if not row["name"].startswith("sqlite_")}


def test_a_new_store_gets_every_step_once(database: SqliteDatabase) -> None:
    first, second = migrate(database), migrate(database)

    assert first == STEPS
    assert second == []
    assert {"meters", "meter_readings", "mint_batches", "events"} <= tables(database)
    check_schema(database)


def test_every_step_can_be_taken_back_with_data_and_taken_again(database: SqliteDatabase) -> None:
    migrate(database)
    with database.transaction() as tx:
        tx.execute("INSERT INTO users VALUES ('ann', 'w', 0)")

    taken_back = rollback(database)

    assert taken_back == STEPS[::-1]
    assert tables(database) == set()
    assert migrate(database) == STEPS


def test_readings_stay_as_they_are_one_step_down_and_up_again(tmp_path: Path) -> None:
    with build.cloud(tmp_path) as cloud:
        cloud.take(GATEWAY.sends(build.slot(96, 1_000), build.slot(97, 1_400)))
        cloud.take(GATEWAY.sends(build.slot(98, 900)))
        epoch = "SELECT * FROM meter_epochs"
        readings = "SELECT reading_id, seq, credit_wh, line FROM meter_readings"
        before = cloud.rows(readings), cloud.rows(epoch)

        for number in range(len(STEPS) - 1, 2, -1):
            rollback(cloud.database, to=number)
            kept = cloud.rows(readings)
            migrate(cloud.database)

            assert kept == before[0]
            assert (cloud.rows(readings), cloud.rows(epoch)) == before
        cloud.take(GATEWAY.sends(build.slot(99, 1_500)))

        assert cloud.readings()[-1] == (99, "accepted", 100, None)


def test_a_store_that_is_not_there_is_not_made_by_looking(database: SqliteDatabase) -> None:
    with pytest.raises(SchemaError, match="does not exist: run `gtx-cloud migrate` first"):
        check_schema(database)

    assert not database.path.exists()


def test_a_store_without_schema_names_the_command(database: SqliteDatabase) -> None:
    database.path.touch()

    with pytest.raises(SchemaError, match=r"lacks 0001.initial, .*: run `gtx-cloud migrate` first"):
        check_schema(database)


def test_a_store_of_a_newer_program_is_refused_by_both(database: SqliteDatabase) -> None:
    migrate(database)
    database.connection.execute("PRAGMA user_version = 99")

    for refuse in (check_schema, migrate):
        with pytest.raises(SchemaError, match="has schema 99"):
            refuse(database)


def test_a_step_that_does_not_fit_changes_nothing(database: SqliteDatabase) -> None:
    # Made by somebody else: the sixth table of the step is there already.
    database.connection.execute("CREATE TABLE mint_batches (x INTEGER)")

    with pytest.raises(SchemaError, match="already exists"):
        migrate(database)

    assert tables(database) == {"mint_batches"}


@pytest.mark.chaos
def test_killed_in_the_middle_of_a_step_the_next_run_does_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "cloud.db"
    killed_after = (
        "import os, signal, sqlite3, sys\n"
        "from gridtokenx_cloud.adapters.store.database import open_database\n"
        "from gridtokenx_cloud.adapters.store.migrate import migrate\n"
        "database = open_database(f'sqlite:///{sys.argv[1]}')\n"
        "count = 0\n"
        "def trace(statement):\n"
        "    global count\n"
        "    count += 1\n"
        "    if count == int(sys.argv[2]):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "database.connection.set_trace_callback(trace)\n"
        "migrate(database)\n"
    )
    for statement in (2, 5, 15, 25):
        done = subprocess.run(
            [sys.executable, "-c", killed_after, str(path), str(statement)], check=False
        )

        assert done.returncode == -signal.SIGKILL
        with sqlite3.connect(path) as left:
            assert left.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
        left.close()

    database = open_database(f"sqlite:///{path}")
    steps = migrate(database)
    database.close()
    assert steps == STEPS


def test_a_script_that_ends_in_the_middle_of_a_statement_is_refused_not_cut() -> None:
    script = "CREATE TABLE a (b INTEGER);\n-- a remark\nCREATE TABLE c (\n"

    with pytest.raises(SchemaError, match="middle of a statement: 'CREATE TABLE c"):
        list(statements(script))
