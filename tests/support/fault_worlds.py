"""The troubles a network can have, and what a minter owes through all of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.crash import RULES, Fuse, run_until_crash
from tests.support.mint_world import CONVERSION, World, add_credits, minter, new_world, wallet

Trouble = Callable[[World], None]
OWED_WH = {1: 1500, 2: 700, 3: 42}


def fork(world: World) -> None:
    """Drop the newest blocks once, a few seconds after the first mint was sent."""
    original, state = world.chain.advance, {"sent_height": 0, "done": False}

    def advance(blocks: int = 1) -> None:
        original(blocks)
        if "sendTransaction" in world.rpc.calls and not state["sent_height"]:
            state["sent_height"] = world.chain.tip.height
        old_enough = state["sent_height"] and world.chain.tip.height > state["sent_height"] + 8
        if old_enough and not state["done"]:
            state["done"] = True
            world.chain.drop_fork(10)

    world.chain.advance = advance  # type: ignore[method-assign]


def faults(**values: object) -> Trouble:
    return lambda world: world.chain.faults.update(values)


WORLDS: dict[str, Trouble] = {
    "healthy": faults(),
    "lost sends": faults(lose_sends=5),
    "lost replies": faults(lose_replies=4),
    "dropped silently": faults(drop_silently=6),
    "late landing": faults(land_late_blocks=100),
    "last valid block": faults(land_in_last_valid_block=True),
    "fork": fork,
    "status node behind": faults(status_lag_blocks=60),
    "account node behind": faults(account_lag_blocks=40),
    "late and status node behind": faults(status_lag_blocks=60, land_in_last_valid_block=True),
    "hole in the index": faults(hide_statuses=True),
    "no history": faults(hide_history=True),
    "too many requests": faults(http_429_every=2),
}


@dataclass(frozen=True, slots=True)
class Run:
    """What became of a world: the steps of its first life, and how many deaths it died."""

    steps: int
    deaths: int


async def mint_through(
    folder: Path, trouble: Trouble, crashes: Sequence[int], patch: pytest.MonkeyPatch
) -> Run:
    """Kill the minter at a step of each life, recover, and check every balance.

    Args:
        folder: Emptied first; a place in memory will do, since here nothing cuts the power.
        trouble: What the network does.
        crashes: The step at which each life ends; one that has fewer steps gets to its end.
        patch: For the commits.
    """
    world = await new_world()
    path = folder / "cloud.db"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with minter(world, path) as m:
        # Token accounts first, while the network is well, so that the runs stay short.
        wallets = [str(wallet(owner).pubkey()) for owner in OWED_WH]
        await world.solana().create_token_accounts(wallets)
        await world.sleep(20)
        for owner, owed_wh in OWED_WH.items():
            add_credits(m.database, owner, (owed_wh - 40, 40), world.clock.now_ms())
    trouble(world)

    fuses = [Fuse(at) for at in (*crashes, None)]
    deaths = 0
    for fuse in fuses:
        if await run_until_crash(world, path, fuse, patch, RULES):
            break
        deaths += 1
    # Stragglers: whatever was signed and might still land has landed by now.
    world.chain.faults.update({"hide_history": False, "account_lag_blocks": 0, "http_429_every": 0})
    await world.sleep(400 * world.block_s)

    with minter(world, path, RULES) as m:
        left = m.store.backlog(world.clock.now_ms())
        report = await m.audit()
    assert (left.unminted, left.live_batches, left.waiting) == (0, 0, 0)
    assert report.differences == ()
    for owner, owed_wh in OWED_WH.items():
        assert world.balance(wallet(owner).pubkey()) == CONVERSION.wh_to_base_units(owed_wh)
    assert world.supply() == CONVERSION.wh_to_base_units(sum(OWED_WH.values()))
    return Run(fuses[0].steps, deaths)


def spread(steps: int, points: int, phase: int) -> list[int]:
    """Return so many different steps, evenly over all, begun elsewhere for each *phase*."""
    offset = phase * 7 % max(1, steps // points)
    return sorted({(offset + n * steps // points) % steps for n in range(points)})
