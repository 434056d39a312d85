"""The store with ten million readings: the next unminted batch, and taking more readings in.

10,000 meters of 100 gateways, on SQLite and PostgreSQL (fsync on, twelve monthly partitions),
filled by SQL as a running cloud leaves them; 10,000 credits wait. `fetch` is what the minter asks
for at each poll, 500 credits. `ingest` is the whole work of a worker on batches of 500 signed
lines, one of each of 500 meters: verify, load, judge, store, commit. `answers` are pages of the
API, and what ingest asks when 15 stored lines come again, or others under their names. `indexes`
has the query that needs each index, with it and where it is dropped. Floors: fetch and answers p99
below 20 ms, fetch at most twice that of 100,000 readings; ingest at least 80 % of that into a fresh
table.
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
from typing import Any

from bench.store_indexes import answer_ms, index_earnings
from bench.store_rig import METERS, START_MS, fill, messages
from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.ingest import SqlIngestStore
from gridtokenx_cloud.adapters.store.mint import SqlMintStore
from gridtokenx_cloud.adapters.verifier import verify
from gridtokenx_cloud.ingest import IngestService
from gridtokenx_cloud.ports.mint import Selection
from gridtokenx_cloud.tokenization import RetryPolicy
from gridtokenx_cloud.verify import ReadingRules
from gridtokenx_wire.signing import signer
from tests.support import build_cloud as build
from tests.support.mint_world import CONVERSION
from tests.support.postgres import running_postgres
from tests.support.stores import migrated

SMALL = 100_000
LARGE = 10_000_000
ROUNDS = 2
"""How often each meter sends a line while the ingest is measured, after a first one that is not."""
FETCHES = 300


def ingest_rate(database: Database, first_seq: int) -> dict[str, float]:
    """Return lines a second of a worker that does nothing but take these in.

    `of_cpu` counts this process alone, so it stands on a busy machine too; on PostgreSQL the
    server's work is not in it.
    """
    clock = build.FakeClock(START_MS + (first_seq + ROUNDS + 1) * build.SLOT_MS)
    service = IngestService(
        SqlIngestStore(database), verify, signer(build.CLOUD_KEY), ReadingRules, build.TOKEN, clock
    )
    batches = messages(first_seq, ROUNDS + 1)
    warm = len(batches) // (ROUNDS + 1)
    for batch in batches[:warm]:
        service.process(batch)
    started, used = time.perf_counter(), time.thread_time()
    for batch in batches[warm:]:
        service.process(batch)
    seconds, cpu_s = time.perf_counter() - started, time.thread_time() - used
    lines = ROUNDS * METERS
    assert service.totals["accepted"] == lines + METERS, dict(service.totals)
    return {
        "ingest_lines_per_s": round(lines / seconds),
        "ingest_lines_per_s_of_cpu": round(lines / cpu_s),
    }


def fetch_ms(database: Database) -> dict[str, float]:
    """Return what asking for the next 500 credits takes."""
    store = SqlMintStore(database, CONVERSION, RetryPolicy)
    selection = Selection(now_ms=build.NOON_MS, limit=500, threshold_wh=0, owner_percent=100)
    took_ms: list[float] = []
    for _ in range(FETCHES + FETCHES // 10):
        started = time.perf_counter()
        found = store.fetch_unminted(selection)
        took_ms.append((time.perf_counter() - started) * 1000)
        assert len(found) == selection.limit
    percentiles = quantiles(took_ms[FETCHES // 10 :], n=100)
    return {"fetch_p50_ms": round(percentiles[49], 2), "fetch_p99_ms": round(percentiles[98], 2)}


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


def measure(url: str, readings: int) -> dict[str, Any]:
    """Return the figures of a store of this size."""
    database = migrated(url)
    found: dict[str, Any] = {}
    try:
        started = time.perf_counter()
        fill(database, readings)
        found = {"filled_s": round(time.perf_counter() - started)}
        if readings > METERS:
            found |= fetch_ms(database)
        found |= ingest_rate(database, readings // METERS + 1)
        if readings > SMALL:
            found |= {f"mb_{name}": size for name, size in index_mb(database).items()}
            found["answers"] = answer_ms(database, readings)
            found["indexes"] = index_earnings(database)
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


def compare(small: dict[str, Any], fresh: dict[str, Any], large: dict[str, Any]) -> object:
    """Return the figures of one database and what the floors are about."""
    return {
        "fresh": fresh,
        "small": small,
        "large": large,
        "fetch_p99_large_to_small": ratio(large, small, "fetch_p99_ms"),
        "ingest_large_to_fresh": ratio(large, fresh, "ingest_lines_per_s"),
        "ingest_large_to_fresh_of_cpu": ratio(large, fresh, "ingest_lines_per_s_of_cpu"),
    }


def ratio(one: dict[str, Any], other: dict[str, Any], name: str) -> float:
    """Return a figure as a multiple of another store's."""
    return round(float(one[name]) / float(other[name]), 2)


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
