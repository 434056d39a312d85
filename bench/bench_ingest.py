"""Readings per second from the broker to a committed store, receipts sent, every line verified.

Real mosquitto, real worker processes, SQLite and PostgreSQL (fsync on); 100 gateways of one meter
each, one line per message and fifteen. A worker has a core of its own; broker, database server and
this program share the other one. Two workers take both cores, and broker and server go where there
is room: `cores_bound_two_workers_to` is how often one worker's rate two cores could carry at the
most. With 40 % of a core for each worker all of them fit, and what two are worth shows. The backlog
is in the broker before the clock starts; it stops when the sequence ledger holds every line.
`of_bare_verification` compares with a loop on the worker's core that does nothing but check the
signatures of the same lines; on a busy machine the same by processor time says more. `plain` is the
same backlog taken by a script of one screen: paho, json, executemany, nothing verified, credited or
receipted. The profile is of a worker's work without the network (cProfile, which makes Python's
part look larger). Prints one JSON line.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import ingest_rig as rig
from bench.part_of_a_core import held_to
from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.verifier import verify
from gridtokenx_cloud.ingest import Message
from gridtokenx_wire import base58
from gridtokenx_wire.signing import RECORD_DOMAIN, split
from gridtokenx_wire.topics import parse_topic
from tests.support.postgres import Server, running_postgres
from tests.support.stores import migrated

SLOTS = {1: 120, 15: 300}
LONGEST_S = 240.0
BARE_LINES = 2_000
BARE_ROUNDS = 5
FLOOR_PER_H = 500
PART_PERCENT = 40
STORED_SQL = "SELECT coalesce(sum(last_seq - first_seq + 1), 0) FROM seq_ranges"
_NAME = re.compile(r"<|>|built-in method|method|objects|function| at 0x[0-9a-f]+|'")
PLAIN_SQL = "SELECT count(*) FROM plain"


def bare_us(backlog: list[Message]) -> float:
    """Return the processor time one check of a line takes, the best of some rounds."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {rig.TAKER_CORES[0]})
    signed = [
        (base58.decode_key(parse_topic(message.topic)[0]), RECORD_DOMAIN + body, signature)
        for message in backlog
        for body, signature in map(split, message.payload.split(b"\n"))
    ][:BARE_LINES]
    rounds = []
    for _ in range(BARE_ROUNDS):
        started = time.process_time()
        for key, body, signature in signed:
            verify(key, body, signature)
        rounds.append(time.process_time() - started)
    os.sched_setaffinity(0, before)
    return min(rounds) / len(signed) * 1e6


@dataclass(frozen=True, slots=True)
class Run:
    """How many takers take how many lines a message, and what of a core each of them has."""

    what: str
    database: str
    lines: int
    count: int = 1
    percent: int = 100

    @property
    def label(self) -> str:
        """Return its name in the result."""
        workers = f"{self.count} worker{'s' if self.count > 1 else ''}"
        label = f"{self.what}, {self.database}, {workers}, {self.lines} lines a message"
        return label if self.percent == 100 else f"{label}, {self.percent} % of a core each"


def take(run: Run, url: str, backlog: list[Message], server: Server) -> dict[str, float] | None:
    """Have takers take the backlog; return lines per second and their time per line.

    `others` are the broker and, where it is used, the database server. None where nobody can be
    held to a part of a core.
    """
    database = migrated(url)
    rig.enrol(database)
    total = SLOTS[run.lines] * rig.GATEWAYS
    asked, enough = (
        (PLAIN_SQL, total - 2 * rig.PLAIN_BATCH) if run.what == "plain" else (STORED_SQL, total)
    )
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gtx-bench-")))
        port, broker_pid = stack.enter_context(rig.broker(folder))
        for pid in (broker_pid, server.pid):
            os.sched_setaffinity(pid, rig.CORES if run.count > 1 else {rig.OTHER_CORE})
        takers = [
            stack.enter_context(
                rig.taker(run.what, url, port, rig.TAKER_CORES[n % len(rig.TAKER_CORES)])
            )
            for n in range(run.count)
        ]
        rig.publish(port, backlog)
        others = [broker_pid, *((server.pid,) if url.startswith("postgresql") else ())]
        working = [process.pid for process in takers]
        if run.percent < 100 and not stack.enter_context(held_to(run.percent, working)):
            return None
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


def runs() -> Iterator[Run]:
    """Yield every run."""
    for lines in SLOTS:
        for database in ("sqlite", "postgresql"):
            for what in ("cloud", "plain"):
                yield Run(what, database, lines)
        yield Run("cloud", "postgresql", lines, count=2)
        for count in (1, 2):
            yield Run("cloud", "postgresql", lines, count=count, percent=PART_PERCENT)


def rated(figures: dict[str, float], bare: float) -> dict[str, float]:
    """Add what the floors ask for: wall time and processor time against bare verification."""
    return figures | {
        "bare_us": round(bare, 1),
        "of_bare_verification": round(bare / figures["us_per_line"], 2),
        "of_bare_by_cpu_time": round(bare / figures["cpu_us_per_line"], 2),
        "times_500_an_hour": round(figures["lines_per_s"] * 3600 / FLOOR_PER_H),
    }


def scaling(result: dict[str, Any], lines: int) -> dict[str, Any]:
    """Return what two workers are worth against one, and what the cores leave room for."""
    found: dict[str, float] = {}
    for percent in (100, PART_PERCENT):
        one, two = (
            result.get(Run("cloud", "postgresql", lines, count, percent).label) for count in (1, 2)
        )
        if one and two:
            share = "whole_cores" if percent == 100 else f"{percent}_percent_of_a_core_each"
            found[f"two_to_one_{share}"] = round(two["lines_per_s"] / one["lines_per_s"], 2)
            if percent == 100:
                us_of_all = two["cpu_us_per_line"] + two["others_cpu_us_per_line"]
                bound = len(rig.CORES) * 1e6 / us_of_all / one["lines_per_s"]
                found["cores_bound_two_workers_to"] = round(bound, 2)
    return {f"two workers, postgresql, {lines} lines a message": found} if found else {}


def measure(result: dict[str, Any], server: Server, folder: str, wanted: str) -> None:
    """Run what is asked for and add its figures to *result*."""
    backlogs = {lines: list(rig.messages(slots, lines)) for lines, slots in SLOTS.items()}

    def place(database: str, use: str) -> str:
        return server.new_database() if database == "postgresql" else f"sqlite:///{folder}/{use}.db"

    for run in runs():
        if run.label.startswith(wanted):
            bare = bare_us(backlogs[run.lines])
            url = place(run.database, f"{run.what}-{run.lines}")
            figures = take(run, url, backlogs[run.lines], server)
            if figures is not None and run.what == "cloud" and run.percent == 100:
                figures = rated(figures, bare)
            result[run.label] = figures
    for lines in SLOTS:
        result |= scaling(result, lines)
    for database in ("sqlite", "postgresql"):
        label = f"profile, {database}, 15 lines a message"
        if label.startswith(wanted):
            result[label] = top_ten(place(database, "profile"), backlogs[15])


def main(wanted: str) -> None:
    """Measure and print one JSON line."""
    result: dict[str, Any] = {"bench": "ingest", "load_before": os.getloadavg()[0]}
    os.sched_setaffinity(0, {rig.OTHER_CORE})
    with running_postgres(fsync=True) as server, tempfile.TemporaryDirectory() as folder:
        measure(result, server, folder, wanted)
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
