"""What every buffer keeps: the one in memory and the one on disk."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from gridtokenx_agent.adapters.sqlite_buffer import open_buffer
from gridtokenx_agent.errors import StoreError
from gridtokenx_agent.ports import Outbox, RecordBuffer
from gridtokenx_wire.encoding import parse_line
from tests.support import build
from tests.support.memory_buffer import MemoryBuffer

NOW_MS = 5_000_000
RESEND_S = 900


class Buffer(RecordBuffer, Outbox, Protocol):
    def close(self) -> None: ...


@pytest.fixture(params=["memory", "sqlite"])
def buffer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Buffer]:
    opened: Buffer = MemoryBuffer(RESEND_S * 1000)
    if request.param == "sqlite":
        opened = open_buffer(tmp_path / "b.db", build.SIGNER.gateway_id, 4, RESEND_S, 0)
    yield opened
    opened.close()


async def seqs(buffer: Buffer, now_ms: int = NOW_MS, limit: int = 50) -> list[int]:
    """What is due, in the order it was recorded in."""
    rows = await buffer.due(now_ms, limit, ())
    return [parse_line(row.line).stamp.seq for row in sorted(rows, key=lambda row: row.row_id)]


async def ids(buffer: Buffer, now_ms: int = NOW_MS) -> list[int]:
    return sorted(row.row_id for row in await buffer.due(now_ms, 1000, ()))


async def test_what_was_committed_is_due_until_a_receipt_takes_it(buffer: Buffer) -> None:
    await build.fill(buffer, "M1", ["event", "slot", "sample"])
    await buffer.mark_sent(await ids(buffer), NOW_MS)

    settled = await buffer.settle(build.receipt("M1", (1, 2)), ())

    await buffer.resend_all()
    assert settled.forgotten == 2
    assert await seqs(buffer) == [3]


async def test_a_receipt_may_name_several_ranges(buffer: Buffer) -> None:
    await build.fill(buffer, "M1", ["slot"] * 7)
    await buffer.mark_sent(await ids(buffer), NOW_MS)

    await buffer.settle(build.receipt("M1", (1, 2), (5, 6)), ())

    await buffer.resend_all()
    assert await seqs(buffer) == [3, 4, 7]


async def test_a_second_copy_of_a_receipt_changes_nothing(buffer: Buffer) -> None:
    await build.fill(buffer, "M1", ["slot", "slot"])
    await buffer.mark_sent(await ids(buffer), NOW_MS)
    await buffer.settle(build.receipt("M1", (1, 1)), ())

    again = await buffer.settle(build.receipt("M1", (1, 1)), ())

    await buffer.resend_all()
    assert again.forgotten == 0
    assert await seqs(buffer) == [2]


async def test_a_receipt_never_takes_a_row_that_was_not_sent(buffer: Buffer) -> None:
    await build.fill(buffer, "M1", ["slot", "slot"])

    settled = await buffer.settle(build.receipt("M1", (1, 2)), ())

    assert settled.forgotten == 0
    assert await seqs(buffer) == [1, 2]


async def test_a_receipt_may_overtake_the_brokers_acknowledgement(buffer: Buffer) -> None:
    await build.fill(buffer, "M1", ["slot", "slot"])
    under_way = await ids(buffer)

    settled = await buffer.settle(build.receipt("M1", (1, 2)), under_way)
    await buffer.mark_sent(under_way, NOW_MS)

    assert settled.forgotten == 2
    assert await seqs(buffer) == []


async def test_a_receipt_for_another_epoch_or_meter_takes_nothing(buffer: Buffer) -> None:
    await build.fill(buffer, "M1", ["slot"])
    await buffer.mark_sent(await ids(buffer), NOW_MS)

    await buffer.settle(build.receipt("M1", (1, 9), epoch="00000000000000e2"), ())
    await buffer.settle(build.receipt("M2", (1, 9)), ())

    await buffer.resend_all()
    assert await seqs(buffer) == [1]


async def test_a_sent_row_waits_for_its_receipt_and_then_longer_each_time(buffer: Buffer) -> None:
    await build.fill(buffer, "M1", ["slot"])
    await buffer.mark_sent(await ids(buffer), 0)
    first_ms = RESEND_S * 1000

    early = await seqs(buffer, first_ms - 1)
    first = await ids(buffer, first_ms)
    await buffer.mark_sent(first, first_ms)

    assert early == []
    assert await seqs(buffer, first_ms + 2 * first_ms - 1) == []
    assert await seqs(buffer, first_ms + 2 * first_ms) == [1]


async def test_no_row_waits_longer_than_six_hours(buffer: Buffer) -> None:
    await build.fill(buffer, "M1", ["slot"])
    (row_id,) = await ids(buffer)
    for _ in range(30):
        await buffer.mark_sent([row_id], NOW_MS)

    due = await seqs(buffer, NOW_MS + 6 * 3_600_000)

    assert due == [1]


async def test_a_refused_row_is_tried_again_soon(buffer: Buffer) -> None:
    await build.fill(buffer, "M1", ["slot"])
    await buffer.mark_refused(await ids(buffer), NOW_MS)

    at_once, later = await seqs(buffer, NOW_MS + 999), await seqs(buffer, NOW_MS + 1000)

    assert (at_once, later) == ([], [1])


async def test_a_new_connection_sends_everything_again(buffer: Buffer) -> None:
    await build.fill(buffer, "M1", ["slot", "sample"])
    await buffer.mark_sent(await ids(buffer), NOW_MS)

    await buffer.resend_all()

    assert await seqs(buffer) == [1, 2]


async def test_rows_under_way_are_not_due(buffer: Buffer) -> None:
    await build.fill(buffer, "M1", ["slot", "slot", "sample"])
    first = (await ids(buffer))[0]

    rows = await buffer.due(NOW_MS, 50, [first])

    assert sorted(parse_line(row.line).stamp.seq for row in rows) == [2, 3]


async def test_the_newest_slot_overtakes_a_backlog(buffer: Buffer) -> None:
    await build.fill(buffer, "M1", ["sample"] * 30 + ["slot"])

    rows = await buffer.due(NOW_MS, 10, ())

    first = [parse_line(row.line).stamp.seq for row in rows]
    assert first == [31, 1, 2, 3, 4, 5, 6, 7, 8, 9]


async def test_the_backlog_moves_on_beside_the_newest_slots(buffer: Buffer) -> None:
    await build.fill(buffer, "M1", ["slot"] * 30)

    first = await seqs(buffer, limit=10)

    assert first == [1, 2, 3, 4, 5, 6, 27, 28, 29, 30]


async def test_no_slot_of_an_epoch_leaves_before_its_first_one_has_a_receipt(
    buffer: Buffer,
) -> None:
    opener = build.row("slot", "M1", 2, opens=True)
    rows = [build.row("event", "M1", 1), opener, build.row("slot", "M1", 3)]
    await buffer.commit(build.state("M1", 3), rows, {})

    before = await seqs(buffer)
    await buffer.mark_sent(await ids(buffer), NOW_MS)
    await buffer.settle(build.receipt("M1", (1, 2)), ())

    assert before == [1, 2]
    assert await seqs(buffer) == [3]


async def test_a_line_the_cloud_refused_goes_among_the_dead_once(buffer: Buffer) -> None:
    lines = await build.fill(buffer, "M1", ["slot", "slot"])
    await buffer.mark_sent(await ids(buffer), NOW_MS)

    first = await buffer.settle(build.receipt("M1", (2, 2), rejected=[lines[0]]), ())
    again = await buffer.settle(build.receipt("M1", rejected=[lines[0]]), ())

    await buffer.resend_all()
    assert [entry.code for entry in first.dead] == ["BadSignature"]
    assert again.dead == ()
    assert await seqs(buffer) == []


async def test_a_refused_line_is_dead_even_when_its_number_is_stored(buffer: Buffer) -> None:
    lines = await build.fill(buffer, "M1", ["slot"])
    await buffer.mark_sent(await ids(buffer), NOW_MS)

    settled = await buffer.settle(build.receipt("M1", (1, 1), rejected=lines), ())

    assert (settled.forgotten, len(settled.dead)) == (0, 1)


async def test_a_number_is_never_used_twice_even_after_its_row_is_gone(buffer: Buffer) -> None:
    """thingsboard-gateway#1507, thingsboard#6880: rows keyed by time overwrote each other."""
    await build.fill(buffer, "M1", ["slot"])
    await buffer.mark_sent(await ids(buffer), NOW_MS)
    await buffer.settle(build.receipt("M1", (1, 1)), ())

    with pytest.raises(StoreError, match="used already"):
        await buffer.commit(build.state("M1", 1), [build.row("slot", "M1", 1)], {})

    assert await seqs(buffer) == []


async def test_the_state_comes_back_as_it_was_committed(buffer: Buffer) -> None:
    state = build.state("M1", 1)

    await buffer.commit(state, [build.row("slot", "M1", 1)], {"StepTooLarge": 1})

    assert await buffer.states() == {"M1": state}
