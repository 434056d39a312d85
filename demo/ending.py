"""Bring everything that is under way to its end, and compare the sums."""

import asyncio
import os
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from demo.books import Books, read_books
from demo.chain import token_supply
from demo.installation import Installation
from demo.place import Place, command
from demo.town import METERS, TownClock, below_resolution_wh, displayed_export_wh, exported_wh

BASE_UNITS_PER_WH = 1_000_000
READ_TIMEOUT_S = 90.0
MINT_TIMEOUT_S = 180.0

Tick = Callable[[str], Awaitable[object]]
"""Called again and again while waiting, with what is awaited; redraws the view."""


@dataclass(frozen=True)
class Sums:
    """The last line of a demo, and whether it is a success."""

    line: dict[str, object]
    remarks: list[str]

    @property
    def ok(self) -> bool:
        return self.line["audit"] == "ok" and not self.remarks


async def drain(place: Place, clock: TownClock, tick: Tick) -> list[str]:
    """Wait until the stopped meters' last registers are read, credited and minted.

    Returns what is still missing after a generous wait, one sentence each; empty when all is in.
    """
    now_ms = clock.now_ms
    await _wait(
        lambda books: all(_is_read(books, meter.meter_id, now_ms) for meter in METERS),
        place,
        "reading the final registers",
        READ_TIMEOUT_S,
        tick,
    )
    await _wait(lambda books: books.settled, place, "minting the rest", MINT_TIMEOUT_S, tick)
    books = read_books(place.path("cloud.db"))
    missing = [
        f"{meter.meter_id}: its final register {displayed_export_wh(meter, now_ms)} Wh did not "
        f"reach the ledger; look at {place.logs}"
        for meter in METERS
        if not _is_read(books, meter.meter_id, now_ms)
    ]
    if not books.settled:
        missing.append(
            f"{books.waiting} readings are not minted yet, {books.live_batches} batches are under "
            f"way; the next `make demo` goes on with them"
        )
    return missing


async def _wait(
    arrived: Callable[[Books], bool], place: Place, what: str, timeout_s: float, tick: Tick
) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if arrived(read_books(place.path("cloud.db"))):
            return
        await tick(what)
        await asyncio.sleep(0.25)


def _is_read(books: Books, meter_id: str, now_ms: int) -> bool:
    meter = next(m for m in METERS if m.meter_id == meter_id)
    known = books.meters.get(meter_id)
    return known is not None and known.newest_export_wh == displayed_export_wh(meter, now_ms)


def add_up(place: Place, installation: Installation, clock: TownClock, missing: list[str]) -> Sums:
    """Run the audit, read the supply from the chain, and compare every sum with its neighbour."""
    books = read_books(place.path("cloud.db"))
    exported = sum(exported_wh(meter, clock.now_ms) for meter in METERS)
    supply = token_supply(installation.cloud_env["GTX_CLOUD_SOLANA_RPC_URLS"], installation.mint)
    audit = subprocess.run(
        [command("gtx-cloud"), "audit", "--json"],
        env={**os.environ, **installation.cloud_env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    remarks = list(missing)
    if audit.returncode != 0:
        remarks.append(f"audit: {(audit.stderr or audit.stdout).strip()[:2000]}")
    for name, left, right in (
        ("exported and credited Wh", exported, books.credited_wh),
        ("credited and minted Wh", books.credited_wh, books.minted_wh),
        ("minted Wh and supply", books.minted_wh * BASE_UNITS_PER_WH, supply),
    ):
        if left != right:
            remarks.append(f"{name} differ: {left} and {right}")
    line: dict[str, object] = {
        "readings_accepted": books.readings_accepted,
        "exported_wh": exported,
        "credited_wh": books.credited_wh,
        "minted_wh": books.minted_wh,
        "supply_base_units": supply,
        "transactions": books.transactions,
        "below_resolution_wh": sum(below_resolution_wh(meter, clock.now_ms) for meter in METERS),
        "audit": "ok" if audit.returncode == 0 else "failed",
    }
    return Sums(line, remarks)
