"""How the buffer stays within its bound, and what it does when the disk does not help."""

import asyncio
import sqlite3
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridtokenx_agent.adapters.buffer_file import open_file
from gridtokenx_agent.adapters.buffer_room import ROWS_AT_ONCE, Reserve
from gridtokenx_agent.adapters.buffer_statements import BufferFile, Change
from gridtokenx_agent.adapters.buffer_status import read_status
from gridtokenx_agent.adapters.sqlite_buffer import SqliteBuffer, open_buffer
from gridtokenx_agent.errors import BufferFullError, StoreError
from gridtokenx_agent.ports import NewRow
from tests.support import build

GATEWAY = build.SIGNER.gateway_id
MB = 1024 * 1024
LINE_BYTES = 480


def rows_at(wall_ms: int, first_seq: int, kinds: list[str]) -> list[NewRow]:
    """Return rows of the size of real ones, without the price of signing."""
    return [
        NewRow(
            epoch=build.EPOCH,
            seq=seq,
            kind=kind,
            wall_ms=wall_ms,
            line=f"{seq:020}".encode() * (LINE_BYTES // 20),
        )
        for seq, kind in enumerate(kinds, first_seq)
    ]


@pytest.fixture
def file(tmp_path: Path) -> Iterator[BufferFile]:
    opened = BufferFile(open_file(tmp_path / "b.db", GATEWAY, 4, 0), 1_000)
    yield opened
    opened.close()


def run(file: BufferFile, days: float, slots_every: int = 90, rows_per_commit: int = 20) -> int:
    """Take a sample every 10 s and a slot every quarter of an hour; return the slots."""
    seq = slots = 0
    steps = int(days * 8_640)
    for first in range(0, steps, rows_per_commit):
        rows: list[NewRow] = []
        for step in range(first, min(first + rows_per_commit, steps)):
            kinds = ["sample", "slot"] if step % slots_every == 0 else ["sample"]
            rows += rows_at(build.NOON_MS + step * 10_000, seq + len(rows) + 1, kinds)
            slots += len(kinds) - 1
        seq += len(rows)
        file.commit(build.state("M1", seq), rows, {})
    return slots


def count(path: Path, kind: str) -> int:
    return read_status(path).pending[kind]


def test_a_week_in_a_small_file_keeps_every_slot_and_thins_samples(
    tmp_path: Path, file: BufferFile
) -> None:
    slots = run(file, days=2)

    assert slots == 192
    assert count(tmp_path / "b.db", "slot") == slots
    assert 500 < count(tmp_path / "b.db", "sample") < 6_000
    assert (tmp_path / "b.db").stat().st_size <= 4 * MB


def test_old_samples_are_thinned_to_one_a_minute_first(tmp_path: Path) -> None:
    file = BufferFile(open_file(tmp_path / "b.db", GATEWAY, 10, 0, reserve_mb=0), 1_000)

    run(file, days=1.9)

    newest, gaps = sample_gaps_ms(tmp_path / "b.db")
    day_old = [gap for at, gap in gaps if at < newest - 90_000_000]
    young = [gap for at, gap in gaps if at > newest - 80_000_000]
    assert set(day_old) == {60_000}
    assert set(young) == {10_000}
    file.close()


def sample_gaps_ms(path: Path) -> tuple[int, list[tuple[int, int]]]:
    connection = sqlite3.connect(path)
    times = [
        at
        for (at,) in connection.execute(
            "SELECT wall_ms FROM outbox WHERE kind = 'sample' ORDER BY wall_ms"
        )
    ]
    connection.close()
    return times[-1], [(at, later - at) for at, later in pairwise(times)]


def test_nothing_is_thinned_below_70_percent(tmp_path: Path, file: BufferFile) -> None:
    run(file, days=0.4)

    assert file._room.percent() < 70
    assert count(tmp_path / "b.db", "sample") == 3_456


def test_one_commit_looks_at_a_few_thousand_samples_at_most(tmp_path: Path) -> None:
    file = BufferFile(open_file(tmp_path / "b.db", GATEWAY, 64, 0, reserve_mb=0), 1_000)
    run(file, days=4, rows_per_commit=400)
    file._room._max_pages = 1_000

    before = count(tmp_path / "b.db", "sample")
    file.commit(build.state("M1", 10**6), [], {})

    assert 0 < before - count(tmp_path / "b.db", "sample") <= ROWS_AT_ONCE
    file.close()


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 4 * 10**12),
            st.lists(st.sampled_from(["sample", "sample", "slot", "event"]), min_size=60),
        ),
        max_size=30,
    )
)
def test_whatever_the_clock_says_no_slot_and_no_event_is_ever_thinned(
    tmp_path_factory: pytest.TempPathFactory, commits: list[tuple[int, list[str]]]
) -> None:
    path = tmp_path_factory.mktemp("thin") / "b.db"
    file = BufferFile(open_file(path, GATEWAY, 1, 0, reserve_mb=0), 1_000)
    seq = 0
    kept = {"slot": 0, "event": 0}

    for wall_ms, kinds in commits:
        rows = rows_at(wall_ms, seq + 1, kinds)
        try:
            file.commit(build.state("M1", seq + len(rows)), rows, {})
        except BufferFullError:
            break
        seq += len(rows)
        for kind in kept:
            kept[kind] += kinds.count(kind)

    assert {kind: count(path, kind) for kind in kept} == kept
    assert path.stat().st_size <= MB
    file.close()


