"""A reading names a meter, a gateway and an owner that exist, and they stay: in either store."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from gridtokenx_cloud.adapters.store.database import Connection, Database
from gridtokenx_cloud.adapters.store.migrate import migrate, rollback
from gridtokenx_cloud.adapters.store.postgres import PostgresDatabase
from gridtokenx_cloud.errors import StoreBusyError, StoreRefusedError
from tests.support.cloud_process import wait_until
from tests.support.postgres import Server
from tests.support.stores import another, migrated

NAMES = ["meter_id", "gateway_id", "user_id"]
WAITERS = "SELECT count(*) FROM pg_locks WHERE NOT granted"


@pytest.fixture
def database(new_store: Callable[[], Database]) -> Iterator[Database]:
    opened = enrolled(new_store())
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def template(postgres: Server) -> str:
    url = postgres.new_database()
    migrated(url).close()
    return url.rpartition("/")[2]


@pytest.fixture
def server_side(postgres: Server, template: str) -> Iterator[Database]:
    opened = PostgresDatabase(postgres.new_database(template=template))
    yield enrolled(opened)
    opened.close()


def enrolled(database: Database) -> Database:
    """Enrol what nothing but a reading names: meter, gateway and owner `lone`."""
    with database.transaction() as tx:
        for name in ("owner", "lone"):
            tx.execute("INSERT INTO users VALUES (?, ?, 0)", (name, f"wallet of {name}"))
            tx.execute("INSERT INTO gateways VALUES (?, 'g', 'active', 0)", (name,))
        tx.execute("INSERT INTO meters VALUES ('lone', 'owner', 'owner', 1, 1, 'any', 0)")
    return database


def removal(name: str) -> str:
    return f"DELETE FROM {name.removesuffix('_id')}s WHERE {name} = 'lone'"  # noqa: S608 - ours


def add_readings(tx: Connection, *changes: dict[str, str]) -> None:
    """Add a reading for each of *changes*, which say what it names other than `lone`."""
    tx.executemany(
        "INSERT INTO meter_readings (meter_id, epoch, seq, gateway_id, user_id, submitted_at_ms,"
        " interval_s, import_wh, export_wh, clock, flags, boot_id, mono_ms, status, line)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                *(changed.get("meter_id", "lone"), "e", seq),
                *(changed.get("gateway_id", "lone"), changed.get("user_id", "lone")),
                *(1, 900, 0, 0, 2, 0, "b", 0, "accepted", b"line"),
            )
            for seq, changed in enumerate(changes)
        ],
    )


def stored(database: Database) -> int:
    return int(database.connection.execute("SELECT count(*) FROM meter_readings").fetchone()[0])


@pytest.mark.parametrize("name", NAMES)
def test_a_reading_that_names_a_stranger_is_refused_with_its_whole_statement(
    database: Database, name: str
) -> None:
    with pytest.raises(StoreRefusedError), database.transaction() as tx:
        add_readings(tx, {}, {name: "stranger"}, {})

    assert stored(database) == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_reading_can_be_changed_to_name_another_one_but_no_stranger(
    database: Database, name: str
) -> None:
    change = f"UPDATE meter_readings SET {name} = ?"  # noqa: S608 - ours
    with database.transaction() as tx:
        add_readings(tx, {})
        tx.execute("INSERT INTO meters VALUES ('owner', 'owner', 'owner', 1, 1, 'any', 0)")
        tx.execute(change, ("owner",))

    with pytest.raises(StoreRefusedError), database.transaction() as tx:
        tx.execute(change, ("stranger",))

    assert stored(database) == 1


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["DELETE FROM {0}s", "UPDATE {0}s SET {0}_id = 'renamed'"])
def test_what_a_reading_names_stays_and_keeps_its_name(
    database: Database, name: str, how: str
) -> None:
    drop = f"{how.format(name.removesuffix('_id'))} WHERE {name} = 'lone'"
    with database.transaction() as tx:
        add_readings(tx, {})

    with pytest.raises(StoreRefusedError), database.transaction() as tx:
        tx.execute(drop)
    with database.transaction() as tx:
        tx.execute("DELETE FROM meter_readings")
        gone = tx.execute(drop).rowcount

    assert gone == 1


@dataclass
class Elsewhere:
    """Somebody else's transaction, which has to wait for ours."""

    database: Database
    refusals: list[Exception] = field(default_factory=list)

    def run(self, work: Callable[[Connection], object]) -> threading.Thread:
        thread = threading.Thread(target=self._work, args=(work,))
        thread.start()
        wait_until(self._waits, "the other one waits for our lock")
        return thread

    def _work(self, work: Callable[[Connection], object]) -> None:
        other = another(self.database)
        try:
            with other.transaction() as tx:
                work(tx)
        except StoreRefusedError as exc:
            self.refusals.append(exc)
        finally:
            other.close()

    def _waits(self) -> bool:
        return bool(self.database.connection.execute(WAITERS).fetchone()[0])


