"""What only a real PostgreSQL shows: its schema, its locks, its dumps, its sudden end."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from gridtokenx_cloud.adapters.store.database import Database, open_database
from gridtokenx_cloud.adapters.store.ingest import SqlIngestUnit
from gridtokenx_cloud.adapters.store.migrate import check_schema, migrate, rollback
from gridtokenx_cloud.adapters.store.partitions import fold_months, keep_months_ahead
from gridtokenx_cloud.adapters.store.postgres import PostgresDatabase
from gridtokenx_cloud.adapters.verifier import verify
from gridtokenx_cloud.errors import ConfigError, SchemaError, StoreBusyError, StoreRefusedError
from gridtokenx_cloud.ingest import IngestService
from gridtokenx_cloud.ports.ingest import IngestUnit
from gridtokenx_cloud.tokenization import owner_percentile
from gridtokenx_cloud.verify import ReadingRules
from gridtokenx_wire.record import ClockQuality
from gridtokenx_wire.signing import signer
from tests.support import build_cloud as build
from tests.support.archive import DAY_MS, archive, stored
from tests.support.build_cloud import GATEWAY
from tests.support.cloud_process import wait_until
from tests.support.dates import see_one_month_only
from tests.support.mint_world import minter, new_world
from tests.support.postgres import Server, find_postgres, running_postgres
from tests.support.stores import another, migrated

pytestmark = pytest.mark.integration


@pytest.fixture
def database(postgres: Server) -> Iterator[PostgresDatabase]:
    # Partitions are of the server's own months.
    see_one_month_only()
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
    # The server notices the end of a connection when it gets to it.
    wait_until(lambda: may_mint(second), "the one that vanished is forgotten")


def may_mint(database: Database) -> bool:
    with suppress(ConfigError), database.only_minter():
        return True
    return False


def test_what_the_database_does_not_take_is_told_apart_from_what_it_cannot_do_now(
    database: PostgresDatabase,
) -> None:
    migrate(database)
    for values in (("a\0b", "w", 0), ("a", "w", 2**63), ("a", None, 0), ("\ud800", "w", 0)):
        with pytest.raises(StoreRefusedError), database.transaction() as tx:
            tx.execute("INSERT INTO users VALUES (?, ?, ?)", values)
    with pytest.raises(StoreBusyError, match="no_such_table"):
        database.connection.execute("SELECT * FROM no_such_table")


@pytest.mark.parametrize("odd", [(2**63, "a"), (1, "a\0b"), (1, "\ud800"), (None, "a")])
def test_an_odd_value_among_many_rows_is_refused_and_the_connection_goes_on(
    database: PostgresDatabase, odd: tuple[int, str]
) -> None:
    connection = database.connection
    insert = "INSERT INTO odd (number, name) VALUES (?, ?)"
    connection.execute("CREATE TABLE odd (number BIGINT NOT NULL, name TEXT)")

    for end in ("", " ON CONFLICT DO NOTHING"):
        with pytest.raises(StoreRefusedError):
            connection.executemany(insert + end, [(1, "a"), odd])
        connection.executemany(insert + end, [(1, "a"), (2, None)])

    assert connection.execute("SELECT count(*) FROM odd").fetchone() == (4,)
    assert database.connection is connection


@pytest.mark.parametrize("end", ["", " ON CONFLICT (name) DO UPDATE SET line = excluded.line"])
def test_many_rows_arrive_as_they_are_whatever_way_they_travel(
    database: PostgresDatabase, end: str
) -> None:
    connection = database.connection
    connection.execute("CREATE TABLE many (name TEXT PRIMARY KEY, number BIGINT, line BYTEA)")
    names = ["", "NULL", "null", '"', "\\", "\\N", "{a,b}", "a\nb\tc", "'", "%s", "é\U0001f50c"]
    lines = [b"", b"\0\\", None, b'"', b"\xff"]
    numbers = [-(2**63), 2**63 - 1, None, 0, -1]
    rows = [
        (name, numbers[place % len(numbers)], lines[place % len(lines)])
        for place, name in enumerate(names)
    ]

    for _ in range(2 if end else 1):
        connection.executemany(f"INSERT INTO many (name, number, line) VALUES (?, ?, ?){end}", rows)  # noqa: S608 - ours

    stored = connection.execute("SELECT name, number, line FROM many").fetchall()
    assert sorted(map(tuple, stored), key=repr) == sorted(rows, key=repr)


def test_statements_sent_together_fail_together_and_give_their_rows_after_the_block(
    database: PostgresDatabase,
) -> None:
    connection = database.connection
    connection.execute("CREATE TABLE one (number BIGINT PRIMARY KEY)")
    insert = "INSERT INTO one (number) VALUES (?)"

    with database.transaction() as tx:
        with tx.together():
            tx.executemany(insert, [(1,), (2,)])
            numbers = tx.execute("SELECT number FROM one ORDER BY number")
            least = tx.execute("SELECT min(number) AS least FROM one WHERE number > :n", {"n": 1})
        rows = [*numbers.fetchall(), *least.fetchall()]

    def fail() -> None:
        with database.transaction() as tx, tx.together():
            for number in (3, 1, 4):
                tx.execute(insert, (number,))

    with pytest.raises(StoreRefusedError, match="duplicate key"):
        fail()

    assert rows == [(1,), (2,), (2,)]
    assert [row[0] for row in connection.execute("SELECT number FROM one")] == [1, 2]


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
    wait_until(lambda: database.connection.execute(count).fetchone() == (1,), "they are given back")


def months(database: PostgresDatabase) -> list[int]:
    rows = database.connection.execute("SELECT month FROM reading_months ORDER BY month")
    return [row["month"] for row in rows]


def test_readings_from_before_the_partitions_keep_their_numbers_up_and_down(
    database: PostgresDatabase,
) -> None:
    migrate(database)
    rollback(database, to=4)
    with build.cloud(database) as before:
        before.registry.add_user("eve", build.wallet(3))
    with database.transaction() as tx:
        for seq in (96, 97):
            tx.execute(
                "INSERT INTO meter_readings (meter_id, epoch, seq, gateway_id, user_id,"
                " submitted_at_ms, interval_s, import_wh, export_wh, clock, flags, boot_id,"
                " mono_ms, credit_wh, status, line)"
                " VALUES (?, 'e', ?, ?, 'ann', 1, 900, 0, 0, 2, 0, 'b', 0, 5, 'accepted', 'x')",
                (build.METER_ID, seq, GATEWAY.gateway_id),
            )
        tx.execute(
            "INSERT INTO minting_retry_queue (reading_id, error_code, error_message,"
            " next_retry_at_ms, created_at_ms, updated_at_ms) VALUES (2, 'c', 'm', 0, 0, 0)"
        )
    numbers = "SELECT reading_id, seq, at_ms FROM meter_readings ORDER BY seq"
    queue = "SELECT reading_id FROM mint_queue WHERE attempts = 1"

    assert migrate(database)[0] == "0005.partitions"
    with build.cloud(database) as cloud:
        cloud.take(GATEWAY.sends(build.slot(98, 1_000)))
        stored = cloud.rows(numbers)
        waiting = cloud.rows(queue)
    rollback(database, to=4)
    kept = [tuple(row) for row in database.connection.execute(numbers)]

    this_month = months_of_now(database)
    assert stored[:2] == [(1, 96, 1), (2, 97, 1)]
    assert int(str(stored[2][0])) // 10**10 == this_month
    assert kept == stored
    assert waiting == [(2,)] == [tuple(row) for row in database.connection.execute(queue)]
    assert migrate(database)[0] == "0005.partitions"
    assert [tuple(row) for row in database.connection.execute(numbers)] == stored


def months_of_now(database: PostgresDatabase) -> int:
    row = database.connection.execute(
        "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMM')::bigint AS month"
    ).fetchone()
    assert row is not None
    return int(row["month"])


def test_a_missing_month_stops_no_reading_and_comes_back_with_the_next_upkeep(
    database: PostgresDatabase,
) -> None:
    migrate(database)
    made = months(database)
    with database.transaction() as tx:
        for month in made:
            tx.execute(f"ALTER TABLE meter_readings DETACH PARTITION meter_readings_{month}")
            tx.execute(f"DROP TABLE meter_readings_{month}")
            tx.execute("DELETE FROM reading_months WHERE month = ?", (month,))
    with build.cloud(database) as cloud:
        cloud.take(GATEWAY.sends(build.slot(96, 1_000)))
        with database.transaction() as tx:
            tx.execute(
                "CREATE TABLE meter_readings_200001 PARTITION OF meter_readings"
                " FOR VALUES FROM (2000010000000000) TO (2000020000000000)"
            )
            tx.execute("INSERT INTO reading_months (month) VALUES (200001)")
        cloud.take(GATEWAY.sends(build.slot(97, 1_100)))
        again = keep_months_ahead(database)
        cloud.take(GATEWAY.sends(build.slot(98, 1_300)))
        placed = cloud.rows(
            "SELECT reading_id / 10000000000, credit_wh FROM meter_readings ORDER BY seq"
        )

    assert again == made
    assert made == sorted(made)
    assert len(made) == 4
    assert placed == [(0, 0), (200001, 100), (made[0], 200)]


def test_a_month_that_is_archived_goes_as_a_whole_and_what_must_stay_keeps_its_number(
    database: PostgresDatabase,
) -> None:
    migrate(database)
    with database.transaction() as tx:
        for month in (200001, 200003):
            tx.execute(
                f"CREATE TABLE meter_readings_{month} PARTITION OF meter_readings"
                f" FOR VALUES FROM ({month * 10**10}) TO ({(month + 1) * 10**10})"
            )
            tx.execute("INSERT INTO reading_months (month) VALUES (?)", (month,))
    with build.cloud(database) as cloud:
        cloud.take(GATEWAY.sends(build.slot(96, 1_000), build.slot(97, 1_100)))
        with database.transaction() as tx:
            tx.execute("UPDATE meter_epochs SET baseline_reading_id = 2000010000000007")
            tx.execute("UPDATE meter_readings SET reading_id = 2000010000000007 WHERE seq = 96")

        folded = fold_months(database, 200003)
        cloud.take(GATEWAY.sends(build.slot(96, 1_000), build.slot(98, 1_300)))
        left = cloud.rows("SELECT reading_id % 1000, credit_wh FROM meter_readings ORDER BY seq")
        folded += fold_months(database, 999912)

    assert folded == [200001, 200003]
    assert left[0] == (7, 0)
    assert [credit for _, credit in left] == [0, 100, 200]
    assert months(database)[0] == months_of_now(database)
    assert "meter_readings_200001" not in tables(database)


async def test_a_month_goes_with_its_partition_when_its_readings_are_archived(
    database: PostgresDatabase, tmp_path: Path
) -> None:
    migrate(database)
    with database.transaction() as tx:
        tx.execute(
            "CREATE TABLE meter_readings_200001 PARTITION OF meter_readings"
            " FOR VALUES FROM (2000010000000000) TO (2000020000000000)"
        )
        tx.execute("INSERT INTO reading_months (month) VALUES (200001)")
    world = await new_world()
    with minter(world, database) as mint:
        mint.credit(1, 100, 200)
        with database.transaction() as tx:
            tx.execute(
                "UPDATE meter_readings SET reading_id = 2000010000000000 + reading_id % 100000"
            )
        ids = stored(database)
        await mint.service.drain()
        mint.credit(1, 7)

        box = archive(database, tmp_path, world.clock.at_ms + 100 * DAY_MS)
        gone = box.run()

        assert (gone, months(database)[0]) == (2, months_of_now(database))
        assert "meter_readings_200001" not in tables(database)
        assert all(box.proves(number) for number in ids)
        await mint.service.drain()
        assert (await mint.audit()).differences == ()


MET_SQL = """
SELECT coalesce(sum(seq_tup_read), 0) FROM pg_stat_xact_user_tables
WHERE relname LIKE 'meter_readings%'
"""
FILL_SQL = """
INSERT INTO meter_readings (reading_id, meter_id, epoch, seq, gateway_id, user_id,
    reading_timestamp_ms, submitted_at_ms, interval_s, import_wh, export_wh, clock, flags,
    boot_id, mono_ms, status, line)