def test_the_reserve_is_laid_where_there_is_room_and_can_be_given_up(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "r", 8)

    reserve.lay()
    laid = (tmp_path / "r").stat()

    assert laid.st_size == 8 * MB
    assert laid.st_blocks * 512 >= 8 * MB
    assert reserve.give_up()
    assert not reserve.give_up()


def test_without_a_folder_to_write_to_there_is_simply_no_reserve(tmp_path: Path) -> None:
    Reserve(tmp_path / "none" / "r", 8).lay()

    assert not (tmp_path / "none").exists()


def test_a_disk_that_turned_read_only_is_told_and_what_is_there_can_still_be_sent(
    file: BufferFile,
) -> None:
    file.commit(build.state("M1", 1), rows_at(build.NOON_MS, 1, ["slot"]), {})
    file._database.execute("PRAGMA query_only=ON")

    with pytest.raises(BufferFullError, match="readonly"):
        file.commit(build.state("M1", 2), rows_at(build.NOON_MS, 2, ["slot"]), {})

    assert "can be written" in file.trouble
    assert len(file.due(0, 50, ())) == 1
    file._database.execute("PRAGMA query_only=OFF")
    file.commit(build.state("M1", 2), rows_at(build.NOON_MS, 2, ["slot"]), {})
    assert file.trouble == ""
    assert len(file.due(0, 50, ())) == 2


def test_a_drained_buffer_gives_its_space_back(tmp_path: Path, file: BufferFile) -> None:
    for seq in range(0, 4_000, 100):
        file.commit(build.state("M1", seq + 100), rows_at(seq, seq + 1, ["slot"] * 100), {})
    file.mark_sent(range(1, 4_001), 0)
    full = (tmp_path / "b.db").stat().st_size

    for seq in range(0, 4_000, 100):
        file.settle(build.receipt("M1", (seq + 1, seq + 100)), ())

    file._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert (tmp_path / "b.db").stat().st_size < full // 2


def test_the_log_of_the_file_stays_small(file: BufferFile) -> None:
    (pages,) = file._database.execute("PRAGMA wal_autocheckpoint").fetchone()
    (vacuum,) = file._database.execute("PRAGMA auto_vacuum").fetchone()

    assert (pages, vacuum) == (256, 2)


async def test_meters_that_commit_at_the_same_time_share_one_transaction(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path / "b.db", GATEWAY, 4, 900, 0)
    transactions = watched(buffer)

    await asyncio.gather(
        *(
            buffer.commit(build.state(f"M{number}", 1), rows_at(0, 1, ["sample"]), {})
            for number in range(10)
        )
    )

    assert len(transactions) <= 2
    assert len(await buffer.states()) == 10
    buffer.close()


async def test_one_meter_that_would_use_a_number_twice_costs_the_others_nothing(
    tmp_path: Path,
) -> None:
    buffer = open_buffer(tmp_path / "b.db", GATEWAY, 4, 900, 0)
    await buffer.commit(build.state("M1", 5), rows_at(0, 5, ["slot"]), {})

    ends = await asyncio.gather(
        buffer.commit(build.state("M1", 5), rows_at(0, 5, ["slot"]), {}),
        buffer.commit(build.state("M2", 1), rows_at(0, 1, ["slot"]), {}),
        return_exceptions=True,
    )

    assert isinstance(ends[0], StoreError)
    assert ends[1] is None
    assert (await buffer.states())["M2"].seq == 1
    buffer.close()


def watched(buffer: SqliteBuffer) -> list[int]:
    """Return a list that grows by the number of changes of each transaction."""
    sizes: list[int] = []
    commit_all = buffer._file.commit_all

    def noted(changes: list[Change]) -> None:
        sizes.append(len(changes))
        commit_all(changes)

    buffer._file.commit_all = noted  # type: ignore[assignment,method-assign]
    return sizes


def test_a_backlog_is_made_due_again_in_steps_that_a_new_slot_gets_in_between(
    file: BufferFile,
) -> None:
    count = ROWS_AT_ONCE + 5
    file.commit(build.state("M1", count), rows_at(build.NOON_MS, 1, ["sample"] * count), {})
    file.mark_sent(range(1, count + 1), 1_000)

    steps = [file.resend_some(), file.resend_some(), file.resend_some()]

    assert steps == [True, False, False]
    assert len(file.due(0, count + 1, ())) == count
