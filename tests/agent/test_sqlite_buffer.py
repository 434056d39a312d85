"""The buffer on disk: kills, broken files, a full disk, and random histories."""

import json
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gridtokenx_agent.adapters.buffer_file import open_file
from gridtokenx_agent.adapters.buffer_statements import BufferFile
from gridtokenx_agent.adapters.buffer_status import read_status
from gridtokenx_agent.adapters.sqlite_buffer import SqliteBuffer, open_buffer
from gridtokenx_agent.errors import BufferFullError, StoreError
from gridtokenx_wire.encoding import parse_line
from tests.support import build

GATEWAY = build.SIGNER.gateway_id
ROOT = Path(__file__).parents[2]


def open_at(path: Path, max_mb: int = 4) -> SqliteBuffer:
    return open_buffer(path, GATEWAY, max_mb, 900, wall_ms=77)


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[SqliteBuffer]:
    opened = open_at(tmp_path / "b.db")
    yield opened
    opened.close()


async def test_rows_and_state_are_there_after_reopening(tmp_path: Path) -> None:
    first = open_at(tmp_path / "b.db")
    lines = await build.fill(first, "M1", ["event", "slot"])
    first.close()

    second = open_at(tmp_path / "b.db")

    assert sorted(row.line for row in await second.due(0, 50, ())) == sorted(lines)
    assert (await second.states())["M1"].seq == 2
    second.close()


async def test_every_commit_survives_the_moment_it_returns(buffer: SqliteBuffer) -> None:
    pragma = buffer._file._database.execute("PRAGMA synchronous").fetchone()
    mode = buffer._file._database.execute("PRAGMA journal_mode").fetchone()

    assert (pragma[0], mode[0]) == (2, "wal")


@pytest.mark.parametrize("damage", ["text", "hole", "short"])
async def test_a_broken_file_is_moved_aside_and_never_deleted(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "b.db"
    first = open_at(path)
    await build.fill(first, "M1", ["slot"] * 200)
    first.close()
    content = path.read_bytes()
    broken = {
        "text": b"not a database" * 1000,
        "hole": content[:4096] + b"\xff" * (len(content) - 8192) + content[-4096:],
        "short": content[: len(content) // 2],
    }[damage]
    path.write_bytes(broken)

    second = open_at(path)

    assert second.moved_aside == tmp_path / "b.db.bad-77"
    assert second.moved_aside.read_bytes() == broken
    assert await second.states() == {}
    second.close()


def test_a_second_agent_on_the_same_buffer_is_refused(tmp_path: Path, buffer: SqliteBuffer) -> None:
    with pytest.raises(StoreError, match="another gtx-agent"):
        open_at(tmp_path / "b.db")


def test_a_buffer_of_another_gateway_is_refused(tmp_path: Path) -> None:
    open_at(tmp_path / "b.db").close()

    with pytest.raises(StoreError, match="belongs to gateway"):
        open_buffer(tmp_path / "b.db", "another", 4, 900, 0)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreError, match="buffer"):
        open_at(tmp_path / "file" / "b.db")


async def fill_up(buffer: SqliteBuffer) -> tuple[int, str]:
    """Commit slots until the buffer refuses; return the last `seq` and the refusal."""
    for seq in range(0, 20_000, 100):
        rows = [build.row("slot", "M1", seq + step) for step in range(1, 101)]
        try:
            await buffer.commit(build.state("M1", seq + 100), rows, {})
        except BufferFullError as exc:
            return seq, str(exc)
    raise AssertionError("the bound was never reached")


async def test_samples_make_room_for_slots_when_the_bound_is_reached(tmp_path: Path) -> None:
    buffer = open_at(tmp_path / "b.db", max_mb=1)
    seq = 0
    while seq < 4_000:
        rows = [build.row("sample", "M1", seq + step) for step in range(1, 101)]
        seq += 100
        await buffer.commit(build.state("M1", seq), rows, {})

    await buffer.commit(build.state("M1", seq + 1), [build.row("slot", "M1", seq + 1)], {})

    pending = read_status(tmp_path / "b.db").pending
    assert pending["slot"] == 1
    assert 0 < pending["sample"] < 3_000
    assert (tmp_path / "b.db").stat().st_size <= 1024 * 1024
    buffer.close()


async def test_slots_are_never_thinned_the_bound_refuses_new_ones_whole(tmp_path: Path) -> None:
    buffer = open_at(tmp_path / "b.db", max_mb=1)

    seq, refusal = await fill_up(buffer)

    assert "buffer.max_mb" in refusal
    assert read_status(tmp_path / "b.db").pending["slot"] == seq
    assert (await buffer.states())["M1"].seq == seq
    buffer.close()


async def test_a_full_buffer_takes_rows_again_after_a_receipt(tmp_path: Path) -> None:
    buffer = open_at(tmp_path / "b.db", max_mb=1)
    seq, _ = await fill_up(buffer)
    await buffer.mark_sent(range(1, seq + 1), 0)

    settled = await buffer.settle(build.receipt("M1", (1, seq)), ())
    await buffer.commit(build.state("M1", seq + 1), [build.row("slot", "M1", seq + 1)], {})

    assert settled.forgotten == seq
    assert read_status(tmp_path / "b.db").pending["slot"] == 1
    buffer.close()


async def test_another_process_can_read_the_status_meanwhile(
    tmp_path: Path, buffer: SqliteBuffer
) -> None:
    lines = await build.fill(buffer, "M1", ["event", "slot", "sample"])
    await build.fill(buffer, "_gateway", ["event"])
    rows = await buffer.due(0, 50, ())
    await buffer.mark_sent([row.row_id for row in rows], 0)
    await buffer.settle(build.receipt("M1", (1, 1), rejected=[lines[1]]), ())
    await buffer.commit(build.state("M1", 3), [], {"StepTooLarge": 2})

    found = read_status(tmp_path / "b.db")

    assert found.gateway_id == GATEWAY
    assert found.pending == {"slot": 0, "sample": 1, "event": 1, "clock": 0}
    assert (found.sent_unconfirmed, found.dead) == (2, 1)
    assert (found.dead_lines[0].seq, found.dead_lines[0].code) == (2, "BadSignature")
    assert [(m.meter_id, m.seq, m.refused) for m in found.meters] == [
        ("M1", 3, {"StepTooLarge": 2})
    ]
    assert json.loads(json.dumps(found.as_json()))["meters"][0]["import_wh"] is None


def test_no_buffer_yet_is_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="gtx-agent run"):
        read_status(tmp_path / "b.db")


