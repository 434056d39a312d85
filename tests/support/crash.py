"""Kill a minter at its n-th step: before or after any commit or any call to a node."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gridtokenx_cloud.adapters.store.sqlite import SqliteConnection, SqliteDatabase
from gridtokenx_cloud.mint_rules import MintRules
from tests.support.mint_world import CONVERSION, World, minter


class CrashError(BaseException):
    """kill -9: no handler of the program may catch it, so it is no `Exception`."""


class Fuse:
    """Counts steps; burns at the chosen one."""

    def __init__(self, at: int | None) -> None:
        self.at = at
        self.steps = 0

    def step(self) -> None:
        if self.at is not None and self.steps == self.at:
            raise CrashError
        self.steps += 1


@contextmanager
def fused_commits(fuse: Fuse, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make every commit two steps: killed before it, killed right after it."""
    original = SqliteDatabase.transaction

    @contextmanager
    def transaction(self: SqliteDatabase) -> Iterator[SqliteConnection]:
        fuse.step()
        with original(self) as tx:
            yield tx
            fuse.step()
        fuse.step()

    with patch.context() as inner:
        inner.setattr(SqliteDatabase, "transaction", transaction)
        yield


async def run_until_crash(
    world: World, path: Path, fuse: Fuse, patch: pytest.MonkeyPatch, rules: MintRules
) -> bool:
    """Mint everything; true when it got to the end without burning the fuse."""
    calls: list[int] = []

    def tap(_method: str) -> None:
        calls.append(1)
        fuse.step()

    world.rpc.tap = tap
    try:
        with minter(world, path, rules) as m, fused_commits(fuse, patch):
            await m.service.drain()
    except CrashError:
        return False
    finally:
        world.rpc.tap = lambda _method: None
    return True


RULES = MintRules(conversion=CONVERSION, max_batch_size=2, concurrent_batches=2)
"""Small batches, so that two are in flight at once."""
