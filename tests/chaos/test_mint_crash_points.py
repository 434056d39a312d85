"""Kill the minter at every step, in every world the network can be; count the tokens after."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gridtokenx_cloud.adapters.solana_rpc.lookup import LOOKUP
from gridtokenx_cloud.formats import TransactionFormat
from gridtokenx_cloud.mint_rules import MintRules
from tests.support.crash import RULES, Fuse, run_until_crash
from tests.support.mint_world import (
    CONVERSION,
    World,
    add_credits,
    minter,
    new_world,
    wallet,
)

Trouble = Callable[[World], None]
OWED_WH = {1: 1500, 2: 700, 3: 42}


def _fork(world: World) -> None:
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


def _faults(**values: object) -> Trouble:
    return lambda world: world.chain.faults.update(values)


WORLDS: dict[str, Trouble] = {
    "healthy": _faults(),
    "lost sends": _faults(lose_sends=5),
    "lost replies": _faults(lose_replies=4),
    "dropped silently": _faults(drop_silently=6),
    "late landing": _faults(land_late_blocks=100),
    "last valid block": _faults(land_in_last_valid_block=True),
    "fork": _fork,
    "status node behind": _faults(status_lag_blocks=60),
    "account node behind": _faults(account_lag_blocks=40),
    "late and status node behind": _faults(status_lag_blocks=60, land_in_last_valid_block=True),
    "hole in the index": _faults(hide_statuses=True),
    "no history": _faults(hide_history=True),
    "too many requests": _faults(http_429_every=2),
}


async def _mint_through_crash(
    folder: Path, trouble: Trouble, fuse: Fuse, patch: pytest.MonkeyPatch
) -> bool:
    """Crash once, recover, and check every balance; true when the fuse was never reached."""
    world = await new_world()
    path = folder / "cloud.db"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with minter(world, path) as m:
        await _accounts_first(world, m.database)
        for owner, owed_wh in OWED_WH.items():
            add_credits(m.database, owner, (owed_wh - 40, 40), world.clock.now_ms())
    trouble(world)

    finished = await run_until_crash(world, path, fuse, patch, RULES)
    with minter(world, path, RULES) as m:
        left = await m.service.drain()
        # Stragglers: whatever was signed and might still land has landed by now.
        world.chain.faults.update(
            {"hide_history": False, "account_lag_blocks": 0, "http_429_every": 0}
        )
        await world.sleep(400 * world.block_s)
        report = await m.audit()

    assert (left.unminted, left.live_batches, left.waiting) == (0, 0, 0)
    assert report.differences == ()
    for owner, owed_wh in OWED_WH.items():
        assert world.balance(wallet(owner).pubkey()) == CONVERSION.wh_to_base_units(owed_wh)
    assert world.supply() == CONVERSION.wh_to_base_units(sum(OWED_WH.values()))
    return finished


async def _accounts_first(world: World, database: object) -> None:
    """Make the token accounts while the network is well, so that the runs stay short."""
    await world.solana().create_token_accounts([str(wallet(owner).pubkey()) for owner in OWED_WH])
    await world.sleep(20)


async def _every_crash_point(
    folder: Path, trouble: Trouble, patch: pytest.MonkeyPatch, stride: int
) -> int:
    step = runs = 0
    while not await _mint_through_crash(folder / "run", trouble, Fuse(step), patch):
        step += stride
        runs += 1
    return runs


@pytest.mark.integration
async def test_a_minter_killed_before_or_after_any_commit_or_call_mints_exactly_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashes = await _every_crash_point(tmp_path, WORLDS["healthy"], monkeypatch, stride=1)

    assert crashes > 30


@pytest.mark.chaos
@pytest.mark.parametrize("name", [name for name in WORLDS if name != "healthy"])
async def test_no_fault_of_the_network_together_with_a_kill_loses_or_doubles_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # A stride: over the worlds every kind of step is hit, and the suite stays short.
    crashes = await _every_crash_point(tmp_path, WORLDS[name], monkeypatch, stride=5)

    assert crashes >= 1


@pytest.mark.chaos
@pytest.mark.parametrize("form", [TransactionFormat.V0, TransactionFormat.V1])
@pytest.mark.parametrize("name", ["healthy", "fork", "lost replies", "last valid block"])
async def test_a_wide_batch_survives_a_kill_at_any_step_of_its_lookup_table_or_its_mint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, form: TransactionFormat
) -> None:
    owners = range(1, 14)
    rules = MintRules(conversion=CONVERSION, form=form)
    at, runs, finished = 0, 0, False

    while not finished:
        world = await new_world()
        path = tmp_path / f"run-{at}.db"
        with minter(world, path) as m:
            wallets = [str(wallet(owner).pubkey()) for owner in owners]
            await world.solana().create_token_accounts(wallets)
            for owner in owners:
                add_credits(m.database, owner, (100 + owner,), world.clock.now_ms())
        await world.sleep(20)
        WORLDS[name](world)
        finished = await run_until_crash(world, path, Fuse(at), monkeypatch, rules)
        with minter(world, path, rules) as m:
            await m.service.drain()
            await world.sleep(400 * world.block_s)
            report = await m.audit()
            made = m.database.connection.execute("SELECT address FROM lookup_tables").fetchall()
        on_chain = world.chain.accounts_of(LOOKUP, world.chain.block_at("finalized"))
        at += 7 if name == "healthy" else 19
        runs += 1

        assert report.differences == ()
        assert {str(key) for key in on_chain} <= {row["address"] for row in made}
        assert len(on_chain) == (1 if form is TransactionFormat.V0 else 0)
        for owner in owners:
            owed = CONVERSION.wh_to_base_units(100 + owner)
            assert world.balance(wallet(owner).pubkey()) == owed

    assert runs > 2


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(24))
async def test_a_minter_killed_again_and_again_in_a_bad_network_mints_exactly_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    world = await new_world()
    path = tmp_path / "cloud.db"
    with minter(world, path) as m:
        for owner, owed_wh in OWED_WH.items():
            add_credits(m.database, owner, (owed_wh - 40, 40), world.clock.now_ms())

    for _ in range(4):
        WORLDS[chance.choice(list(WORLDS))](world)
        fuse = Fuse(chance.randrange(60))
        await run_until_crash(world, path, fuse, monkeypatch, RULES)
        await world.sleep(chance.choice([1, 30, 90]) * world.block_s)
    world.chain.faults.update({"hide_history": False, "http_429_every": 0})
    with minter(world, path, RULES) as m:
        await m.service.drain()
        world.chain.faults.update({"account_lag_blocks": 0, "hide_statuses": False})
        await world.sleep(400 * world.block_s)
        report = await m.audit()

    assert report.differences == ()
    assert world.supply() == CONVERSION.wh_to_base_units(sum(OWED_WH.values()))
