"""The buffer at its start, and what a fault at work means for the next one."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from gridtokenx_agent.adapters.buffer_file import change_gateway
from gridtokenx_agent.adapters.sqlite_buffer import SqliteBuffer, open_buffer
from gridtokenx_agent.errors import StoreError
from tests.support import build

GATEWAY = build.SIGNER.gateway_id
PAGE_BYTES = 4096


def open_at(path: Path) -> SqliteBuffer:
    return open_buffer(path, GATEWAY, 4, 900, 77)


async def with_an_old_index_page(path: Path) -> None:
    """Leave a file of ten rows whose index knows five: its page was never written to the card."""
    buffer = open_at(path)
    await build.fill(buffer, "M1", ["slot"] * 5)
    buffer.close()
    with sqlite3.connect(path) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'outbox_due'")
    db.close()
    place = slice((root[0] - 1) * PAGE_BYTES, root[0] * PAGE_BYTES)
    old_page = path.read_bytes()[place]
    buffer = open_at(path)
    rows = [build.row("slot", "M1", seq) for seq in range(6, 11)]
    await buffer.commit(build.state("M1", 10), rows, {})
    buffer.close()
    content = bytearray(path.read_bytes())
    content[place] = old_page
    path.write_bytes(content)


async def test_what_a_quick_look_does_not_see_is_moved_aside_after_it_failed_once(
    tmp_path: Path,
) -> None:
    """Otherwise the agent would start, fail and start again for ever."""
    path = tmp_path / "b.db"
    await with_an_old_index_page(path)
    buffer = open_at(path)
    assert buffer.moved_aside is None
    with pytest.raises(StoreError, match="a restart moves it aside"):
        await buffer.mark_sent(range(1, 11), 0)
    buffer.close()

    again = open_at(path)

    assert again.moved_aside == tmp_path / "b.db.bad-77"
    again.close()
    third = open_at(path)
    assert third.moved_aside is None
    third.close()


async def test_a_commit_ends_whatever_happens_to_it(tmp_path: Path) -> None:
    """One that never ended would hold its bus for ever."""
    buffer = open_at(tmp_path / "b.db")

    def fail(_changes: object) -> None:
        raise sqlite3.InterfaceError("nobody thought of this")

    buffer._file.commit_each = fail  # type: ignore[method-assign, assignment]

    async with asyncio.timeout(30):
        ends = await asyncio.gather(
            *(buffer.commit(build.state(name, 1), [], {}) for name in ("M1", "M2")),
            return_exceptions=True,
        )

    assert [type(end) for end in ends] == [sqlite3.InterfaceError] * 2
    buffer.close()


def test_a_broken_file_on_a_disk_that_takes_no_change_is_said_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "b.db"
    path.write_bytes(b"not a database" * 1000)

    def refuse(_self: Path, _target: Path) -> Path:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "rename", refuse)

    with pytest.raises(StoreError, match=r"broken and cannot be moved aside: Read-only.*replace"):
        open_at(path)


async def test_the_next_key_of_a_device_takes_what_waits_and_goes_on_counting(
    tmp_path: Path,
) -> None:
    path = tmp_path / "b.db"
    buffer = open_at(path)
    await build.fill(buffer, "M1", ["slot"] * 3)
    buffer.close()

    change_gateway(path, GATEWAY, "NEXT")
    change_gateway(path, GATEWAY, "NEXT")
    with pytest.raises(StoreError, match="gtx-agent change-key"):
        open_at(path)
    after = open_buffer(path, "NEXT", 4, 900, 77)

    assert len(await after.due(0, 10, ())) == 3
    assert (await after.states())["M1"].seq == 3
    after.close()


async def test_a_buffer_is_given_away_by_its_owner_alone_and_never_while_it_is_used(
    tmp_path: Path,
) -> None:
    path = tmp_path / "b.db"
    buffer = open_at(path)

    with pytest.raises(StoreError, match="in use by another gtx-agent"):
        change_gateway(path, GATEWAY, "NEXT")
    buffer.close()
    with pytest.raises(StoreError, match="name the key of that gateway as key_file first"):
        change_gateway(path, "OTHER", "NEXT")
    change_gateway(tmp_path / "none.db", GATEWAY, "NEXT")

    open_at(path).close()
    assert list(tmp_path.glob("none.db*")) == []
