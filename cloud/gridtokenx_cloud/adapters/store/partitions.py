"""The months of the readings on PostgreSQL: made ahead, and folded up once they are archived.

A reading's number begins with the month in which it came; each month is one partition. Where the
month of now has none, numbers go on in the newest one before it: nothing ever waits for upkeep.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

from gridtokenx_cloud.adapters.store.database import Connection, Database

MONTHS_AHEAD = 3
_NUMBERS = 10**10
"""Readings that fit into one month."""
_MOST_MOVED = 100_000
"""A month with more readings left than this stays a partition."""
# All that the change touches, in the order in which minting takes them: whoever has begun ends
# first, and nobody waits long for what only tidies up.
_LOCKS = (
    "SET LOCAL lock_timeout = '3s'",
    "LOCK TABLE mint_batches, minting_retry_queue IN SHARE ROW EXCLUSIVE MODE",
    "LOCK TABLE meter_readings IN ACCESS EXCLUSIVE MODE",
)
# A trigger that sees all new rows of a statement is not handed on to partitions.
_GUARD_SQL = """
CREATE TRIGGER meter_readings_refer AFTER INSERT ON meter_readings_{month}
REFERENCING NEW TABLE AS arrived FOR EACH STATEMENT EXECUTE FUNCTION refuse_unknown()
"""
_THIS_MONTH_SQL = "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMM')::bigint AS month"
_END_OF_PAST_SQL = """
SELECT substring(pg_get_expr(relpartbound, oid) FROM 'TO \\(''?([0-9]+)')::bigint AS number
FROM pg_class WHERE oid = 'meter_readings_past'::regclass
"""
_COLUMNS_SQL = """
SELECT column_name FROM information_schema.columns
WHERE table_schema = current_schema() AND table_name = 'meter_readings'
    AND is_generated = 'NEVER' ORDER BY ordinal_position
"""


def keep_months_ahead(database: Database) -> list[int]:
    """Make the partitions of this month and the next ones; return those that were missing.

    Raises:
        StoreBusyError: Others are at work for too long; try again later.
    """
    if not database.connection.dialect.locks_rows:
        return []
    wanted = list(_months_from(_this_month(database.connection), MONTHS_AHEAD + 1))
    if not _missing(database.connection, wanted):
        return []
    with database.transaction() as tx:
        tx.execute(tx.dialect.migration_lock)
        missing = _missing(tx, wanted)
        if missing:
            _lock(tx)
        for month in missing:
            tx.execute(
                f"CREATE TABLE meter_readings_{month} PARTITION OF meter_readings"
                f" FOR VALUES FROM ({_first(month)}) TO ({_first(_next(month))})"
            )
            tx.execute(_GUARD_SQL.format(month=month))
            tx.execute("INSERT INTO reading_months (month) VALUES (?)", (month,))
    return missing


def fold_months(database: Database, before_month: int) -> list[int]:
    """Drop the oldest months' partitions, as far as hardly anything is left in them.

    What is left, such as the first reading of a meter, moves to `meter_readings_past` and keeps
    its number. Returns the months that went.

    Args:
        database: The store.
        before_month: YYYYMM; this one and later ones stay.

    Raises:
        StoreBusyError: Others are at work for too long; try again later.
    """
    if not database.connection.dialect.locks_rows:
        return []
    before_month = min(before_month, _this_month(database.connection))
    folded: list[int] = []
    for row in database.connection.execute(
        "SELECT month FROM reading_months WHERE month < ? ORDER BY month", (before_month,)
    ).fetchall():
        if not _fold(database, row["month"]):
            break
        folded.append(row["month"])
    return folded


def month_of(at_ms: int) -> int:
    """Return YYYYMM of a moment, UTC."""
    moment = datetime.fromtimestamp(at_ms / 1000, UTC)
    return moment.year * 100 + moment.month


def _fold(database: Database, month: int) -> bool:
    table = f"meter_readings_{month}"
    with database.transaction() as tx:
        tx.execute(tx.dialect.migration_lock)
        _lock(tx)
        few = f"SELECT count(*) AS left_here FROM (SELECT 1 FROM {table} LIMIT ?) t"  # noqa: S608 - our own name
        if tx.execute(few, (_MOST_MOVED + 1,)).fetchone()["left_here"] > _MOST_MOVED:
            return False
        columns = ", ".join(row["column_name"] for row in tx.execute(_COLUMNS_SQL).fetchall())
        for statement in (
            # It looks for no reference meanwhile; put back, it looks at every row.
            "ALTER TABLE minting_retry_queue DROP CONSTRAINT minting_retry_queue_reading_id_fkey",
            "ALTER TABLE meter_readings DETACH PARTITION meter_readings_past",
            f"ALTER TABLE meter_readings DETACH PARTITION {table}",
            f"INSERT INTO meter_readings_past ({columns}) SELECT {columns} FROM {table}",  # noqa: S608 - our own names
            f"DROP TABLE {table}",
            "ALTER TABLE meter_readings ATTACH PARTITION meter_readings_past"
            f" FOR VALUES FROM (MINVALUE) TO ({_first(_next(month))})",
            "ALTER TABLE minting_retry_queue ADD CONSTRAINT minting_retry_queue_reading_id_fkey"
            " FOREIGN KEY (reading_id) REFERENCES meter_readings ON DELETE CASCADE",
        ):
            tx.execute(statement)
        tx.execute("DELETE FROM reading_months WHERE month = ?", (month,))
    return True


def _lock(tx: Connection) -> None:
    for statement in _LOCKS:
        tx.execute(statement)


def _this_month(connection: Connection) -> int:
    return int(connection.execute(_THIS_MONTH_SQL).fetchone()["month"])


def _missing(connection: Connection, wanted: list[int]) -> list[int]:
    known = {row["month"] for row in connection.execute("SELECT month FROM reading_months")}
    past = int(connection.execute(_END_OF_PAST_SQL).fetchone()["number"])
    return [month for month in wanted if month not in known and _first(month) >= past]


def _months_from(month: int, count: int) -> Iterator[int]:
    for _ in range(count):
        yield month
        month = _next(month)


def _next(month: int) -> int:
    return month + 89 if month % 100 == 12 else month + 1


def _first(month: int) -> int:
    return month * _NUMBERS
