"""From a reading that is stored to its tokens that are final, on a cluster's blocks of 400 ms.

Each of 10,000 homes sends one reading within a minute. All of it is as in production, except that
batches are begun when readings come (`auto_trigger_on_submit`) and many may be on their way.
"""

import asyncio
import time
from dataclasses import dataclass

from bench.mint_rig import Node, Rig, accounts_for, rig
from gridtokenx_cloud.adapters.system import SystemClock
from gridtokenx_cloud.formats import TransactionFormat
from tests.support.mint_world import NOON_MS, add_owner

HOMES = 10_000
MINUTE_S = 60.0
IN_FLIGHT = 50
SLOWEST_S = 30.0
"""The floor: 95 of 100 are faster."""
_STEP_S = 0.1
_AT_MOST_S = 180.0


@dataclass(frozen=True, slots=True)
class Latency:
    """What it came to; seconds from the store's commit to the commit that says final."""

    readings: int
    batches: int
    p50_s: float
    p95_s: float
    slowest_s: float


async def stored_to_final(node: Node, homes: int = HOMES) -> Latency:
    """Have *homes* readings come within a minute, and wait until the last is final."""
    async with rig(
        node.url, TransactionFormat.V1, concurrent=IN_FLIGHT, pause=asyncio.sleep
    ) as made:
        await accounts_for(made, range(homes))
        _enrol(made, homes)
        node.make_blocks_as_a_cluster()
        stop, wake = asyncio.Event(), asyncio.Event()
        service = asyncio.create_task(made.service.run(stop, wake))
        await _arrive(made, homes, wake)
        await _all_minted(made)
        stop.set()
        await service
        return _latency(made)


def _enrol(made: Rig, homes: int) -> None:
    for owner in range(homes):
        add_owner(made.database, owner)


async def _arrive(made: Rig, homes: int, wake: asyncio.Event) -> None:
    clock, begun, stored = SystemClock(), time.perf_counter(), 0
    while stored < homes:
        passed_s = time.perf_counter() - begun
        due = min(homes, int(homes * passed_s / MINUTE_S))
        if due > stored:
            _store(made, range(stored, due), clock.now_ms())
            stored = due
            wake.set()
        await asyncio.sleep(_STEP_S)


def _store(made: Rig, owners: range, now_ms: int) -> None:
    """Commit what came in one step, as an ingest worker does."""
    with made.database.transaction() as tx:
        tx.executemany(
            "INSERT INTO meter_readings (meter_id, epoch, seq, gateway_id, user_id,"
            " reading_timestamp_ms, submitted_at_ms, interval_s, import_wh, export_wh, clock,"
            " flags, boot_id, mono_ms, credit_wh, status, line)"
            " VALUES (?, '00000000000000e1', 1, ?, ?, ?, ?, 60, 0, 100, 2, 0, ?, 0, 100,"
            " 'accepted', ?)",
            [
                (
                    f"HOUSE-{owner}",
                    f"gateway-{owner}",
                    f"user-{owner}",
                    NOON_MS,
                    now_ms,
                    "0" * 32,
                    f"line {owner}".encode(),
                )
                for owner in owners
            ],
        )


async def _all_minted(made: Rig) -> None:
    async with asyncio.timeout(_AT_MOST_S):
        while True:
            left = made.store.backlog(0)
            if not left.unminted and not left.live_batches:
                return
            await asyncio.sleep(1)


def _latency(made: Rig) -> Latency:
    rows = made.database.connection.execute(
        "SELECT b.final_at_ms - r.submitted_at_ms AS took_ms FROM meter_readings r"
        " JOIN mint_batches b USING (batch_id) WHERE r.minted = 1 ORDER BY 1"
    ).fetchall()
    took_s = [row["took_ms"] / 1000 for row in rows]
    batches = made.database.connection.execute("SELECT COUNT(*) AS n FROM mint_batches").fetchone()
    return Latency(
        len(took_s),
        batches["n"],
        round(took_s[len(took_s) // 2], 1),
        round(took_s[len(took_s) * 95 // 100], 1),
        round(took_s[-1], 1),
    )
