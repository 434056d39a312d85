"""An older copy of the card was put back: the cloud knows numbers that this buffer never gave."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest

from gridtokenx_agent.adapters.buffer_file import open_file
from gridtokenx_agent.adapters.buffer_statements import BufferFile
from gridtokenx_agent.adapters.sqlite_buffer import open_buffer
from gridtokenx_agent.ports import Settled
from gridtokenx_agent.recorder import Recorder
from gridtokenx_wire.encoding import line_hash, parse_line
from gridtokenx_wire.receipt import LineRejection, Receipt
from tests.agent.test_publish import Uplink
from tests.support import build

GATEWAY = build.SIGNER.gateway_id


def conflicting(line: bytes) -> Receipt:
    entry = LineRejection(line=line_hash(line), code="ConflictingReading", reason="other bytes")
    return Receipt(gateway_id=GATEWAY, issued_ms=1, rejected=(entry,))


@pytest.mark.parametrize(
    ("last", "taken"),
    [
        (4, ()),
        (5, ()),
        (6, (("M1", build.EPOCH, 6),)),
        (900, (("M1", build.EPOCH, 900),)),
        (2**60, ()),
    ],
)
def test_a_receipt_beyond_the_last_number_ever_given_tells_of_an_older_copy(
    tmp_path: Path, last: int, taken: tuple[tuple[str, str, int], ...]
) -> None:
    file = BufferFile(open_file(tmp_path / "b.db", GATEWAY, 4, 0), 1_000)
    file.commit(build.state("M1", 5), [build.row("slot", "M1", 5)], {})

    settled = file.settle(build.receipt("M1", (1, last)), (1,))

    assert settled.taken == taken
    file.close()


def test_a_receipt_about_an_earlier_epoch_tells_nothing(tmp_path: Path) -> None:
    file = BufferFile(open_file(tmp_path / "b.db", GATEWAY, 4, 0), 1_000)
    file.commit(build.state("M1", 5), [build.row("slot", "M1", 5)], {})

    settled = file.settle(build.receipt("M1", (1, 900), epoch="f" * 16), ())

    assert settled.taken == ()
    file.close()


async def test_after_one_conflict_the_numbers_go_on_where_the_cloud_has_none(
    tmp_path: Path,
) -> None:
    """Else every reading would be refused for as long as the copy is old."""
    buffer = open_buffer(tmp_path / "b.db", GATEWAY, 4, 900, 0)
    at = build.instant()
    recorder = Recorder(build.recorder_parts(buffer), "M1", "p", None)
    await recorder.open(at)
    (first,) = await buffer.due(0, 50, ())
    settled = await buffer.settle(conflicting(first.line), (first.row_id,))
    ((meter_id, epoch, seq),) = settled.taken
    recorder.skip_to(epoch, seq)

    await recorder.event("MeterUp", "", at)

    (waiting,) = await buffer.due(0, 50, ())
    assert meter_id == "M1"
    assert parse_line(waiting.line).stamp.seq == seq + 1
    assert seq > 600_000
    buffer.close()
    again = open_buffer(tmp_path / "b.db", GATEWAY, 4, 900, 0)
    assert (await again.states())["M1"].seq == seq + 1
    again.close()


async def test_numbers_are_never_given_a_second_time_nor_left_out_for_another_epoch() -> None:
    uplink = Uplink()
    recorder = Recorder(build.recorder_parts(uplink.buffer), "M1", "p", None)
    await recorder.open(build.instant())
    before = recorder.state

    recorder.skip_to(before.epoch, before.seq - 1)
    recorder.skip_to("f" * 16, 900)

    assert recorder.state == before


async def test_the_publisher_hands_on_what_the_buffer_finds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uplink = Uplink()
    told: list[tuple[str, str, int]] = []
    uplink.publisher.taken = lambda *taken: told.append(taken)
    settle = uplink.buffer.settle

    async def find(receipt: Receipt, in_flight: Collection[int]) -> Settled:
        settled = await settle(receipt, in_flight)
        return replace(settled, taken=(("M1", build.EPOCH, 900),))

    monkeypatch.setattr(uplink.buffer, "settle", find)
    async with uplink:
        await uplink.receive(build.receipt("M1", (1, 900)))

    assert told == [("M1", build.EPOCH, 900)]
