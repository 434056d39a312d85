"""What a full store answers how quickly, and what each index of the readings is needed for."""

import gc
import time
from collections.abc import Callable
from contextlib import suppress

from bench.store_rig import METERS, START_MS, gateway_of
from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.held import SqlHeldReadings
from gridtokenx_cloud.adapters.store.ingest_load import load_books
from gridtokenx_cloud.adapters.store.ingest_rows import save_changes
from gridtokenx_cloud.adapters.store.mint import SqlMintStore
from gridtokenx_cloud.adapters.store.mint_moves import check_claims
from gridtokenx_cloud.adapters.store.views import SqlViews
from gridtokenx_cloud.ports.ingest import Changes, ClockTie, Identity
from gridtokenx_cloud.ports.mint import Selection
from gridtokenx_cloud.tokenization import RetryPolicy
from tests.support import build_cloud as build
from tests.support.mint_world import CONVERSION

_ASKED = 200
_PAGE = 50
_DAY_MS = 86_400_000
Ask = Callable[[int], object]
"""A question; a number tells one from another."""


class _UndoneError(Exception):
    pass


def answer_ms(database: Database, readings: int) -> dict[str, float]:
    """Return the 99th percentile of what each of these takes."""
    now_ms = START_MS + readings // METERS * build.SLOT_MS
    views = SqlViews(database, build.FakeClock(now_ms))
    asks: dict[str, Ask] = {
        "meters_of_an_owner": lambda n: views.meters(f"user-{_meter(n)}"),
        "sums_of_an_owner": lambda n: views.summary(f"user-{_meter(n)}"),
        "energy_by_day": lambda n: views.energy(
            f"M-{_meter(n)}", None, "day", now_ms - 10 * _DAY_MS, now_ms
        ),
        "power_of_a_day": lambda n: views.power(f"M-{_meter(n)}", None, now_ms - _DAY_MS),
        "fifteen_lines_again": lambda n: _load_again(database, n, told_late_ms=0),
        "fifteen_other_lines": lambda n: _load_again(database, n, told_late_ms=1),
    }
    return {f"{name}_p99_ms": _p99_ms(ask) for name, ask in asks.items()}


def index_earnings(database: Database) -> dict[str, dict[str, float]]:
    """Return, by index, what its query takes, and what it takes where the index is gone."""
    views = SqlViews(database, build.FakeClock(START_MS))
    held = SqlHeldReadings(database, build.FakeClock(START_MS), actor="bench")
    queue = SqlMintStore(database, CONVERSION, RetryPolicy)
    gateway = gateway_of(0).gateway_id
    tie = ClockTie(clock=2, error_ms=0, mono_ms=0, wall_ms=START_MS)
    dating = Changes(at_ms=START_MS, clock_ties={(gateway, build.BOOT): tie})
    wanted = Selection(now_ms=build.NOON_MS, limit=500, threshold_wh=0, owner_percent=100)
    asks: dict[str, Ask] = {
        "by_meter": lambda n: views.readings(f"M-{_meter(n)}", None, None, _PAGE),
        "unminted": lambda _: queue.fetch_unminted(wanted),
        "by_batch": lambda n: check_claims(database.connection, n + 1),
        "undated": lambda _: save_changes(database.connection, dating),
        "held": lambda _: held.list_held(),
    }
    return {name: _earns(database, name, ask) for name, ask in asks.items()}


def _earns(database: Database, index: str, ask: Ask) -> dict[str, float]:
    with_ms = _p99_ms(ask)
    with suppress(_UndoneError), database.transaction() as tx:
        tx.execute(f"DROP INDEX meter_readings_{index}")
        without_ms = _ms(ask, _ASKED)
        raise _UndoneError
    return {"with_p99_ms": with_ms, "without_ms": round(without_ms)}


def _load_again(database: Database, number: int, *, told_late_ms: int) -> None:
    """Load stored lines of a meter, as named by lines that tell their time, or a later one."""
    key = (f"M-{_meter(number)}", build.EPOCH)
    names = [
        Identity(
            gateway_of(0).gateway_id,
            key,
            seq,
            build.BOOT,
            START_MS + (seq - 1) * build.SLOT_MS + told_late_ms,
        )
        for seq in range(2, 2 + 15)
    ]
    assert load_books(database.connection, (), names).lines


def _meter(number: int) -> int:
    return number * 97 % METERS


def _p99_ms(ask: Ask) -> float:
    # What this program holds of the lines it made is no store's: collecting it took 30 ms at times.
    gc.collect()
    gc.freeze()
    return round(sorted(_ms(ask, number) for number in range(_ASKED))[_ASKED * 99 // 100 - 1], 2)


def _ms(ask: Ask, number: int) -> float:
    started = time.perf_counter()
    ask(number)
    return (time.perf_counter() - started) * 1000
