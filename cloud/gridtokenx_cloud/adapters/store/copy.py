"""Move a store from SQLite to PostgreSQL: every row of one moment, in one commit."""

from itertools import islice

from gridtokenx_cloud.adapters.store.database import Connection, Database
from gridtokenx_cloud.adapters.store.migrate import check_schema
from gridtokenx_cloud.errors import ConfigError

_ROWS_AT_ONCE = 5_000
# In the order in which they were made, so that what a row names is there before it.
_TABLES_SQL = """
SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY rowid
"""
_COLUMNS_SQL = "SELECT name FROM pragma_table_info(?)"  # without those the database computes
_COUNTED_SQL = """
SELECT table_name, column_name FROM information_schema.columns
WHERE table_schema = current_schema() AND is_identity = 'YES'
"""


def copy_store(source: Database, target: Database) -> dict[str, int]:
    """Copy everything and return how many rows each table got; all of it, or nothing.

    Nobody writes to *source* meanwhile; whoever uses it has to be told of the new one before.

    Raises:
        ConfigError: *target* has rows already, a minter works on one of the two, or the move is
            not one from SQLite to PostgreSQL.
        SchemaError: One of them has another schema than this program.
    """
    if source.connection.dialect.locks_rows or not target.connection.dialect.locks_rows:
        raise ConfigError((f"from {source.name} to {target.name}: only SQLite to PostgreSQL",))
    check_schema(source)
    check_schema(target)
    with (
        source.only_minter(),
        target.only_minter(),
        source.transaction() as read,
        target.transaction() as tx,
    ):
        tables = [row["name"] for row in read.execute(_TABLES_SQL)]
        _refuse_used(target, tx, tables)
        copied = {table: _copy_table(read, tx, table) for table in tables}
        for row in tx.execute(_COUNTED_SQL).fetchall():
            _count_on(tx, row["table_name"], row["column_name"])
        _count_on(tx, "meter_readings", "reading_id", "meter_readings_reading_id_seq")
        return copied


def _refuse_used(target: Database, tx: Connection, tables: list[str]) -> None:
    for table in tables:
        if tx.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is not None:  # noqa: S608 - our own tables
            raise ConfigError((f"{target.name} has rows in {table} already; name an empty store",))


def _copy_table(read: Connection, tx: Connection, table: str) -> int:
    names = ", ".join(row["name"] for row in read.execute(_COLUMNS_SQL, (table,)).fetchall())
    rows = iter(read.execute(f"SELECT {names} FROM {table}"))  # noqa: S608 - our own tables
    marks = ", ".join("?" * (names.count(",") + 1))
    insert = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608 - our own tables
    count = 0
    while some := [tuple(row) for row in islice(rows, _ROWS_AT_ONCE)]:
        tx.executemany(insert, some)
        count += len(some)
    return count


def _count_on(tx: Connection, table: str, column: str, sequence: str | None = None) -> None:
    """Let the next number be behind the highest one that was copied."""
    named = f"'{sequence}'" if sequence else f"pg_get_serial_sequence('{table}', '{column}')"
    tx.execute(
        f"SELECT setval({named}, coalesce(max({column}), 0) + 1, false) FROM {table}"  # noqa: S608 - our own tables
    )
