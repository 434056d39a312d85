"""Old readings in files: nothing lost, nothing counted twice, every proof as before."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from gridtokenx_cloud.adapters import parquet
from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.mint_audit import SqlAuditStore
from gridtokenx_cloud.adapters.store.postgres import PostgresDatabase
from gridtokenx_cloud.adapters.store.sqlite import SqliteDatabase
from gridtokenx_cloud.adapters.store.views import SqlViews
from gridtokenx_cloud.errors import ArchiveUnavailableError, NotFoundError, StoreBusyError
from gridtokenx_cloud.ports.archive import ArchivedReading, ArchiveFile
from tests.support import build_cloud as build
from tests.support.archive import DAY_MS, archive, stored
from tests.support.build_cloud import GATEWAY, METER_ID, NOON_MS
from tests.support.crash import CrashError, Fuse
from tests.support.mint_world import Minter, minter, new_world
from tests.support.stores import another

LATER_MS = NOON_MS + 100 * DAY_MS


@pytest.fixture
def database(new_store: Callable[[], Database]) -> Iterator[Database]:
    store = new_store()
    yield store
    store.close()


async def test_what_is_archived_is_proven_audited_and_shown_as_before(
    database: Database, tmp_path: Path
) -> None:
    world = await new_world()
    with minter(world, database) as mint:
        ids = [n for owner in range(3) for n in mint.credit(owner, 100, 200, 300)]
        await mint.service.drain()
        waiting = mint.credit(1, 50)
        views = SqlViews(database, world.clock)
        before, _ = views.mints(None, None, 10)
        box = archive(database, tmp_path / "archive", LATER_MS)

        assert box.run() == len(ids)
        assert box.run() == 0

        assert stored(database) == waiting
        assert all(box.proves(number) for number in ids)
        assert (await mint.audit()).differences == ()
        assert views.mints(None, None, 10)[0] == before
        with pytest.raises(NotFoundError, match="not minted"):
            box.proves(waiting[0])
        with pytest.raises(ArchiveUnavailableError, match="set GTX_CLOUD_ARCHIVE_DIR"):
            SqlAuditStore(database).proof_source(ids[0])
        await mint.service.drain()
        assert (await mint.audit()).ok
        assert world.supply() == (1_800 + 50) * 1_000_000


async def test_a_batch_whose_readings_went_at_different_times_is_proven_from_all_places(
    database: Database, tmp_path: Path
) -> None:
    world = await new_world()
    with minter(world, database) as mint:
        old = mint.credit(1, 100, 200)
        world.clock.at_ms += 20 * DAY_MS
        young = mint.credit(1, 300)
        await mint.service.drain()
        mint.credit(2, 5)
        box = archive(database, tmp_path, LATER_MS, per_file=1)

        gone = box.run()
        with_both = [box.proves(number) for number in old + young]
        box.clock.at_ms += 20 * DAY_MS
        later = box.run()

        assert (gone, later) == (2, 1)
        assert with_both == [True, True, True]
        assert box.proves(young[0])
        assert (await mint.audit()).ok


def test_what_is_not_settled_or_still_asked_of_a_meter_stays(
    database: Database, tmp_path: Path
) -> None:
    with build.cloud(database) as cloud:
        cloud.take(GATEWAY.sends(*(build.slot(seq, 1_000) for seq in range(90, 96))))
        cloud.take(GATEWAY.sends(build.slot(96, 10), build.slot(97, 1_300)))
        cloud.take(GATEWAY.sends(build.slot(98, 1_300)))
        box = archive(database, tmp_path, LATER_MS)

        gone = box.run()
        # A line of the archive comes again, and the count goes on.
        outcome = cloud.take(GATEWAY.sends(build.slot(92, 1_000), build.slot(99, 1_500)))

        assert gone == 5
        assert cloud.readings() == [
            (90, "accepted", 0, None),  # the first one of the epoch
            (96, "held", 0, "CounterBackwards"),
            (97, "accepted", 300, None),  # not minted yet
            (98, "accepted", 0, None),  # the newest
            (99, "accepted", 200, None),
        ]
        assert build.receipt(outcome).rejected == ()
        assert cloud.service.totals["duplicate"] == 1
        assert cloud.rows("SELECT first_seq, last_seq FROM seq_ranges") == [(90, 99)]
        assert cloud.rows("SELECT * FROM rejections") == []


def test_a_file_holds_whole_rows_and_a_manifest_beside_it(
    database: Database, tmp_path: Path
) -> None:
    with build.cloud(database) as cloud:
        cloud.take(GATEWAY.sends(*(build.slot(seq, 1_000) for seq in range(90, 96))))
        box = archive(database, tmp_path, LATER_MS, per_file=100)

        (file,) = box.service.run(90)

        manifest = json.loads((tmp_path / f"{file.name}.json").read_text())
        (row,) = [one for one in box.folder._read(tmp_path / file.name) if one.seq == 91]
        assert manifest["sha256"] == file.sha256
        assert (manifest["readings"], manifest["credit_wh"]) == (4, 0)
        assert row.line == GATEWAY.line(build.slot(91, 1_000))
        assert (row.meter_id, row.status, row.submitted_at_ms) == (METER_ID, "accepted", NOON_MS)
        assert box.service.store.files() == [file]
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            ".lock",
            file.name,
            f"{file.name}.json",
        ]
        assert box.folder.faults(file) == []


def test_a_file_that_was_changed_or_is_gone_is_found(database: Database, tmp_path: Path) -> None:
    with build.cloud(database) as cloud:
        cloud.take(GATEWAY.sends(*(build.slot(seq, 1_000) for seq in range(90, 96))))
        box = archive(database, tmp_path, LATER_MS)
        changed, gone = box.service.run(90)
        path = tmp_path / changed.name
        path.write_bytes(path.read_bytes()[:-9] + b"x" + path.read_bytes()[-8:])
        (tmp_path / gone.name).unlink()

        faults = [box.folder.faults(file) for file in (changed, gone)]

        assert faults[0] == ["its SHA-256 is not the one of what was written"]
        assert "cannot be read" in faults[1][0]


def test_a_disk_that_does_not_give_back_what_was_written_costs_no_reading(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with build.cloud(database) as cloud:
        cloud.take(GATEWAY.sends(*(build.slot(seq, 1_000) for seq in range(90, 96))))
        box = archive(database, tmp_path, LATER_MS)
        before = stored(database)

        def lossy(self: parquet.ParquetFolder, path: Path) -> list[ArchivedReading]:
            return []

        with monkeypatch.context() as patch:
            patch.setattr(parquet.ParquetFolder, "_read", lossy)
            with pytest.raises(ArchiveUnavailableError, match="does not give back"):
                box.run()

        assert stored(database) == before
        assert box.run() == 4


def test_a_reading_that_changes_while_its_file_is_written_stays(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with build.cloud(database) as cloud:
        cloud.take(GATEWAY.sends(*(build.slot(seq, 1_000) for seq in range(90, 96))))
        box = archive(database, tmp_path, LATER_MS)
        before = stored(database)
        original = parquet.ParquetFolder.write

        def slow(self: parquet.ParquetFolder, *values: Any) -> ArchiveFile:
            with database.transaction() as tx:
                tx.execute("UPDATE meter_readings SET reading_timestamp_ms = 5 WHERE seq = 92")
            return original(self, *values)

        with monkeypatch.context() as patch:
            patch.setattr(parquet.ParquetFolder, "write", slow)
            with pytest.raises(StoreBusyError, match="1 of its readings have changed"):
                box.run()

        assert stored(database) == before
        assert box.run() == 4


def test_one_archives_at_a_time_into_a_folder(database: Database, tmp_path: Path) -> None:
    box = archive(database, tmp_path, LATER_MS)

    with (
        box.folder.locked(),
        pytest.raises(ArchiveUnavailableError, match="another program archives"),
    ):
        box.run()


@contextmanager
def fused(fuse: Fuse, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make every commit and every change of the folder a step at which a kill may come."""
    with patch.context() as inner:
        for kind in (SqliteDatabase, PostgresDatabase):
            inner.setattr(kind, "transaction", _fused_transaction(kind.transaction, fuse))
        inner.setattr(os, "fsync", _fused_call(os.fsync, fuse))
        inner.setattr(Path, "replace", _fused_call(Path.replace, fuse))
        inner.setattr(pq, "write_table", _fused_call(pq.write_table, fuse))
        yield


