"""Growing from SQLite to PostgreSQL: every row comes along, and minting goes on where it was."""

import json
from collections import Counter
from pathlib import Path

import pytest

from gridtokenx_cloud.adapters.solana_rpc.transactions import SolanaWallets
from gridtokenx_cloud.adapters.store.copy import copy_store
from gridtokenx_cloud.adapters.store.database import open_database
from gridtokenx_cloud.adapters.store.mint_rebuild import SqlBatchDesk
from gridtokenx_cloud.errors import ConfigError, StoreRefusedError
from gridtokenx_cloud.rebuild import plan
from tests.support import build_cloud as build
from tests.support.archive import DAY_MS, archive
from tests.support.build_cloud import GATEWAY
from tests.support.cloud_process import gtx_cloud
from tests.support.crash import RULES
from tests.support.localnet import served_localnet
from tests.support.mint_world import CONVERSION, minter, new_world
from tests.support.place import Place, hurry
from tests.support.postgres import Server
from tests.support.store_rows import told
from tests.support.stores import another, migrated

pytestmark = pytest.mark.integration


async def test_minting_goes_on_after_the_move_and_the_audit_agrees(
    tmp_path: Path, postgres: Server
) -> None:
    world = await new_world()
    path = tmp_path / "cloud.db"
    with minter(world, path) as before:
        before.credit(1, 1_500, 20)
        await before.service.drain()
        before.credit(2, 700)
        target = migrated(postgres.new_database())
        copied = copy_store(before.database, target)

    with minter(world, target) as after:
        after.credit(1, 30)
        await after.service.drain()
        report = await after.audit()
        minted = after.database.connection.execute(
            "SELECT batch_id, sum(credit_wh) FROM meter_readings WHERE minted = 1"
            " GROUP BY batch_id ORDER BY batch_id"
        ).fetchall()

    assert copied["meter_readings"] == 3
    assert copied["mint_batches"] == 1
    assert report.ok, report.differences
    assert minted == [(1, 1_520), (2, 730)]
    assert world.supply() == 2_250 * 1_000_000


async def test_a_store_from_before_the_mints_is_rebuilt_where_it_has_moved_to(
    tmp_path: Path, postgres: Server
) -> None:
    world = await new_world()
    path = tmp_path / "cloud.db"
    target = migrated(postgres.new_database())
    with minter(world, path, RULES) as before:
        for owner in range(4):
            before.credit(owner, 500 + owner, 3)
        copy_store(before.database, target)
        await before.service.drain()

    with minter(world, target, RULES) as after:
        desk = SqlBatchDesk(target, world.clock, actor="cli:test")
        mints = [one async for one in world.history().mints()]
        lines = desk.lines(SolanaWallets(world.token))
        found = plan(mints[::-1], lines, desk.states(), CONVERSION.base_units_per_wh)
        for one in found.restored:
            desk.restore(one)
        after.credit(1, 40)
        await after.service.drain()
        report = await after.audit()

    assert len(found.restored) == 2
    assert report.differences == ()
    assert world.supply() == CONVERSION.wh_to_base_units(sum(503 + o for o in range(4)) + 40)


async def test_what_was_archived_before_the_move_is_proven_and_audited_after_it(
    tmp_path: Path, postgres: Server
) -> None:
    world = await new_world()
    target = migrated(postgres.new_database())
    later_ms = world.clock.at_ms + 100 * DAY_MS
    with minter(world, tmp_path / "cloud.db") as before:
        ids = before.credit(1, 1_500, 20)
        await before.service.drain()
        before.credit(2, 700)
        archive(before.database, tmp_path / "archive", later_ms).run()
        copied = copy_store(before.database, target)

    with minter(world, target) as after:
        await after.service.drain()
        after.credit(2, 1)
        report = await after.audit()
        box = archive(target, tmp_path / "archive", later_ms + 1)
        moved = box.run()

        assert (copied["meter_readings"], copied["archived_shares"], moved) == (1, 1, 1)
        assert all(box.proves(number) for number in ids)
        assert report.differences == ()
        assert (await after.audit()).differences == ()


def test_lines_go_on_after_the_move_as_if_nothing_had_happened(
    tmp_path: Path, postgres: Server
) -> None:
    with build.cloud(tmp_path) as before:
        before.take(
            GATEWAY.sends(build.slot(96, 1_000), build.slot(97, 1_400)), GATEWAY.message(b"noise")
        )
        target = migrated(postgres.new_database())
        copy_store(before.database, target)

    with build.cloud(target) as after:
        after.take(
            GATEWAY.sends(build.slot(97, 1_400), build.slot(98, 1_450)), GATEWAY.message(b"noise")
        )

        assert after.readings() == [
            (96, "accepted", 0, None),
            (97, "accepted", 400, None),
            (98, "accepted", 50, None),
        ]
        assert after.rows("SELECT first_seq, last_seq FROM seq_ranges") == [(96, 98)]
        assert after.rows("SELECT times FROM rejections") == [(2,)]
        heard = Counter(stream for stream, _, _ in told(after.database))
        assert heard == {"admin": 4, "user:ann": 3}


def test_a_store_in_use_is_neither_copied_nor_copied_over(tmp_path: Path, postgres: Server) -> None:
    target = migrated(postgres.new_database())
    with build.cloud(tmp_path) as source:
        with another(source.database).only_minter(), pytest.raises(ConfigError, match="another"):
            copy_store(source.database, target)
        copy_store(source.database, target)
        with pytest.raises(ConfigError, match="has rows in users already"):
            copy_store(source.database, target)
        with pytest.raises(ConfigError, match="only SQLite to PostgreSQL"):
            copy_store(target, source.database)
    target.close()


def test_a_move_that_fails_leaves_nothing(tmp_path: Path, postgres: Server) -> None:
    target = migrated(postgres.new_database())
    with build.cloud(tmp_path) as source:
        with source.database.transaction() as tx:
            tx.execute("UPDATE users SET wallet = ? WHERE user_id = 'bob'", ("a\0b",))

        with pytest.raises(StoreRefusedError, match="does not take this"):
            copy_store(source.database, target)

    left = target.connection.execute("SELECT count(*) FROM users").fetchone()
    assert left == (0,)
    target.close()


def test_the_commands_move_a_store_that_mints_on_and_audits_well_afterwards(
    tmp_path: Path,
    postgres: Server,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hurry(monkeypatch)
    with served_localnet(block_ms=10) as chain:
        place = Place(tmp_path, chain)
        place.make_token(capsys)
        place.mint(1_500, 20)
        place.credit(700)
        url = postgres.new_database()

        moved = place.gtx("migrate-store", url)
        place.set("GTX_CLOUD_DATABASE_URL", url)
        audited = place.gtx("audit")
        place.mint(30)
        capsys.readouterr()
        again = place.gtx("audit", "--json")
        report = json.loads(capsys.readouterr().out)

    assert (moved, audited, again) == (0, 0, 0)
    assert report["sums"]["supply_base_units"] == str((1_500 + 20 + 700 + 30) * 10**6)


def test_the_command_says_what_it_copied(tmp_path: Path, postgres: Server) -> None:

    with build.cloud(tmp_path):
        pass
    url = postgres.new_database()

    done = gtx_cloud(
        {"GTX_CLOUD_DATABASE_URL": f"sqlite:///{tmp_path / 'cloud.db'}"}, "migrate-store", url
    )

    assert done.returncode == 0, done.stderr
    assert "meters" in done.stdout
    moved = open_database(url)
    assert moved.connection.execute("SELECT count(*) FROM meters").fetchone() == (2,)
    moved.close()
