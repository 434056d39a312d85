"""A backup comes back: the same store, or an older one that the chain brings up to date."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gridtokenx_cloud.adapters.solana_rpc.transactions import SolanaWallets
from gridtokenx_cloud.adapters.store.database import Database, open_database
from gridtokenx_cloud.adapters.store.migrate import check_schema
from gridtokenx_cloud.adapters.store.mint_rebuild import SqlBatchDesk
from gridtokenx_cloud.adapters.store.postgres import PostgresDatabase
from gridtokenx_cloud.ports.audit import ChainMint
from gridtokenx_cloud.rebuild import plan
from tests.support.archive import DAY_MS, archive, stored
from tests.support.crash import RULES
from tests.support.mint_world import CONVERSION, World, minter, new_world
from tests.support.postgres import Server

pytestmark = pytest.mark.integration
Restore = Callable[[Path], Database]


@pytest.fixture
def store(new_store: Callable[[], Database]) -> Database:
    return new_store()


@pytest.fixture
def restore(store: Database, request: pytest.FixtureRequest) -> Restore:
    """Give what makes a store of a backup, as the operator guide says."""

    def from_file(copy: Path) -> Database:
        if not isinstance(store, PostgresDatabase):
            return open_database(f"sqlite:///{copy}")
        server: Server = request.getfixturevalue("postgres")
        url = server.new_database()
        subprocess.run(["pg_restore", "--no-owner", "-d", url, str(copy)], check=True)
        return open_database(url)

    return from_file


async def test_a_restored_backup_agrees_with_the_chain_and_minting_goes_on(
    store: Database, restore: Restore, tmp_path: Path
) -> None:
    world = await new_world()
    copy = tmp_path / "copy"
    with minter(world, store) as before:
        before.credit(1, 1_500, 20)
        await before.service.drain()
        waiting = before.credit(2, 700)
        store.backup(copy)

    with minter(world, restore(copy)) as after:
        check_schema(after.database)
        found = await after.audit()
        after.credit(1, 30)
        await after.service.drain()
        later = await after.audit()
        minted = after.store.results_of(waiting)

    assert found.differences == ()
    assert later.differences == ()
    assert [one.success for one in minted] == [True]
    assert world.supply() == CONVERSION.wh_to_base_units(1_500 + 20 + 700 + 30)


async def test_a_backup_from_before_the_mints_and_the_archive_is_rebuilt_and_archived_again(
    store: Database, restore: Restore, tmp_path: Path
) -> None:
    world = await new_world()
    copy, folder = tmp_path / "copy", tmp_path / "archive"
    later_ms = world.clock.at_ms + 100 * DAY_MS
    with minter(world, store, RULES) as before:
        ids = [n for owner in range(4) for n in before.credit(owner, 500 + owner, 3)]
        store.backup(copy)
        await before.service.drain()
        before.credit(9, 1)
        archived = archive(store, folder, later_ms).run()

    with minter(world, restore(copy), RULES) as after:
        rebuild(after.database, world, [one async for one in world.history().mints()])
        last = after.credit(9, 1)
        report = await after.audit()
        box = archive(after.database, folder, later_ms + 1)
        again = box.run()
        audited = await after.audit()

        assert all(box.proves(number) for number in ids)
        assert stored(after.database) == last

    assert archived == again == len(ids)
    assert report.differences == ()
    assert audited.differences == ()


def rebuild(database: Database, world: World, mints: list[ChainMint]) -> None:
    desk = SqlBatchDesk(database, world.clock, actor="cli:test")
    lines = desk.lines(SolanaWallets(world.token))
    found = plan(mints[::-1], lines, desk.states(), CONVERSION.base_units_per_wh)
    assert found.differences == ()
    for one in found.restored:
        desk.restore(one)