def _fused_call(call: Callable[..., Any], fuse: Fuse) -> Callable[..., Any]:
    def fused_call(*values: Any, **named: Any) -> Any:
        fuse.step()
        done = call(*values, **named)
        fuse.step()
        return done

    return fused_call


def _fused_transaction(original: Callable[..., Any], fuse: Fuse) -> Callable[..., Any]:
    @contextmanager
    def transaction(self: Any) -> Iterator[Any]:
        fuse.step()
        with original(self) as tx:
            yield tx
            fuse.step()
        fuse.step()

    return transaction


async def test_killed_at_any_step_the_next_run_ends_the_work(
    new_store: Callable[[], Database], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await new_world()
    database = new_store()
    with minter(world, database) as mint:
        ids = mint.credit(1, 100, 200, 300, 400) + mint.credit(2, 7)
        await mint.service.drain()
        last = mint.credit(2, 9)
        lines = lines_of(database)
        crashes = 0
        box = archive(database, tmp_path, LATER_MS, per_file=2)
        for at in range(1_000):
            box.clock.at_ms += 1
            fuse = Fuse(at)
            try:
                with fused(fuse, monkeypatch):
                    box.run()
            except CrashError:
                crashes += 1
                check(mint, box_lines(box), lines)
                assert (await mint.audit()).ok, at
                continue
            break

        assert crashes > 20
        assert stored(database) == last
        assert all(box.proves(number) for number in ids)
        assert all(not box.folder.faults(file) for file in box.service.store.files())
        assert not list(tmp_path.glob("*.part"))
        assert len(list(tmp_path.glob("*.parquet"))) == len(box.service.store.files()) == 3


def lines_of(database: Database) -> dict[int, bytes]:
    rows = database.connection.execute("SELECT reading_id, line FROM meter_readings")
    return {row["reading_id"]: bytes(row["line"]) for row in rows}


def box_lines(box: Any) -> list[tuple[int, bytes]]:
    """Return every line that the books say is in a file."""
    return [
        (one.reading_id, one.line)
        for file in box.service.store.files()
        for one in box.folder._read(box.folder.folder / file.name)
    ]


def check(mint: Minter, archived: list[tuple[int, bytes]], lines: dict[int, bytes]) -> None:
    """Each line is in one place, as it was."""
    reader = another(mint.database)
    here = list(lines_of(reader).items())
    reader.close()
    assert sorted(here + archived) == sorted(lines.items())
