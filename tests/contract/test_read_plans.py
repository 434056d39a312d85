"""No question of every day reads the whole table of readings, however few rows answer it."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gridtokenx_cloud.adapters.store.held import SqlHeldReadings
from gridtokenx_cloud.adapters.store.mint import SqlMintStore
from gridtokenx_cloud.adapters.store.views import SqlViews
from gridtokenx_cloud.ports.mint import Selection
from gridtokenx_cloud.tokenization import RetryPolicy
from tests.support import build_cloud as build
from tests.support.build_cloud import METER_ID, NOON_MS, Cloud
from tests.support.mint_world import CONVERSION
from tests.support.stores import sqlite_of

_ALIAS = re.compile(r"(?:FROM|JOIN) (meter_readings)(?: (?!WHERE|INDEXED)(\w+)\b)?")
_FEW = ("meter_readings_unminted", "meter_readings_held")


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with build.cloud(tmp_path) as made:
        yield made


def whole_reads(cloud: Cloud, ask: Callable[[], object]) -> list[str]:
    """Return the steps of SQLite's plans that go through every reading."""
    read = sqlite_of(cloud.database).connection
    ran: list[str] = []
    read.set_trace_callback(ran.append)
    ask()
    read.set_trace_callback(None)
    found: list[str] = []
    for sql in ran:
        names = "|".join({alias or table for table, alias in _ALIAS.findall(sql)} or {"-"})
        plan = [str(row["detail"]) for row in read.execute(f"EXPLAIN QUERY PLAN {sql}")]
        found += [step for step in plan if re.match(rf"SCAN ({names})\b", step)]
    assert ran
    return [step for step in found if not any(few in step for few in _FEW)]


def test_what_pages_ask_for_is_looked_up(cloud: Cloud) -> None:
    views = SqlViews(cloud.database, cloud.clock)

    assert whole_reads(cloud, lambda: views.meters("ann")) == []
    assert whole_reads(cloud, lambda: views.meters(None)) == []
    assert whole_reads(cloud, lambda: views.summary("ann")) == []
    assert whole_reads(cloud, lambda: views.readings(METER_ID, "ann", None, 50)) == []
    assert whole_reads(cloud, lambda: views.power(METER_ID, "ann", 0)) == []
    assert whole_reads(cloud, lambda: views.energy(METER_ID, None, "day", 0, NOON_MS)) == []
    assert whole_reads(cloud, lambda: views.mints("ann", None, 50)) == []


def test_what_operators_and_the_minter_ask_for_is_looked_up(cloud: Cloud) -> None:
    held = SqlHeldReadings(cloud.database, cloud.clock, actor="test")
    queue = SqlMintStore(cloud.database, CONVERSION, RetryPolicy)
    wanted = Selection(now_ms=NOON_MS, limit=500, threshold_wh=100, owner_percent=50)

    assert whole_reads(cloud, held.list_held) == []
    assert whole_reads(cloud, lambda: queue.fetch_unminted(wanted)) == []
    assert whole_reads(cloud, lambda: queue.backlog(NOON_MS)) == []


def test_a_sum_over_what_waits_reads_nothing_but_its_index(cloud: Cloud) -> None:
    read = sqlite_of(cloud.database).connection
    sql = (
        "SELECT user_id, sum(credit_wh) FROM meter_readings"
        " WHERE credit_wh > 0 AND minted = 0 AND batch_id IS NULL GROUP BY user_id"
    )

    (first, *_) = [str(row["detail"]) for row in read.execute(f"EXPLAIN QUERY PLAN {sql}")]

    assert first == "SCAN meter_readings USING COVERING INDEX meter_readings_unminted"
