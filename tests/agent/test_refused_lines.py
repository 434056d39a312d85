"""What the cloud refuses is kept, but never at the price of what it would take."""

from pathlib import Path

from gridtokenx_agent.adapters.buffer_file import open_file
from gridtokenx_agent.adapters.buffer_statements import BufferFile
from gridtokenx_agent.adapters.buffer_status import read_status
from gridtokenx_wire.encoding import line_hash
from gridtokenx_wire.receipt import LineRejection, Receipt
from tests.agent.test_buffer_room import GATEWAY, rows_at
from tests.support import build


def refused(rows_of: list[bytes], issued_ms: int = 1) -> Receipt:
    return Receipt(
        gateway_id=GATEWAY,
        issued_ms=issued_ms,
        rejected=tuple(
            LineRejection(line=line_hash(line), code="UnknownMeter", reason="not enrolled")
            for line in rows_of
        ),
    )


def test_a_meter_that_is_not_enrolled_takes_no_room_from_the_others(tmp_path: Path) -> None:
    """In 4 MB: 9 MB of samples that the cloud refuses one and all."""
    file = BufferFile(open_file(tmp_path / "b.db", GATEWAY, 4, 0), 1_000)
    for first in range(1, 18_001, 1_000):
        rows = rows_at(build.NOON_MS, first, ["sample"] * 1_000)
        file.commit(build.state("M1", first + 999), rows, {})
        file.settle(refused([row.line for row in rows]), ())

    file.commit(build.state("M2", 1), [build.row("slot", "M2", 1)], {})

    status = read_status(tmp_path / "b.db")
    newest = status.dead_lines[0]
    file.close()
    assert file.trouble == ""
    assert (status.pending["slot"], newest.seq) == (1, 18_000)
    assert 100 <= status.dead <= 2_000


def test_a_few_refused_lines_are_all_kept(tmp_path: Path) -> None:
    file = BufferFile(open_file(tmp_path / "b.db", GATEWAY, 4, 0), 1_000)
    rows = rows_at(build.NOON_MS, 1, ["slot"] * 50)
    file.commit(build.state("M1", 50), rows, {})
    file.settle(refused([row.line for row in rows]), ())

    for seq in range(51, 60):
        file.commit(build.state("M1", seq), rows_at(build.NOON_MS, seq, ["slot"]), {})

    assert read_status(tmp_path / "b.db").dead == 50
    file.close()


def test_an_older_receipt_that_comes_again_does_not_turn_the_clouds_clock_back(
    tmp_path: Path,
) -> None:
    """The last receipt's time tells a gateway without a clock which commands are too old."""
    file = BufferFile(open_file(tmp_path / "b.db", GATEWAY, 4, 0), 1_000)

    for issued_ms in (900, 1_000_000, 999_999):
        file.settle(refused([], issued_ms), ())

    assert read_status(tmp_path / "b.db").last_receipt_ms == 1_000_000
    file.close()
