"""What an operator has when the store and the chain disagree; on a localnet without sockets."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.transaction import VersionedTransaction

from gridtokenx_cloud.adapters.localnet.packet import decode_transaction
from gridtokenx_cloud.adapters.solana_rpc.readback import decode_base58
from gridtokenx_cloud.adapters.solana_rpc.transactions import SolanaWallets
from gridtokenx_cloud.adapters.store.mint_rebuild import SqlBatchDesk
from gridtokenx_cloud.errors import DisputedBatchError, NotFoundError
from gridtokenx_cloud.ports.audit import ChainMint
from gridtokenx_cloud.rebuild import RebuildPlan, plan
from gridtokenx_cloud.settle import MintingHaltedError
from tests.support.crash import RULES
from tests.support.mint_world import CONVERSION, PAYER, Minter, World, minter, new_world, wallet


def burn(world: World, owner: Keypair, amount: int, kind: int = 8) -> None:
    """Destroy an owner's tokens by a transaction of the owner's own."""
    token = world.token
    data = bytes([kind]) + amount.to_bytes(8, "little") + (bytes([9]) if kind == 15 else b"")
    accounts = [
        AccountMeta(token.account_of(owner.pubkey()), is_signer=False, is_writable=True),
        AccountMeta(token.mint, is_signer=False, is_writable=True),
        AccountMeta(owner.pubkey(), is_signer=True, is_writable=False),
    ]
    instruction = Instruction(token.program, data, accounts)
    message = Message.new_with_blockhash([instruction], PAYER.pubkey(), world.chain.tip.hash)
    raw = bytes(VersionedTransaction(message, [PAYER, owner]))
    world.chain.submit(decode_transaction(raw, v1=True))


async def test_tokens_that_holders_burned_are_no_difference(tmp_path: Path) -> None:
    world = await new_world()
    with minter(world, tmp_path / "cloud.db", RULES) as m:
        m.credit(1, 500)
        m.credit(2, 700)
        await m.service.drain()
        burn(world, wallet(1), 200_000_000)
        burn(world, wallet(2), 5, kind=15)
        await world.sleep(40)
        report = await m.audit()

    assert report.differences == ()
    assert report.sums.burned_base_units == 200_000_005
    assert report.sums.supply_base_units == 1_200_000_000 - 200_000_005


@pytest.mark.parametrize(
    ("text", "data"), [("", b""), ("11", b"\0\0"), ("2g", b"a"), ("1112", b"\0\0\0\x01")]
)
def test_base58_of_any_length_is_read(text: str, data: bytes) -> None:
    assert decode_base58(text) == data


async def planned(world: World, desk: SqlBatchDesk, known: set[str]) -> RebuildPlan:
    mints = [one async for one in world.history().mints() if one.signature not in known]
    lines = desk.lines(SolanaWallets(world.token))
    return plan(mints[::-1], lines, desk.states(), CONVERSION.base_units_per_wh)


def desk_of(m: Minter) -> SqlBatchDesk:
    return SqlBatchDesk(m.database, m.world.clock, actor="cli:test")


async def minted_after_backup(world: World, folder: Path, batches: int = 3) -> Path:
    """Mint, and return a copy of the store from before that."""
    now, backup = folder / "now.db", folder / "backup.db"
    with minter(world, now, RULES) as m:
        for owner in range(2 * batches):
            m.credit(owner, 500 + owner, 3)
    shutil.copy(now, backup)
    with minter(world, now, RULES) as m:
        await m.service.drain()
    return backup


async def test_a_store_from_before_the_mints_is_rebuilt_from_the_chain_and_the_lines(
    tmp_path: Path,
) -> None:
    world = await new_world()
    backup = await minted_after_backup(world, tmp_path)

    with minter(world, backup, RULES) as m:
        found = await planned(world, desk_of(m), set())
        for one in found.restored:
            desk_of(m).restore(one)
        again = await planned(world, desk_of(m), {one.mint.signature for one in found.restored})
        left = await m.service.drain()
        m.credit(1, 40)
        await m.service.drain()
        report = await m.audit()

    assert found.differences == ()
    assert len(found.restored) == 3
    assert again.restored == ()
    assert left.unminted == 0
    assert report.differences == ()
    owed = sum(500 + owner + 3 for owner in range(6)) + 40
    assert world.supply() == CONVERSION.wh_to_base_units(owed)


async def test_batches_sealed_anew_over_minted_lines_give_way_to_what_the_chain_has(
    tmp_path: Path,
) -> None:
    world = await new_world()
    backup = await minted_after_backup(world, tmp_path)
    with minter(world, backup, RULES) as m:
        m.credit(0, 9)
        readings = m.service.fetch_unminted_readings(50)
        m.service._seal(m.service._validated(readings), 20)

        found = await planned(world, desk_of(m), set())
        for one in found.restored:
            desk_of(m).restore(one)
        await m.service.drain()
        report = await m.audit()

    assert len(found.restored) == 3
    assert report.differences == ()
    assert world.balance(wallet(0).pubkey()) == CONVERSION.wh_to_base_units(512)


async def test_lines_that_are_not_there_are_named_and_nothing_is_guessed(tmp_path: Path) -> None:
    world = await new_world()
    backup = await minted_after_backup(world, tmp_path, batches=1)
    with minter(world, backup, RULES) as m:
        with m.database.transaction() as tx:
            tx.execute("UPDATE meter_readings SET line = ? WHERE credit_wh = 3", (b"altered",))

        found = await planned(world, desk_of(m), set())

    assert found.restored == ()
    assert [one.code for one in found.differences] == ["LinesMissing"]


def test_a_mint_without_our_memo_and_a_taken_batch_are_left_to_an_operator() -> None:
    stranger = ChainMint("s1", 1, {"account": 5}, "hello", ())
    root = "A" * 43
    taken = replace(stranger, signature="s2", memo=f"gm1:7:1:0:0:{root}")

    found = plan([stranger, taken], [], {7: "disputed"}, 1)

    assert [one.code for one in found.differences] == ["UnknownMint", "BatchTaken"]
    assert "batch resolve 7" in found.differences[1].detail


async def test_a_disputed_batch_is_released_and_the_chain_s_own_restored(tmp_path: Path) -> None:
    world = await new_world()
    now, backup = tmp_path / "now.db", tmp_path / "backup.db"
    with minter(world, now, RULES) as m:
        m.credit(1, 500)
    shutil.copy(now, backup)
    with minter(world, now, RULES) as m:
        await m.service.drain()

    with minter(world, backup, RULES) as m:
        m.credit(1, 700)
        with pytest.raises(MintingHaltedError, match="minted something else"):
            await m.service.drain()
        shown = desk_of(m).show(1)
        freed = desk_of(m).release(1, {"marker_exists": True})
        found = await planned(world, desk_of(m), set())
        for one in found.restored:
            desk_of(m).restore(one)
    with minter(world, backup, RULES) as m:
        await m.service.drain()
        report = await m.audit()

    assert shown["state"] == "disputed"
    assert freed == 2
    assert len(found.restored) == 1
    assert report.differences == ()
    assert world.balance(wallet(1).pubkey()) == CONVERSION.wh_to_base_units(1200)


async def test_a_credit_that_stays_in_a_batch_that_is_over_is_a_difference(tmp_path: Path) -> None:
    world = await new_world()
    with minter(world, tmp_path / "cloud.db", RULES) as m:
        m.credit(1, 500)
        await m.service.drain()
        [reading] = m.credit(1, 40)
        with m.database.transaction() as tx:
            tx.execute("UPDATE meter_readings SET batch_id = 1 WHERE reading_id = ?", (reading,))
        report = await m.audit()

    assert [one.code for one in report.differences] == ["ReadingStranded", "SharesDiffer"]


async def test_only_a_disputed_batch_can_be_decided(tmp_path: Path) -> None:
    world = await new_world()
    with minter(world, tmp_path / "cloud.db", RULES) as m:
        m.credit(1, 500)
        await m.service.drain()

        with pytest.raises(DisputedBatchError, match="nothing was changed"):
            desk_of(m).release(1, {})
        with pytest.raises(DisputedBatchError, match="nothing was changed"):
            desk_of(m).reopen(1, {})
        with pytest.raises(NotFoundError):
            desk_of(m).show(99)


async def test_a_disputed_batch_can_be_driven_again_once_the_history_is_back(
    tmp_path: Path,
) -> None:
    world = await new_world()
    now, backup = tmp_path / "now.db", tmp_path / "backup.db"
    with minter(world, now, RULES) as m:
        m.credit(1, 500)
        readings = m.service.fetch_unminted_readings(50)
        m.service._seal(m.service._validated(readings), 20)
    shutil.copy(now, backup)
    with minter(world, now, RULES) as m:
        await m.service.drain()
    await world.sleep(700 * world.block_s)
    world.chain.faults.hide_history = True

    with minter(world, backup, RULES) as m:
        with pytest.raises(MintingHaltedError, match="keeps no history"):
            await m.service.drain()
        world.chain.faults.hide_history = False
        desk_of(m).reopen(1, {"marker_exists": True})
    with minter(world, backup, RULES) as m:
        await m.service.drain()
        report = await m.audit()

    assert report.differences == ()
    assert world.supply() == 500_000_000
