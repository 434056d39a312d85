"""The buffer on a disk that is really full, a log cut short, a week and a year of rows."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gridtokenx_agent.adapters.buffer_file import open_file
from gridtokenx_agent.adapters.buffer_statements import BufferFile, Change
from gridtokenx_agent.adapters.buffer_status import read_status
from gridtokenx_agent.adapters.sqlite_buffer import SqliteBuffer, open_buffer
from gridtokenx_agent.errors import BufferFullError
from gridtokenx_agent.ports import NewRow
from gridtokenx_agent.recorder import Recorder
from gridtokenx_wire.encoding import parse_line
from gridtokenx_wire.record import EventRecord, LiveValues, Quality, SlotRecord
from tests.support import build
from tests.support.buffer_writer import MOST

pytestmark = pytest.mark.chaos
GATEWAY = build.SIGNER.gateway_id
ROOT = Path(__file__).parents[2]
MB = 1024 * 1024
DISK_MB = 32


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(place)]
    if subprocess.run(argv, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a disk here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(disk: Path) -> Path:
    """Let somebody else take all the space there is."""
    rubbish = disk / "rubbish"
    with contextlib.suppress(OSError), rubbish.open("ab", buffering=0) as file:
        for block in (MB, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * block) == block:
                    pass
    return rubbish


def slot(seq: int) -> NewRow:
    return build.row("slot", "M1", seq)


async def test_on_a_full_disk_the_reserve_carries_the_slots_on(disk: Path) -> None:
    """Source: telegraf PR 14928: on a truly full disk even DELETE fails."""
    buffer = open_buffer(disk / "b.db", GATEWAY, 16, 900, 0)
    await buffer.commit(build.state("M1", 1), [slot(1)], {})
    fill(disk)

    for seq in range(2, 1_000):
        await buffer.commit(build.state("M1", seq), [slot(seq)], {})

    assert not (disk / "b.db.reserve").exists()
    assert read_status(disk / "b.db").pending["slot"] == 999
    assert buffer.trouble == ""
    buffer.close()


async def test_on_a_disk_full_for_good_receipts_make_room_for_new_slots(disk: Path) -> None:
    """Twice as many rows pass as the reserve could hold."""
    buffer = open_buffer(disk / "b.db", GATEWAY, 16, 900, 0)
    await buffer.commit(build.state("M1", 1), [slot(1)], {})
    fill(disk)
    seq = 1

    for _ in range(250):
        rows = [row("slot", seq + step, build.NOON_MS, 1) for step in range(1, 101)]
        seq += len(rows)
        await buffer.commit(build.state("M1", seq), rows, {})
        waiting = await buffer.due(0, 200, ())
        await buffer.mark_sent([row.row_id for row in waiting], 0)
        await buffer.settle(build.receipt("M1", (1, seq)), ())

    assert read_status(disk / "b.db").pending["slot"] == 0
    assert buffer.trouble == ""
    buffer.close()


async def test_slots_wait_in_memory_while_nothing_helps_and_none_is_lost(disk: Path) -> None:
    buffer = open_buffer(disk / "b.db", GATEWAY, 16, 900, 0, reserve_mb=0)
    recorder = Recorder(build.recorder_parts(buffer), "M1", "eastron-sdm630", None)
    await recorder.open(build.instant())
    rubbish = fill(disk)

    for number in range(3_000):
        at = build.instant(2_000_000 + number * 1_000)
        await recorder.slot(build.counter(number, 0, at), 900, Quality.NONE, LiveValues())
        if recorder.stalled and number > 500:
            break
    stalled = recorder.stalled
    trouble = buffer.trouble
    rubbish.unlink()
    await recorder.flush(build.instant(9_000_000))

    seqs, slots, events = await stored(buffer)
    assert stalled
    assert "disk" in trouble
    assert not recorder.stalled
    assert seqs == list(range(1, len(seqs) + 1))
    assert slots == list(range(number + 1))
    assert events == ["EpochStarted", "BufferFull"]
    buffer.close()


async def stored(buffer: SqliteBuffer) -> tuple[list[int], list[int], list[str]]:
    rows = buffer._file._database.execute("SELECT line FROM outbox ORDER BY seq").fetchall()
    records = [parse_line(line) for (line,) in rows]
    return (
        [record.stamp.seq for record in records],
        [record.import_wh for record in records if isinstance(record, SlotRecord)],
        [record.event for record in records if isinstance(record, EventRecord)],
    )


async def test_the_reserve_is_laid_again_once_there_is_room(disk: Path) -> None:
    buffer = open_buffer(disk / "b.db", GATEWAY, 16, 900, 0)
    rubbish = fill(disk)
    for seq in range(1, 1_000):
        await buffer.commit(build.state("M1", seq), [slot(seq)], {})
    gone = not (disk / "b.db.reserve").exists()
    rubbish.unlink()

    for seq in range(1_000, 2_001):
        await buffer.commit(build.state("M1", seq), [slot(seq)], {})

    assert gone
    assert (disk / "b.db.reserve").stat().st_size == 8 * MB
    buffer.close()


@pytest.mark.parametrize("kept_percent", [0, 1, 50, 99])
def test_after_a_kill_and_a_log_cut_short_the_agent_starts_and_goes_on(
    tmp_path: Path, kept_percent: int
) -> None:
    """Source: indi-allsky issue 1534, pocketbase issue 4749: malformed after power cuts."""
    path = tmp_path / "b.db"
    argv = [sys.executable, "-m", "tests.support.buffer_writer", str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        for _ in range(300):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    log = path.with_name("b.db-wal")
    os.truncate(log, log.stat().st_size * kept_percent // 100)

    file = BufferFile(open_file(path, GATEWAY, 16, 0), 1_000)
    known = file.states().get("M1")
    seq = known.seq if known else 0
    file.commit(build.state("M1", seq + 1), [slot(seq + 1)], {})

    assert len(file.due(0, 2 * MOST, ())) == seq + 1
    file.close()


def test_the_status_can_be_read_all_the_time_while_rows_come_and_go(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    file = BufferFile(open_file(path, GATEWAY, 16, 0), 1_000)
    file.commit(build.state("M1", 1), [slot(1)], {})
    depths: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            depths.append(sum(read_status(path).pending.values()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    seq = 1
    # For as long as it takes to be looked at a few times, however busy the machine is.
    while seq < 400 or (len(depths) <= 5 and watcher.is_alive()):
        seq += 1
        file.commit(build.state("M1", seq), [slot(seq)], {})
        if seq % 50 == 0:
            file.mark_sent(range(1, seq + 1), 0)
            file.settle(build.receipt("M1", (1, seq)), ())
    stop.set()
    watcher.join()

    assert len(depths) > 5
    assert max(depths) <= 51
    file.close()


WEEK_S = 7 * 86_400
METERS = 10
_PADDING = b"x" * 440


def row(kind: str, seq: int, wall_ms: int, meter: int) -> NewRow:
    line = b"%d %d %s %s" % (meter, seq, kind.encode(), _PADDING)
    return NewRow(epoch=build.EPOCH, seq=seq, kind=kind, wall_ms=wall_ms, line=line)


@pytest.mark.timeout(600)
@pytest.mark.long
def test_a_week_without_a_broker_keeps_all_6720_slots_of_ten_meters(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    file = BufferFile(open_file(path, GATEWAY, 256, 0), 1_000)
    seqs = [0] * METERS
    samples = slots = largest = 0

    for first_s in range(0, WEEK_S, 200):
        changes: list[Change] = []
        for meter in range(METERS):
            rows: list[NewRow] = []
            for at_s in range(first_s, min(first_s + 200, WEEK_S), 10):
                wall_ms = build.NOON_MS + at_s * 1000
                kinds = ["sample", "slot"] if at_s % 900 == 0 else ["sample"]
                for kind in kinds:
                    seqs[meter] += 1
                    rows.append(row(kind, seqs[meter], wall_ms, meter))
                samples += 1
                slots += len(kinds) - 1
            changes.append(Change(build.state(f"M{meter}", seqs[meter]), rows, {}))
        file.commit_all(changes)
        largest = max(largest, path.stat().st_size)

    pending = read_status(path).pending
    assert (samples, slots) == (604_800, 6_720)
    assert pending["slot"] == 6_720
    assert pending["sample"] > 86_400
    assert largest <= 256 * MB
    file.close()


@pytest.mark.parametrize("meters", [2, pytest.param(METERS, marks=pytest.mark.long)])
def test_a_year_of_slots_fits_without_losing_one(tmp_path: Path, meters: int) -> None:
    path = tmp_path / "b.db"
    file = BufferFile(open_file(path, GATEWAY, 512, 0), 1_000)
    year = 35_040

    for first in range(0, year, 480):
        changes = [
            Change(
                build.state(f"M{meter}", first + 480),
                [
                    row("slot", seq, build.NOON_MS + seq * 900_000, meter)
                    for seq in range(first + 1, first + 481)
                ],
                {},
            )
            for meter in range(meters)
        ]
        file.commit_all(changes)

    assert read_status(path).pending["slot"] == meters * year
    assert file._room.percent() < 70
    file.close()


def test_the_bound_of_the_file_refuses_slots_whole_and_says_how_to_go_on(tmp_path: Path) -> None:
    file = BufferFile(open_file(tmp_path / "b.db", GATEWAY, 4, 0), 1_000)
    seq = 0

    while not file.trouble:
        rows = [row("slot", seq + step, build.NOON_MS, 1) for step in range(1, 101)]
        with contextlib.suppress(BufferFullError):
            file.commit(build.state("M1", seq + 100), rows, {})
            seq += 100

    assert "buffer.max_mb" in file.trouble
    assert read_status(tmp_path / "b.db").pending["slot"] == seq
    file.close()
