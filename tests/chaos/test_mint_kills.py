"""A minter in its own process, over HTTP, killed with SIGKILL wherever it happens to be."""

import asyncio
import multiprocessing
import random
import signal
from pathlib import Path

import pytest

from gridtokenx_cloud.adapters.localnet import serve
from gridtokenx_cloud.adapters.localnet.server import tick
from gridtokenx_cloud.adapters.store.mint_audit import SqlAuditStore
from gridtokenx_cloud.adapters.store.sqlite import SqliteDatabase
from gridtokenx_cloud.audit import run_audit
from tests.support.mint_world import CONVERSION, NOON_MS, World, add_credits, new_world, wallet
from tests.support.minter_process import BLOCK_MS, mint_all
from tests.support.stores import migrated, sqlite_of

KILLS = 50
OWNERS = range(1, 8)
MOST_LIVES = 400
"""A life that mints everything before its end is no kill; the next one is owed more."""
TROUBLES: tuple[dict[str, object], ...] = (
    {},
    {"lose_sends": 1},
    {"lose_replies": 2},
    {"drop_silently": 2},
    {"lose_replies": 1, "drop_silently": 1},
)


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.xdist_group("kills")
async def test_fifty_kills_of_a_minter_leave_the_supply_equal_to_what_is_owed(
    tmp_path: Path,
) -> None:
    world, draw, path = await new_world(), random.Random(20261125), tmp_path / "cloud.db"
    await world.solana().create_token_accounts([str(wallet(n).pubkey()) for n in OWNERS])
    database = sqlite_of(migrated(f"sqlite:///{path}"))
    owed_wh = dict.fromkeys(OWNERS, 0)
    kills = lives = 0

    async with await serve(world.chain) as server:
        blocks = asyncio.create_task(tick(world.chain, BLOCK_MS))
        while kills < KILLS and lives < MOST_LIVES:
            for owner in draw.sample(OWNERS, 3):
                credit_wh = draw.randint(1, 900)
                owed_wh[owner] += credit_wh
                add_credits(database, owner, (credit_wh,), NOON_MS)
            world.chain.faults.update(dict(TROUBLES[lives % len(TROUBLES)]))
            kills += await one_life(path, server.url, world, draw.uniform(0.0, 0.35))
            lives += 1
        await one_life(path, server.url, world, None)
        blocks.cancel()

    assert kills == KILLS
    await everything_is_minted_once(world, database, owed_wh)
    database.close()


async def one_life(path: Path, url: str, world: World, after_s: float | None) -> bool:
    """Let a minter work, and kill it so long after its start; tell whether it died of that."""
    # Forked from a process that has everything loaded, a life costs little.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.minter_process"])
    ours, theirs = context.Pipe()
    process = context.Process(target=mint_all, args=(path, url, str(world.token.mint), theirs))
    process.start()
    await asyncio.to_thread(ours.recv)
    await asyncio.to_thread(process.join, after_s)
    process.kill()
    await asyncio.to_thread(process.join)
    ours.close()
    theirs.close()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


async def everything_is_minted_once(
    world: World, database: SqliteDatabase, owed_wh: dict[int, int]
) -> None:
    world.chain.advance(400)
    report = await run_audit(SqlAuditStore(database), world.history(), CONVERSION)
    assert report.differences == ()
    for owner, credit_wh in owed_wh.items():
        assert world.balance(wallet(owner).pubkey()) == CONVERSION.wh_to_base_units(credit_wh)
    assert world.supply() == CONVERSION.wh_to_base_units(sum(owed_wh.values()))