SELECT reading_id + n, meter_id, 'another', n, gateway_id, user_id, n, n, interval_s, import_wh,
    export_wh, clock, flags, boot_id, mono_ms, 'late', line
FROM meter_readings, generate_series(100, 30000) n WHERE seq = 1
"""


class CountingStore:
    """`IngestStore` that notes how many readings each commit met by reading whole tables."""

    def __init__(self, database: Database) -> None:
        self.met: list[int] = []
        self._database = database

    @contextmanager
    def transaction(self) -> Iterator[IngestUnit]:
        with self._database.transaction() as tx:
            before = tx.execute(MET_SQL).fetchone()[0]
            yield SqlIngestUnit(tx)
            self.met.append(tx.execute(MET_SQL).fetchone()[0] - before)


def test_no_line_makes_the_server_read_all_readings(database: PostgresDatabase) -> None:
    migrate(database)
    undated = build.slot(at=build.stamp(3, clock=ClockQuality.UNSYNCHRONISED), export_wh=1)
    store = CountingStore(database)
    with build.cloud(database) as cloud:
        cloud.take(GATEWAY.sends(build.slot(1, 10), build.slot(2, 20), undated, build.sample(4, 5)))
        database.connection.execute(FILL_SQL)
        (row,) = cloud.rows("SELECT min(month) FROM reading_months")
        database.connection.execute(f"ANALYZE meter_readings_{row[0]}")
        service = IngestService(
            store, verify, signer(build.CLOUD_KEY), ReadingRules, build.TOKEN, cloud.clock
        )

        # The next one after one that is held; what comes again; another one under a stored seq.
        for record in (
            build.slot(5, 30_000),
            build.slot(1, 10),
            undated,
            build.sample(4, 5),
            build.slot(2, 21),
        ):
            service.process([GATEWAY.sends(record)])

    assert service.totals["held"] == 1
    assert service.totals["duplicate"] == 3
    assert service.totals["rejected:ConflictingReading"] == 1
    assert store.met == [0] * 5
