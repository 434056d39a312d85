"""Fills a store by SQL as a running cloud leaves it, and signs the lines that come next."""

from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gridtokenx_cloud.adapters.store.database import Connection, Database
from gridtokenx_cloud.ingest import Message
from gridtokenx_wire.record import SlotRecord
from tests.support import build_cloud as build
from tests.support.store_rows import signature_of

METERS = 10_000
LINES_PER_BATCH = 500
MONTHS = 12
_LOADED_AT_ONCE = 1_000_000
_FIRST_MONTH = 202501
_GATEWAYS = [
    build.Gateway(Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big")))
    for number in range(1, 101)
]
START_MS = build.NOON_MS - 86_400_000 * 365
_BYTES = {False: "x'00'", True: "'\\x00'::bytea"}
_NUMBERS = {
    False: "(WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n"
    " WHERE i + 1 < {last}) SELECT i FROM n) n",
    True: "(SELECT i FROM generate_series({first}, {last} - 1) AS i) n",
}
_FILL_SQL = """
INSERT INTO meter_readings (reading_id, meter_id, epoch, seq, gateway_id, user_id,
    reading_timestamp_ms, submitted_at_ms, interval_s, import_wh, export_wh, clock, flags, boot_id,
    mono_ms, active_power_w, credit_wh, status, line, batch_id, minted, mint_tx_signature)
SELECT {number}, 'M-' || (i % {meters}), '{epoch}', i / {meters} + 1,
    'gateway', 'user-' || (i % {meters}),
    {start} + i / {meters} * 900000, {start} + i / {meters} * 900000 + i % 60000, 900,
    5000, i / {meters} * 100, 2, 0, '{boot}', i / {meters} * 900000, 400,
    CASE WHEN i < {meters} THEN 0 ELSE 100 END, 'accepted', ?,
    CASE WHEN i < {meters} OR i >= {unminted} THEN NULL ELSE i / {meters} END,
    CASE WHEN i < {meters} OR i >= {unminted} THEN 0 ELSE 1 END,
    CASE WHEN i < {meters} OR i >= {unminted} THEN NULL ELSE '{signature}' END
FROM {numbers}
"""


def fill(database: Database, readings: int) -> None:
    """Leave *readings* of all meters in the store, the last one of each not minted yet."""
    slots = readings // METERS
    many = database.connection.dialect.locks_rows
    with database.transaction() as tx:
        enrol(tx)
        indexes = drop_indexes(tx, many)
        tx.executemany(
            "INSERT INTO mint_batches (batch_id, state, memo, merkle_root, leaf_count, marker,"
            " total_wh, total_base_units, sealed_at_ms, oldest_credit_at_ms, final_at_ms,"
            " signature) VALUES (?, 'final', '', ?, ?, ?, 1, 1, 0, 0, 0, 's')",
            [(slot, b"", METERS, f"marker-{slot}") for slot in range(1, slots)],
        )
    line = _GATEWAYS[0].line(build.slot(1, 100))
    for first in range(0, readings, _LOADED_AT_ONCE):
        last = min(readings, first + _LOADED_AT_ONCE)
        with database.transaction() as tx:
            if many:
                tx.execute("SET LOCAL session_replication_role = replica")  # no check of each row
            else:
                tx.execute("PRAGMA defer_foreign_keys = ON")
            tx.execute(fill_sql(many, readings, first, last), (line,))
    with database.transaction() as tx:
        for statement in indexes:
            tx.execute(statement)
        fill_ledger(tx, slots, many)
    if many:
        database.connection.execute("VACUUM ANALYZE")
        database.connection.execute("CHECKPOINT")
    else:
        database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def fill_sql(many: bool, readings: int, first: int, last: int) -> str:
    """Return the statement that writes the readings *first* to *last*."""
    number, slots = "i + 1", readings // METERS
    if many:
        number = f"({_FIRST_MONTH} + i / {METERS} * {MONTHS} / {slots}) * 10000000000 + i + 1"
    return _FILL_SQL.format(
        number=number,
        meters=METERS,
        epoch=build.EPOCH,
        boot=build.BOOT,
        start=START_MS,
        signature=signature_of(1),
        unminted=readings - METERS,
        numbers=_NUMBERS[many].format(first=first, last=last),
    )


def enrol(tx: Connection) -> None:
    """Enrol the gateways, and the meters with an owner each."""
    rows = [(one.gateway_id, "bench", "active", 0) for one in _GATEWAYS]
    rows.append(("gateway", "of the readings that are there", "active", 0))
    tx.executemany(
        "INSERT INTO gateways (gateway_id, name, status, created_at_ms) VALUES (?, ?, ?, ?)", rows
    )
    tx.executemany(
        "INSERT INTO users (user_id, wallet, created_at_ms) VALUES (?, ?, ?)",
        [(f"user-{number}", f"wallet-{number}", 0) for number in range(METERS)],
    )
    tx.executemany(
        "INSERT INTO meters (meter_id, gateway_id, user_id, rated_power_w, resolution_wh,"
        " epoch_policy, created_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (f"M-{number}", gateway_of(number).gateway_id, f"user-{number}", 10_000, 1, "first", 0)
            for number in range(METERS)
        ],
    )