@pytest.mark.integration
def test_a_kill_at_any_moment_keeps_every_commit_that_was_told(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    told = 0
    for wanted in (1, 20, 57, 3):
        argv = [sys.executable, "-m", "tests.support.buffer_writer", str(path)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT) as process:
            assert process.stdout is not None
            for _ in range(wanted):
                told = int(process.stdout.readline())
            process.kill()
            rest = process.stdout.read().split(b"\n")
            told = max([told, *(int(text) for text in rest[:-1])])

    connection = sqlite3.connect(path)
    kept = [seq for (seq,) in connection.execute("SELECT seq FROM outbox ORDER BY seq")]
    connection.close()

    assert kept[:told] == list(range(1, told + 1))
    assert len(kept) == kept[-1]


class History(RuleBasedStateMachine):
    """Random commits, sends, receipts and restarts of one buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "b.db"
        self.file = self.reopened()
        self.kept: dict[int, bytes] = {}
        self.sent: set[int] = set()
        self.used = 0
        self.now_ms = 0

    def reopened(self) -> BufferFile:
        return BufferFile(open_file(self.path, GATEWAY, 4, 0), 1_000)

    def teardown(self) -> None:
        self.file.close()
        self.folder.cleanup()

    @rule(kinds=st.lists(st.sampled_from(["slot", "sample", "event"]), min_size=1, max_size=4))
    def append(self, kinds: list[str]) -> None:
        known = self.file.states().get("M1")
        seq = known.seq if known else 0
        assert seq == self.used
        rows = [build.row(kind, "M1", seq + step) for step, kind in enumerate(kinds, 1)]
        self.used = seq + len(rows)
        self.file.commit(build.state("M1", self.used), rows, {})
        self.kept |= {row.seq: row.line for row in rows}

    @rule(limit=st.integers(1, 5), taken=st.booleans())
    def send(self, limit: int, taken: bool) -> None:
        rows = self.file.due(self.now_ms, limit, ())
        seqs = {parse_line(row.line).stamp.seq for row in rows}
        assert all(self.kept[parse_line(row.line).stamp.seq] == row.line for row in rows)
        mark = self.file.mark_sent if taken else self.file.mark_refused
        mark([row.row_id for row in rows], self.now_ms)
        self.sent |= seqs

    @rule(first=st.integers(1, 30), length=st.integers(0, 10))
    def receipt(self, first: int, length: int) -> None:
        self.file.settle(build.receipt("M1", (first, first + length)), ())
        for seq in range(first, first + length + 1):
            if seq in self.sent:
                self.kept.pop(seq, None)

    @rule(seq=st.integers(1, 30))
    def rejection(self, seq: int) -> None:
        line = self.kept.get(seq)
        if line is not None:
            self.file.settle(build.receipt("M1", rejected=[line]), ())
            del self.kept[seq]

    @rule(elapsed_ms=st.integers(0, 5_000))
    def wait(self, elapsed_ms: int) -> None:
        self.now_ms += elapsed_ms

    @rule()
    def restart(self) -> None:
        self.file.close()
        self.file = self.reopened()
        while self.file.resend_some():
            pass

    @invariant()
    def nothing_is_gone_without_a_receipt(self) -> None:
        rows = self.file.due(10**12, 1000, ())
        assert {parse_line(row.line).stamp.seq: row.line for row in rows} == self.kept


History.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
TestHistory = History.TestCase
