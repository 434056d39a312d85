"""Rent that comes back, and a payer that gets poor; on a localnet without sockets."""

import logging
from pathlib import Path

import pytest
from solders.pubkey import Pubkey

from gridtokenx_cloud.adapters.solana_rpc.tables import LookupTables
from gridtokenx_cloud.adapters.solana_rpc.upkeep import SolanaUpkeep
from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.mint_upkeep import SqlMintUpkeep
from gridtokenx_cloud.formats import TransactionFormat
from gridtokenx_cloud.janitor import Janitor, JanitorRules
from tests.support.crash import RULES, CrashError, Fuse, fused_commits
from tests.support.mint_world import PAYER, Minter, World, minter, new_world

DAY_MS = 86_400_000
RETENTION_DAYS = 30


def janitor(
    world: World,
    database: Database,
    form: TransactionFormat = TransactionFormat.LEGACY,
    low_transactions: int = 1,
) -> Janitor:
    store, sender = SqlMintUpkeep(database), world.sender()
    tables = LookupTables(sender, store, world.clock)
    chain = SolanaUpkeep(sender, world.marks, form, tables)
    return Janitor(store, chain, world.clock, JanitorRules(RETENTION_DAYS, low_transactions))


def lamports(world: World) -> int:
    account = world.chain.account_at(PAYER.pubkey(), world.chain.tip)
    return account.lamports if account else 0


def markers(world: World, m: Minter) -> list[str]:
    rows = m.database.connection.execute("SELECT marker FROM mint_batches").fetchall()
    found = [row["marker"] for row in rows]
    view = world.chain.block_at("finalized")
    return [one for one in found if world.chain.account_at(Pubkey.from_string(one), view)]


async def minted(world: World, m: Minter, batches: int) -> None:
    for owner in range(2 * batches):
        m.credit(owner, 500)
    await m.service.drain()


@pytest.mark.parametrize("form", [TransactionFormat.LEGACY, TransactionFormat.V1])
async def test_a_marker_stands_for_the_retention_and_then_its_rent_comes_back(
    tmp_path: Path, form: TransactionFormat
) -> None:
    world = await new_world()
    with minter(world, tmp_path / "cloud.db", RULES) as m:
        await minted(world, m, 9)
        keeper = janitor(world, m.database, form)
        world.clock.at_ms += (RETENTION_DAYS - 1) * DAY_MS
        await keeper.tidy()
        kept = len(markers(world, m))
        before = lamports(world)

        world.clock.at_ms += 2 * DAY_MS
        await keeper.tidy()
        await keeper.tidy()
        report = await m.audit()
        left = markers(world, m)
        came_back = m.database.connection.execute(
            "SELECT SUM(lamports) AS sum FROM marker_reclaims"
        ).fetchone()["sum"]

    assert kept == 9
    assert left == []
    assert came_back == 9 * world.chain.rent_minimum_lamports(0)
    assert 0 < before + came_back - lamports(world) < 30_000
    assert report.differences == ()


@pytest.mark.no_cover  # the same lines a thousand times
async def test_a_janitor_killed_at_any_step_empties_every_marker_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at, finished = 0, False
    while not finished:
        world = await new_world()
        with minter(world, tmp_path / f"{at}.db", RULES) as m:
            await minted(world, m, 2)
            world.clock.at_ms += (RETENTION_DAYS + 1) * DAY_MS
            fuse = Fuse(at)

            def tap(_method: str, fuse: Fuse = fuse) -> None:
                fuse.step()

            world.rpc.tap = tap
            try:
                with fused_commits(fuse, monkeypatch):
                    await janitor(world, m.database).tidy()
                finished = True
            except CrashError:
                pass
            world.rpc.tap = lambda _method: None
            between = await m.audit()
            await janitor(world, m.database).tidy()
            after = await m.audit()
            left = markers(world, m)
        at += 1

        assert between.differences == ()
        assert after.differences == ()
        assert left == []

    assert at > 10


async def test_a_payer_that_gets_low_is_reported_once_and_once_when_it_is_well_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = await new_world()
    caplog.set_level(logging.INFO)
    with minter(world, tmp_path / "cloud.db") as m:
        keeper = janitor(world, m.database, low_transactions=100_000)
        assert list(keeper.figures()) == []

        await keeper.watch_payer()
        await keeper.watch_payer()
        world.chain.airdrop(PAYER.pubkey(), 10**12)
        await world.sleep(10)
        await keeper.watch_payer()

    told = [one.message for one in caplog.records if one.message.startswith("payer_")]
    assert told == ["payer_low", "payer_topped_up"]
    values = {figure.name: figure.value for figure in keeper.figures()}
    assert values["payer_balance_lamports"] > 10**12
    assert values["payer_transactions_left"] > 100_000