def gateway_of(meter: int) -> build.Gateway:
    """Return the gateway of a meter; neighbours have the same."""
    return _GATEWAYS[meter * len(_GATEWAYS) // METERS]


def drop_indexes(tx: Connection, many: bool) -> list[str]:
    """Drop what is built faster afterwards; return how. Makes the months on the way."""
    if not many:
        found = tx.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
            " AND tbl_name = 'meter_readings'"
        ).fetchall()
    else:
        for month in range(_FIRST_MONTH, _FIRST_MONTH + MONTHS):
            tx.execute(
                f"CREATE TABLE meter_readings_{month} PARTITION OF meter_readings"
                f" FOR VALUES FROM ({month * 10**10}) TO ({(month + 1) * 10**10})"
            )
            tx.execute("INSERT INTO reading_months (month) VALUES (?)", (month,))
        found = tx.execute(
            "SELECT indexname, replace(indexdef, ' ON ONLY ', ' ON ') AS sql FROM pg_indexes"
            " WHERE tablename = 'meter_readings' AND indexname <> 'meter_readings_pkey'"
        ).fetchall()
    for row in found:
        tx.execute(f"DROP INDEX {row[0]}")
    return [row[1] for row in found]


def fill_ledger(tx: Connection, slots: int, many: bool) -> None:
    """Write what the ledger knows of these readings."""
    tx.execute(
        "INSERT INTO seq_ranges (stream, epoch, first_seq, last_seq)"  # noqa: S608 - constants
        f" SELECT meter_id, '{build.EPOCH}', 1, {slots} FROM meters"
    )
    base, last_base, kind = 0, 0, "INTEGER"
    if many:
        base, kind = _FIRST_MONTH * 10**10, "BIGINT"
        last_base = base + (slots - 1) * MONTHS // slots * 10**10
    meter = f"CAST(substr(meter_id, 3) AS {kind}) + 1"
    first_id = f"{base} + {meter}"
    last_id = f"{last_base + (slots - 1) * METERS} + {meter}"
    tx.execute(
        "INSERT INTO meter_epochs (meter_id, epoch, status, baseline_wh, baseline_seq,"  # noqa: S608
        " baseline_reading_id, credited_through_wh, newest_seq, newest_reading_id, last_seq,"
        " last_reading_id, opened_at_ms)"
        f" SELECT meter_id, '{build.EPOCH}', 'accepted', 0, 1, {first_id}, {(slots - 1) * 100},"
        f" {slots}, {last_id}, {slots}, {last_id}, 0 FROM meters"
    )


def messages(first_seq: int, rounds: int) -> list[list[Message]]:
    """Return batches of signed lines, one of each meter in each round."""
    batches: list[list[Message]] = []
    per_gateway = METERS // len(_GATEWAYS)
    for seq in range(first_seq, first_seq + rounds):
        for first in range(0, METERS, LINES_PER_BATCH):
            meters = range(first, first + LINES_PER_BATCH)
            batches.append(
                [
                    gateway_of(start).sends(
                        *(slot(meter, seq) for meter in meters[n : n + per_gateway])
                    )
                    for n, start in enumerate_starts(meters, per_gateway)
                ]
            )
    return batches


def enumerate_starts(meters: range, step: int) -> Iterator[tuple[int, int]]:
    """Yield place and meter of each gateway's first meter."""
    for place in range(0, len(meters), step):
        yield place, meters[place]


def slot(meter: int, seq: int) -> SlotRecord:
    """Return a reading a quarter of an hour after the one before."""
    at = build.stamp(
        seq,
        meter_id=f"M-{meter}",
        mono_ms=(seq - 1) * build.SLOT_MS,
        wall_ms=START_MS + (seq - 1) * build.SLOT_MS,
    )
    return build.slot(at=at, export_wh=(seq - 1) * 100)
