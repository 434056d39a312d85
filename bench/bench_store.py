"""The store with ten million readings: the next unminted batch, and taking more readings in.

10,000 meters of 100 gateways, on SQLite and PostgreSQL (fsync on, twelve monthly partitions),
filled by SQL as a running cloud leaves them; 10,000 credits wait. `fetch` is what the minter asks
for at each poll, 500 credits. `ingest` is the whole work of a worker on batches of 500 signed
lines, one of each of 500 meters: verify, load, judge, store, commit. Floors: fetch p99 below 20 ms
and at most twice that of 100,000 readings; ingest at least 80 % of that into a fresh table.
Prints one JSON line.
Run: `python -m bench.bench_store [READINGS]`; files below var/bench, removed at the end.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gridtokenx_cloud.adapters.store.database import Connection, Database
from gridtokenx_cloud.adapters.store.ingest import SqlIngestStore
from gridtokenx_cloud.adapters.store.mint import SqlMintStore
from gridtokenx_cloud.adapters.verifier import verify
from gridtokenx_cloud.ingest import IngestService, Message
from gridtokenx_cloud.ports.mint import Selection
from gridtokenx_cloud.tokenization import RetryPolicy
from gridtokenx_cloud.verify import ReadingRules
from gridtokenx_wire.record import SlotRecord
from gridtokenx_wire.signing import signer
from tests.support import build_cloud as build
from tests.support.mint_world import CONVERSION
from tests.support.postgres import running_postgres
from tests.support.store_rows import signature_of
from tests.support.stores import migrated

METERS = 10_000
SMALL = 100_000
LARGE = 10_000_000
LINES_PER_BATCH = 500
ROUNDS = 1
"""How often each meter sends a line while the ingest is measured."""
FETCHES = 300
MONTHS = 12
_LOADED_AT_ONCE = 1_000_000
_FIRST_MONTH = 202501
_GATEWAYS = [
    build.Gateway(Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big")))
    for number in range(1, 101)
]
_START_MS = build.NOON_MS - 86_400_000 * 365
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
        start=_START_MS,
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


def messages(first_seq: int) -> list[list[Message]]:
    """Return batches of signed lines, one of each meter in each round."""
    batches: list[list[Message]] = []
    per_gateway = METERS // len(_GATEWAYS)
    for seq in range(first_seq, first_seq + ROUNDS):
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
        wall_ms=_START_MS + (seq - 1) * build.SLOT_MS,
    )
    return build.slot(at=at, export_wh=(seq - 1) * 100)


def ingest_rate(database: Database, first_seq: int) -> float:
    """Return lines a second of a worker that does nothing but take these in."""
    clock = build.FakeClock(_START_MS + (first_seq + ROUNDS) * build.SLOT_MS)
    service = IngestService(
        SqlIngestStore(database), verify, signer(build.CLOUD_KEY), ReadingRules, build.TOKEN, clock
    )
    batches = messages(first_seq)
    started = time.perf_counter()
    for batch in batches:
        service.process(batch)
    seconds = time.perf_counter() - started
    credited = service.totals["accepted"]
    assert credited == ROUNDS * METERS, dict(service.totals)
    return credited / seconds


def fetch_p99_ms(database: Database) -> float:
    """Return the 99th percentile of asking for the next 500 credits."""
    store = SqlMintStore(database, CONVERSION, RetryPolicy)
    selection = Selection(now_ms=build.NOON_MS, limit=500, threshold_wh=0, owner_percent=100)
    took_ms: list[float] = []
    for _ in range(FETCHES):
        started = time.perf_counter()
        found = store.fetch_unminted(selection)
        took_ms.append((time.perf_counter() - started) * 1000)
        assert len(found) == selection.limit
    return quantiles(took_ms, n=100)[98]


def index_mb(database: Database) -> dict[str, int]:
    """Return the size of every index of the readings, MB."""
    if not database.connection.dialect.locks_rows:
        return {}
    rows = database.connection.execute(
        "SELECT parent.relname AS name, sum(pg_relation_size(part.oid)) AS size"
        " FROM pg_class parent JOIN pg_inherits i ON i.inhparent = parent.oid"
        " JOIN pg_class part ON part.oid = i.inhrelid"
        " WHERE parent.relkind = 'I' GROUP BY parent.relname ORDER BY 2 DESC"
    )
    return {row["name"]: int(row["size"]) // 10**6 for row in rows}


def measure(url: str, readings: int) -> dict[str, float]:
    """Return the figures of a store of this size."""
    database = migrated(url)
    found: dict[str, float] = {}
    try:
        started = time.perf_counter()
        fill(database, readings)
        found = {"filled_s": round(time.perf_counter() - started)}
        if readings > METERS:
            fetch_p99_ms(database)  # warm
            found["fetch_p99_ms"] = round(fetch_p99_ms(database), 2)
        found["ingest_lines_per_s"] = round(ingest_rate(database, readings // METERS + 1))
        if sizes := index_mb(database):
            found |= {f"mb_{name}": size for name, size in sizes.items()}
        return found
    finally:
        print(url.partition(":")[0], readings, found, file=sys.stderr)
        database.close()


@contextmanager
def place() -> Iterator[Path]:
    """Give a folder below var/bench, gone at the end; temporary files go there too."""
    below = Path("var/bench").resolve()
    below.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="store-", dir=below))
    folder.chmod(0o755)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield folder
    finally:
        tempfile.tempdir = before
        shutil.rmtree(folder, ignore_errors=True)


def compare(small: dict[str, float], fresh: dict[str, float], large: dict[str, float]) -> object:
    """Return the figures of one database and what the floors are about."""
    return {
        "fresh": fresh,
        "small": small,
        "large": large,
        "fetch_p99_large_to_small": round(large["fetch_p99_ms"] / small["fetch_p99_ms"], 2),
        "ingest_large_to_fresh": round(
            large["ingest_lines_per_s"] / fresh["ingest_lines_per_s"], 2
        ),
    }


def main() -> None:
    """Measure both databases and print one JSON line."""
    readings = int(sys.argv[1]) if len(sys.argv) > 1 else LARGE
    result: dict[str, object] = {"bench": "store", "readings": readings}
    sizes = (SMALL, METERS, readings)
    with place() as folder:
        figures = []
        for size in sizes:
            file = folder / f"{size}.db"
            figures.append(measure(f"sqlite:///{file}", size))
            if size == readings:
                figures[-1]["mb_file"] = file.stat().st_size // 10**6
            file.unlink()
        result["sqlite"] = compare(*figures)
        with running_postgres(fsync=True) as server:
            figures = [measure(server.new_database(), size) for size in sizes]
            result["postgresql"] = compare(*figures)
    result["load"] = round(os.getloadavg()[0], 1)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
