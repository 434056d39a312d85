"""The agent starts on a disk that others filled while it was off."""

from pathlib import Path

import pytest

from gridtokenx_agent.adapters.buffer_status import read_status
from gridtokenx_agent.adapters.sqlite_buffer import open_buffer
from gridtokenx_agent.errors import StoreError
from tests.chaos.test_agent_disk import GATEWAY, disk, fill, slot
from tests.support import build

__all__ = ["disk"]
pytestmark = pytest.mark.chaos


async def test_a_disk_that_is_full_at_the_start_gets_the_reserve(disk: Path) -> None:
    buffer = open_buffer(disk / "b.db", GATEWAY, 16, 900, 0)
    await buffer.commit(build.state("M1", 1), [slot(1)], {})
    buffer.close()
    fill(disk)

    again = open_buffer(disk / "b.db", GATEWAY, 16, 900, 0)
    await again.commit(build.state("M1", 2), [slot(2)], {})

    assert not (disk / "b.db.reserve").exists()
    assert again.moved_aside is None
    assert read_status(disk / "b.db").pending["slot"] == 2
    again.close()


def test_without_a_reserve_it_says_what_is_missing(disk: Path) -> None:
    open_buffer(disk / "b.db", GATEWAY, 16, 900, 0, 0).close()
    fill(disk)

    with pytest.raises(StoreError, match="check owner, mode and free space"):
        open_buffer(disk / "b.db", GATEWAY, 16, 900, 0, 0)
