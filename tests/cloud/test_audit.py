"""What an audit says of mints that no final batch accounts for."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, cast

from gridtokenx_cloud.audit import run_audit
from gridtokenx_cloud.mint_wiring import ConnectedMinter
from gridtokenx_cloud.ports.audit import ChainMint, StoredBatch, StoreSnapshot
from gridtokenx_cloud.roles.relay import Relay
from gridtokenx_cloud.roles.settle import SettleRole
from tests.support.mint_world import CONVERSION

FINAL = StoredBatch(
    batch_id=1,
    state="final",
    memo="memo",
    marker="marker",
    marker_reclaimed=False,
    signature="s1",
    total_wh=5,
    total_base_units=5_000_000,
    minted_wh=5,
    payments={"account": 5_000_000},
    attempts=("s0", "s1"),
)
LIVE = replace(FINAL, state="in_flight", signature=None, minted_wh=0)
MINT = ChainMint("s1", 7, {"account": 5_000_000}, "memo", ("marker",))


@dataclass
class Books:
    """`AuditStore` that never changes."""

    batches: tuple[StoredBatch, ...]

    def snapshot(self) -> StoreSnapshot:
        return StoreSnapshot(self.batches, sum(batch.minted_wh for batch in self.batches))

    def known_signatures(self) -> frozenset[str]:
        return frozenset(name for batch in self.batches for name in batch.attempts)


@dataclass
class Chain:
    """`AuditChain` with these mints and no burns."""

    found: tuple[ChainMint, ...]

    async def mints(self) -> AsyncIterator[ChainMint]:
        for mint in self.found:
            yield mint

    async def newest_mints(self, known: frozenset[str]) -> AsyncIterator[ChainMint]:
        for mint in self.found:
            if mint.signature not in known:
                yield mint

    async def burned(self, known: frozenset[str]) -> int:
        return 0

    async def supply(self) -> int:
        return sum(sum(mint.payments.values()) for mint in self.found)

    async def exists(self, address: str) -> bool:
        return True


async def codes(batches: tuple[StoredBatch, ...], *mints: ChainMint) -> set[str]:
    report = await run_audit(Books(batches), Chain(mints), CONVERSION)
    return {difference.code for difference in report.differences}


async def test_a_batch_and_its_mint_agree() -> None:
    assert await codes((FINAL,), MINT) == set()
    assert await codes((LIVE,), MINT) == set()
    assert await codes((LIVE,)) == set()


async def test_a_second_attempt_that_landed_beside_the_first_is_a_difference() -> None:
    assert "MintedTwice" in await codes((FINAL,), MINT, replace(MINT, signature="s0"))
    assert "MintedTwice" in await codes((LIVE,), MINT, replace(MINT, signature="s0"))


async def test_an_attempt_of_a_void_batch_that_landed_is_a_difference() -> None:
    void = replace(LIVE, state="void")

    report = await run_audit(Books((void,)), Chain((MINT,)), CONVERSION)

    found = {difference.code: difference.detail for difference in report.differences}
    assert found["MintedTwice"].startswith("it is void, and s1 minted 5000000 base units")


async def test_a_mint_that_no_attempt_explains_is_an_alarm() -> None:
    assert "UnknownMint" in await codes((FINAL,), MINT, replace(MINT, signature="s9"))


async def test_the_store_is_audited_as_soon_as_the_minter_is_connected() -> None:
    looked = asyncio.Event()

    class Watched(Chain):
        async def supply(self) -> int:
            looked.set()
            return 0

    nothing: Any = None
    role = SettleRole(nothing, Relay(), 86_400, nothing)
    minter = ConnectedMinter(
        nothing, cast(Any, Books(())), cast(Any, Watched(())), CONVERSION, nothing, nothing
    )

    auditing = asyncio.create_task(role._audit_now_and_then(minter))
    async with asyncio.timeout(30):
        await looked.wait()
    auditing.cancel()

    assert looked.is_set()
