"""Readings per second from the broker to a committed store, receipts sent, every line verified.

Real mosquitto, real worker processes, SQLite and PostgreSQL (fsync on); 100 gateways of one meter
each, one line per message and fifteen. A worker has a core of its own; broker, database server and
this program share the other one, and two workers take both, so there they are in each other's way.
The backlog is in the broker before the clock starts; it stops when the sequence ledger holds every
line. `of_bare_verification` compares with a loop on the worker's core that only checks the
signatures of the same lines; on a busy machine the same by processor time says more. `plain` is
the same backlog taken by a script of one screen: paho, json, executemany, nothing verified,
credited or receipted. The profile is of a worker's work without the network (cProfile, which makes
Python's part look larger). Prints one JSON line.
Run: `python -m bench.bench_ingest`; a name picks those runs that begin so.
"""

import cProfile
import json
import os
import pstats
import re
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from bench import ingest_rig as rig
from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.verifier import verify
from gridtokenx_cloud.ingest import Message
from gridtokenx_wire import base58
from gridtokenx_wire.signing import RECORD_DOMAIN, open_sealed
from gridtokenx_wire.topics import parse_topic
from tests.support.postgres import Server, running_postgres
from tests.support.stores import migrated

SLOTS = {1: 120, 15: 300}
LONGEST_S = 240.0
BARE_LINES = 2_000
BARE_ROUNDS = 5
FLOOR_PER_H = 500
RUNS = (("sqlite", 1), ("postgresql", 1), ("postgresql", 2))
STORED_SQL = "SELECT coalesce(sum(last_seq - first_seq + 1), 0) FROM seq_ranges"
_NAME = re.compile(r"<|>|built-in method|method|objects|function| at 0x[0-9a-f]+|'")
PLAIN_SQL = "SELECT count(*) FROM plain"


def bare_us(backlog: list[Message]) -> float:
    """Return the processor time one check of a line takes, the best of some rounds."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {rig.TAKER_CORES[0]})
    signed = [
        (base58.decode_key(parse_topic(message.topic)[0]), line)
        for message in backlog
        for line in message.payload.split(b"\n")
    ][:BARE_LINES]
    rounds = []
    for _ in range(BARE_ROUNDS):
        started = time.process_time()
        for key, line in signed:
            open_sealed(line, RECORD_DOMAIN, key, verify)
        rounds.append(time.process_time() - started)
    os.sched_setaffinity(0, before)
    return min(rounds) / len(signed) * 1e6


def take(
    what: str, url: str, count: int, backlog: list[Message], total: int, server: Server
) -> dict[str, float]:
    """Have *count* takers take the backlog; return lines per second and their time per line.

    `others` are the broker and, where it is used, the database server.
    """
    database = migrated(url)
    rig.enrol(database)
    asked, enough = (
        (PLAIN_SQL, total - 2 * rig.PLAIN_BATCH) if what == "plain" else (STORED_SQL, total)
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gtx-bench-")))
        port, broker_pid = stack.enter_context(rig.broker(folder))
        takers = [
            stack.enter_context(
                rig.taker(what, url, port, rig.TAKER_CORES[n % len(rig.TAKER_CORES)])
            )
            for n in range(count)
        ]
        rig.publish(port, backlog)
        others = [broker_pid, *((server.pid,) if url.startswith("postgresql") else ())]
        working = [process.pid for process in takers]
        spent, spent_there = sum(map(rig.cpu_s, working)), sum(map(rig.cpu_s, others))
        started = time.perf_counter()
        for process in takers:
            process.send_signal(signal.SIGCONT)
        stored = wait_until_stored(database, asked, enough)
        seconds = time.perf_counter() - started
        spent = sum(map(rig.cpu_s, working)) - spent
        spent_there = sum(map(rig.cpu_s, others)) - spent_there
    database.close()
    return {
        "lines_per_s": round(stored / seconds),
        "us_per_line": round(seconds / stored * 1e6, 1),
        "cpu_us_per_line": round(spent / stored * 1e6, 1),
        "others_cpu_us_per_line": round(spent_there / stored * 1e6, 1),
    }


def wait_until_stored(database: Database, asked: str, lines: int) -> int:
    """Return how many lines there are once that many are stored."""
    deadline = time.monotonic() + LONGEST_S
    while (stored := int(database.connection.execute(asked).fetchone()[0])) < lines:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{stored} of {lines} lines after {LONGEST_S:g} s")
        time.sleep(0.01)
    return stored


def top_ten(url: str, backlog: list[Message]) -> list[str]:
    """Return where a worker's time goes, in percent: its work without network and waiting."""
    database = migrated(url)
    rig.enrol(database)
    service = rig.service_on(database)
    per_commit = 500 // (backlog[0].payload.count(b"\n") + 1)
    profile = cProfile.Profile()
    profile.enable()
    for first in range(0, len(backlog), per_commit):
        service.process(backlog[first : first + per_commit])
    profile.disable()
    database.close()
    entries = pstats.Stats(profile).get_stats_profile()
    ordered = sorted(entries.func_profiles.items(), key=lambda item: -item[1].tottime)
    return [
        f"{_shown(name)} {entry.tottime / entries.total_tt:.0%}" for name, entry in ordered[:10]
    ]


def _shown(name: str) -> str:
    """Return a function's name without what Python puts around it."""
    return " ".join(_NAME.sub("", name).split())


def runs(wanted: str) -> Iterator[tuple[str, str, str, int, int]]:
    """Yield label, taker, database, how many takers and lines a message of each run."""
    for lines_per_message in SLOTS:
        for name, count in RUNS:
            for what in ("cloud", "plain") if count == 1 else ("cloud",):
                workers = f"{count} worker{'s' if count > 1 else ''}"
                label = f"{what}, {name}, {workers}, {lines_per_message} lines a message"
                if label.startswith(wanted):
                    yield label, what, name, count, lines_per_message


def rated(figures: dict[str, float], bare: float) -> dict[str, float]:
    """Add what the floors ask for: wall time and processor time against bare verification."""
    return figures | {
        "bare_us": round(bare, 1),
        "of_bare_verification": round(bare / figures["us_per_line"], 2),
        "of_bare_by_cpu_time": round(bare / figures["cpu_us_per_line"], 2),
        "times_500_an_hour": round(figures["lines_per_s"] * 3600 / FLOOR_PER_H),
    }


def measure(result: dict[str, object], server: Server, folder: str, wanted: str) -> None:
    """Run what is asked for and add its figures to *result*."""
    backlogs = {lines: list(rig.messages(slots, lines)) for lines, slots in SLOTS.items()}

    def place(database: str, use: str) -> str:
        return server.new_database() if database == "postgresql" else f"sqlite:///{folder}/{use}.db"

    for label, what, database, count, lines in runs(wanted):
        bare = bare_us(backlogs[lines])
        total = SLOTS[lines] * rig.GATEWAYS
        figures = take(
            what, place(database, f"{what}-{lines}"), count, backlogs[lines], total, server
        )
        result[label] = rated(figures, bare) if what == "cloud" else figures
    for database in ("sqlite", "postgresql"):
        label = f"profile, {database}, 15 lines a message"
        if label.startswith(wanted):
            result[label] = top_ten(place(database, "profile"), backlogs[15])


def main(wanted: str) -> None:
    """Measure and print one JSON line."""
    result: dict[str, object] = {"bench": "ingest", "load_before": os.getloadavg()[0]}
    os.sched_setaffinity(0, {rig.OTHER_CORE})
    with running_postgres(fsync=True) as server, tempfile.TemporaryDirectory() as folder:
        measure(result, server, folder, wanted)
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
