"""A store that is older than the chain: what it claims may be minted in another batch already."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gridtokenx_cloud.adapters.solana_rpc.transactions import SolanaWallets
from gridtokenx_cloud.adapters.store.mint_audit import SqlAuditStore
from gridtokenx_cloud.adapters.store.mint_rebuild import SqlBatchDesk
from gridtokenx_cloud.audit import unknown_mints
from gridtokenx_cloud.driving import WHOLE_STORE
from gridtokenx_cloud.mint_rules import composer
from gridtokenx_cloud.ports.mint import Attempt, Refusal
from gridtokenx_cloud.rebuild import RebuildPlan, plan
from gridtokenx_cloud.settle import MintingHaltedError
from tests.support.crash import RULES
from tests.support.mint_world import CONVERSION, Minter, World, minter, new_world, wallet

REFUSAL = Refusal("RecipientRefused", "the token account is frozen")


def seal_all(m: Minter) -> None:
    readings = m.service.fetch_unminted_readings(50)
    m.service._seal(m.service._validated(readings), 20)


def give_back(m: Minter, owner: int) -> None:
    """Take a recipient out of batch 1, as when the chain refuses it; its credits go on."""
    compose = composer(m.world.marks)
    now_ms = m.world.clock.now_ms()
    m.store.reseal_without(1, str(wallet(owner).pubkey()), REFUSAL, compose, now_ms)


async def minted_in_another_batch(world: World, folder: Path, *, signed: bool) -> Path:
    """Mint what batch 1 had claimed in batch 2; return a backup in which batch 1 claims it still.

    Args:
        world: Where.
        folder: For the stores.
        signed: Whether batch 1 had an attempt under way at the backup.
    """
    now, backup = folder / "now.db", folder / "backup.db"
    with minter(world, now, RULES) as m:
        await world.solana().create_token_accounts([str(wallet(n).pubkey()) for n in (1, 2)])
        m.credit(1, 500)
        m.credit(2, 700)
        seal_all(m)
        if signed:
            m.store.record_attempt(1, Attempt(1, "1" * 64, b"", 1, sent=False), 1)
            m.store.mark_sent(1, 1, 1)
    shutil.copy(now, backup)
    with minter(world, now, RULES) as m:
        if signed:
            m.store.end_attempt(1, 1, None, 2)
        give_back(m, 1)
        give_back(m, 2)
        await world.sleep(3600)
        await m.service.drain()
        assert desk_of(m).states() == {1: "void", 2: "final"}
    return backup


def desk_of(m: Minter) -> SqlBatchDesk:
    return SqlBatchDesk(m.database, m.world.clock, actor="cli:test")


async def planned(m: Minter) -> RebuildPlan:
    mints = [one async for one in m.world.history().mints()]
    lines = desk_of(m).lines(SolanaWallets(m.world.token))
    return plan(mints[::-1], lines, desk_of(m).states(), CONVERSION.base_units_per_wh)


async def halt_as_at_the_start(m: Minter) -> None:
    strangers = await unknown_mints(SqlAuditStore(m.database), m.world.history())
    assert strangers
    m.service.halt(WHOLE_STORE, "the store does not know a mint")


async def test_a_restored_store_signs_nothing_that_another_batch_may_have_minted(
    tmp_path: Path,
) -> None:
    world = await new_world()
    backup = await minted_in_another_batch(world, tmp_path, signed=False)

    with minter(world, backup, RULES) as m:
        await halt_as_at_the_start(m)
        with pytest.raises(MintingHaltedError, match="does not know a mint"):
            await m.service.drain()
        found = await planned(m)
        for one in found.restored:
            desk_of(m).restore(one)
    with minter(world, backup, RULES) as m:
        m.credit(1, 40)
        await m.service.drain()
        report = await m.audit()

    assert found.differences == ()
    assert report.differences == ()
    assert world.supply() == CONVERSION.wh_to_base_units(1240)


async def test_nothing_is_restored_from_under_a_batch_that_may_be_signed_again(
    tmp_path: Path,
) -> None:
    world = await new_world()
    backup = await minted_in_another_batch(world, tmp_path, signed=True)

    with minter(world, backup, RULES) as m:
        too_early = await planned(m)
        await halt_as_at_the_start(m)
        with pytest.raises(MintingHaltedError):
            await m.service.drain()
        found = await planned(m)
        for one in found.restored:
            desk_of(m).restore(one)
        states = desk_of(m).states()
    with minter(world, backup, RULES) as m:
        await m.service.drain()
        report = await m.audit()

    assert too_early.restored == ()
    assert [one.code for one in too_early.differences] == ["BatchUndecided"]
    assert "batch 1, which is in_flight" in too_early.differences[0].detail
    assert found.differences == ()
    assert states == {1: "void", 2: "final"}
    assert report.differences == ()
    assert world.supply() == CONVERSION.wh_to_base_units(1200)


async def test_a_batch_whose_readings_have_left_it_is_disputed_before_anything_is_sent(
    tmp_path: Path,
) -> None:
    world = await new_world()
    with minter(world, tmp_path / "cloud.db", replace(RULES, max_batch_size=10)) as m:
        m.credit(1, 500)
        first, _ = m.credit(2, 700, 40)
        seal_all(m)
        with m.database.transaction() as tx:
            tx.execute("UPDATE meter_readings SET batch_id = NULL WHERE reading_id = ?", (first,))

        with pytest.raises(MintingHaltedError, match="user-2 would get"):
            await m.service.drain()
        shown = desk_of(m).show(1)
        desk_of(m).release(1, {})
    with minter(world, tmp_path / "cloud.db", RULES) as m:
        await m.service.drain()
        report = await m.audit()

    assert shown["state"] == "disputed"
    assert shown["attempts"] == []
    assert report.differences == ()
    assert world.supply() == CONVERSION.wh_to_base_units(1240)