@pytest.mark.integration
@pytest.mark.parametrize("name", NAMES)
def test_who_deletes_waits_for_a_reading_that_is_being_stored_and_is_refused(
    server_side: Database, name: str
) -> None:
    elsewhere = Elsewhere(server_side)

    with server_side.transaction() as tx:
        add_readings(tx, {})
        thread = elsewhere.run(lambda other: other.execute(removal(name)))
    thread.join()

    [refused] = elsewhere.refusals
    assert "readings name this row" in str(refused)


@pytest.mark.integration
@pytest.mark.parametrize("name", NAMES)
def test_a_reading_waits_for_who_deletes_what_it_names_and_is_refused(
    server_side: Database, name: str
) -> None:
    elsewhere = Elsewhere(server_side)

    with server_side.transaction() as tx:
        tx.execute(removal(name))
        thread = elsewhere.run(lambda other: add_readings(other, {}))
    thread.join()

    assert len(elsewhere.refusals) == 1
    assert stored(server_side) == 0


@pytest.mark.integration
def test_no_way_round_the_whole_table_leads_past_the_check(server_side: Database) -> None:
    months = server_side.connection.execute("SELECT month FROM reading_months").fetchall()
    partitions = {f"meter_readings_{row['month']}": row["month"] * 10**10 + 9 for row in months}
    partitions["meter_readings_past"] = 9
    with server_side.transaction() as tx:
        add_readings(tx, {})

    for partition, number in partitions.items():
        with pytest.raises(StoreRefusedError, match="names what is not enrolled"):
            server_side.connection.execute(
                f"INSERT INTO {partition} (reading_id, meter_id, epoch, seq, gateway_id, user_id,"  # noqa: S608 - ours
                " submitted_at_ms, interval_s, import_wh, export_wh, clock, flags, boot_id,"
                " mono_ms, status, line) SELECT ?, meter_id, epoch, seq, gateway_id, 'stranger',"
                " submitted_at_ms, interval_s, import_wh, export_wh, clock, flags, boot_id,"
                " mono_ms, status, line FROM meter_readings",
                (number,),
            )
    with pytest.raises(StoreRefusedError, match="readings name this row of users"):
        server_side.connection.execute("TRUNCATE users CASCADE")

    assert len(partitions) == 5
    assert stored(server_side) == 1


@pytest.mark.integration
@pytest.mark.parametrize("name", NAMES)
def test_a_reading_that_is_moved_to_another_month_can_name_no_stranger_there(
    server_side: Database, name: str
) -> None:
    months = server_side.connection.execute("SELECT max(month) FROM reading_months").fetchone()
    with server_side.transaction() as tx:
        add_readings(tx, {})

    with pytest.raises(StoreRefusedError, match="would name what is not enrolled"):
        server_side.connection.execute(
            f"UPDATE meter_readings SET {name} = 'stranger', reading_id = ?",  # noqa: S608 - ours
            (months[0] * 10**10 + 9,),
        )


@pytest.mark.integration
def test_a_temporary_table_hides_no_reading(server_side: Database) -> None:
    with server_side.transaction() as tx:
        add_readings(tx, {})

    server_side.connection.execute("CREATE TEMP TABLE meter_readings (user_id text)")
    with pytest.raises(StoreRefusedError, match="readings name this row of users"):
        server_side.connection.execute(removal("user_id"))


@pytest.mark.integration
def test_nothing_is_deleted_by_what_may_not_see_the_newest_readings(server_side: Database) -> None:
    with server_side.transaction() as tx:
        tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        with pytest.raises(StoreBusyError, match="READ COMMITTED"):
            tx.execute(removal("user_id"))
        tx.execute("ROLLBACK")
        tx.execute("BEGIN")


@pytest.mark.integration
def test_the_older_schema_has_its_foreign_keys_back_and_they_hold(server_side: Database) -> None:
    with server_side.transaction() as tx:
        add_readings(tx, {})

    rollback(server_side, to=10)
    with pytest.raises(StoreRefusedError, match="foreign key"):
        add_readings(server_side.connection, {"user_id": "stranger"})
    migrate(server_side)
    with pytest.raises(StoreRefusedError, match="names what is not enrolled"):
        add_readings(server_side.connection, {"user_id": "stranger"})

    keys = server_side.connection.execute(
        "SELECT DISTINCT confrelid::regclass::text FROM pg_constraint"
        " WHERE contype = 'f' AND conrelid::regclass::text LIKE 'meter_readings%'"
    )
    assert [row[0] for row in keys] == ["mint_batches"]
    assert stored(server_side) == 1
