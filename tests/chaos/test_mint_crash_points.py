"""Kill the minter at every step, in every world the network can be; count the tokens after."""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gridtokenx_cloud.adapters.solana_rpc.lookup import LOOKUP
from gridtokenx_cloud.formats import TransactionFormat
from gridtokenx_cloud.mint_rules import MintRules
from tests.support.crash import RULES, Fuse, run_until_crash
from tests.support.fault_worlds import OWED_WH, WORLDS, Run, mint_through, spread
from tests.support.mint_world import CONVERSION, add_credits, minter, new_world, wallet

POINTS = 20
"""Of a world, in every run: steps to die at once, and steps to die at twice."""
PER_FAULT = 1 + 2 * POINTS
"""Without a death, with one, with two."""
_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of ours is made in it


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A place for stores; in memory where there is one, because deaths here cut no power."""
    if not _MEMORY.is_dir():
        yield tmp_path / "run"
        return
    with tempfile.TemporaryDirectory(dir=_MEMORY) as made:
        yield Path(made) / "run"


def test_the_worlds_of_every_run_are_more_than_five_hundred() -> None:
    assert len(WORLDS) * PER_FAULT == 533


@pytest.mark.chaos
@pytest.mark.parametrize("name", WORLDS, ids=lambda name: f"{name}, {PER_FAULT} worlds")
def test_no_fault_with_no_kill_or_one_or_two_loses_or_doubles_a_token(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    phase = list(WORLDS).index(name)

    def run(*crashes: int) -> Run:
        return asyncio.run(mint_through(folder, WORLDS[name], crashes, monkeypatch))

    steps = run().steps
    once = [run(at) for at in spread(steps, POINTS, phase)]
    # The second life has about as many steps before it as the first had left.
    firsts = spread(steps - steps // 4, POINTS, phase + 1)
    seconds = [(steps - first) * (n % 4) // 5 for n, first in enumerate(firsts)]
    twice = [run(*pair) for pair in zip(firsts, seconds, strict=True)]

    assert 1 + len(once) + len(twice) == PER_FAULT
    assert sum(one.deaths == 1 for one in once) >= POINTS - 2
    assert sum(one.deaths == 2 for one in twice) >= POINTS // 2


@pytest.mark.chaos
@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", WORLDS)
def test_a_minter_killed_at_any_step_and_at_any_other_after_it_mints_exactly_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def run(*crashes: int) -> Run:
        return asyncio.run(mint_through(folder, WORLDS[name], crashes, monkeypatch))

    steps = run().steps
    for at in itertools.count():
        if run(at).deaths == 0:
            break
        # Over all first deaths, second ones of every place.
        run(at, at * 11 % steps)
        run(at, at * 5 % 23)

    assert at >= steps - 2


@pytest.mark.chaos
@pytest.mark.parametrize("form", [TransactionFormat.V0, TransactionFormat.V1])
@pytest.mark.parametrize(
    "name",
    [
        "healthy",
        pytest.param("last valid block", marks=pytest.mark.long),
        pytest.param("fork", marks=pytest.mark.long),
        pytest.param("lost replies", marks=pytest.mark.long),
    ],
)
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
