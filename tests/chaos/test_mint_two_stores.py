"""The store is not what it was: an old backup, a second minter, a history that is gone."""

import asyncio
import shutil
from pathlib import Path

import pytest

from gridtokenx_cloud.adapters.store.mint_audit import SqlAuditStore
from gridtokenx_cloud.audit import unknown_mints
from gridtokenx_cloud.errors import RpcUnavailableError
from gridtokenx_cloud.settle import MintingHaltedError
from tests.support.crash import RULES, CrashError, Fuse, fused_commits
from tests.support.mint_world import Minter, minter, new_world, wallet

pytestmark = pytest.mark.chaos


def seal_all(m: Minter) -> None:
    """Stop the service right after its batches are sealed."""
    readings = m.service.fetch_unminted_readings(50)
    m.service._seal(m.service._validated(readings), 20)


def copy_store(path: Path, copy: Path) -> None:
    """Copy a closed store."""
    for suffix in ("", "-wal", "-shm"):
        source = path.with_name(path.name + suffix)
        if source.exists():
            shutil.copy(source, copy.with_name(copy.name + suffix))


async def test_a_store_restored_from_before_the_mint_learns_what_was_minted(
    tmp_path: Path,
) -> None:
    world = await new_world()
    now, backup = tmp_path / "now.db", tmp_path / "backup.db"
    with minter(world, now, RULES) as m:
        for owner in (1, 2, 3):
            m.credit(owner, 500)
        seal_all(m)
    copy_store(now, backup)
    with minter(world, now, RULES) as m:
        await m.service.drain()
    await world.sleep(400 * world.block_s)

    with minter(world, backup, RULES) as restored:
        await restored.service.drain()
        report = await restored.audit()

    assert report.differences == ()
    assert world.supply() == 1_500_000_000


async def test_a_store_restored_from_before_the_sealing_is_recognised_at_the_start(
    tmp_path: Path,
) -> None:
    world = await new_world()
    now, backup = tmp_path / "now.db", tmp_path / "backup.db"
    with minter(world, now, RULES) as m:
        m.credit(1, 500)
    copy_store(now, backup)
    with minter(world, now, RULES) as m:
        await m.service.drain()

    with minter(world, backup, RULES) as restored:
        strangers = await unknown_mints(SqlAuditStore(restored.database), world.history())
        restored.service.halt(0, f"the store does not know {strangers[0].signature}")
        with pytest.raises(MintingHaltedError):
            await restored.service.drain()

    assert len(strangers) == 1
    assert world.supply() == 500_000_000


async def test_a_batch_number_used_for_other_content_is_disputed_and_not_minted(
    tmp_path: Path,
) -> None:
    world = await new_world()
    now, backup = tmp_path / "now.db", tmp_path / "backup.db"
    with minter(world, now, RULES) as m:
        m.credit(1, 500)
    copy_store(now, backup)
    with minter(world, now, RULES) as m:
        await m.service.drain()

    with minter(world, backup, RULES) as restored:
        restored.credit(1, 700)
        with pytest.raises(MintingHaltedError, match="minted something else"):
            await restored.service.drain()

    assert world.supply() == 500_000_000


async def test_two_minters_with_their_own_copies_mint_each_batch_once(tmp_path: Path) -> None:
    world = await new_world()
    first, second = tmp_path / "first.db", tmp_path / "second.db"
    with minter(world, first, RULES) as m:
        for owner in (1, 2, 3, 4, 5):
            m.credit(owner, 500)
        seal_all(m)
    copy_store(first, second)

    with minter(world, first, RULES) as one, minter(world, second, RULES) as other:
        await asyncio.gather(one.service.drain(), other.service.drain())
        reports = [await one.audit(), await other.audit()]

    assert world.supply() == 2_500_000_000
    for owner in (1, 2, 3, 4, 5):
        assert world.balance(wallet(owner).pubkey()) == 500_000_000
    # Each calls final what the other may have sent.
    codes = {difference.code for report in reports for difference in report.differences}
    assert codes <= {"UnknownMint"}


@pytest.mark.parametrize("history", [True, False])
async def test_a_minter_that_was_away_for_400_blocks_learns_that_it_had_minted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, history: bool
) -> None:
    world = await new_world()
    path = tmp_path / "cloud.db"
    with minter(world, path) as m:
        await world.solana().create_token_accounts([str(wallet(1).pubkey())])
        m.credit(1, 500)
    fuse = Fuse(None)

    def die_after_the_first_send(method: str) -> None:
        if method == "getSignatureStatuses":
            raise CrashError

    world.rpc.tap = die_after_the_first_send
    with minter(world, path) as m, fused_commits(fuse, monkeypatch), pytest.raises(CrashError):
        await m.service.drain()
    world.rpc.tap = lambda _method: None
    await world.sleep(700 * world.block_s)
    world.chain.faults.hide_history = not history

    with minter(world, path) as m:
        await m.service.drain()
        attempts = m.database.connection.execute("SELECT outcome FROM mint_attempts").fetchall()

    assert [row["outcome"] for row in attempts] == ["landed"]
    assert world.supply() == 500_000_000


async def test_a_signature_that_a_node_makes_up_is_not_believed(tmp_path: Path) -> None:
    world = await new_world()
    original = world.rpc.call

    async def call(method: str, *params: object) -> object:
        reply = await original(method, *params)
        return "1" * 64 if method == "sendTransaction" else reply

    world.rpc.call = call  # type: ignore[method-assign]
    with minter(world, tmp_path / "cloud.db") as m:
        m.credit(1, 500)
        await m.service.drain()
        report = await m.audit()

    assert report.ok
    assert world.supply() == 500_000_000


async def test_an_hour_without_any_node_loses_nothing(tmp_path: Path) -> None:
    world = await new_world()
    away_until_ms = world.clock.now_ms() + 3_600_000

    def down(_method: str) -> None:
        if world.clock.now_ms() < away_until_ms:
            raise RpcUnavailableError("down")

    world.rpc.tap = down
    with minter(world, tmp_path / "cloud.db") as m:
        m.credit(1, 500)
        await m.service.drain()
        report = await m.audit()

    assert report.ok
    assert world.supply() == 500_000_000
