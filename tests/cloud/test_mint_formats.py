"""Which format a cluster gets, and the life of a lookup table; on a localnet without sockets."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from solders.pubkey import Pubkey

from gridtokenx_cloud.adapters.solana_rpc.lookup import LOOKUP
from gridtokenx_cloud.adapters.solana_rpc.probe import best_format
from gridtokenx_cloud.adapters.solana_rpc.rpc import RpcRefusedError
from gridtokenx_cloud.adapters.solana_rpc.sending import Sender
from gridtokenx_cloud.adapters.solana_rpc.tables import IDLE_MS, LookupTables
from gridtokenx_cloud.errors import RpcUnavailableError
from gridtokenx_cloud.formats import TABLE_ADDRESSES, TransactionFormat
from gridtokenx_cloud.mint_rules import MintRules
from tests.support.memory_tables import MemoryTables
from tests.support.mint_world import (
    CONVERSION,
    PAYER,
    InProcessRpc,
    World,
    minter,
    new_world,
    wallet,
)

V0, V1, LEGACY = TransactionFormat.V0, TransactionFormat.V1, TransactionFormat.LEGACY


class OldNode(InProcessRpc):
    """A node before transactions had versions."""

    async def call(self, method: str, *params: object) -> object:
        if method == "simulateTransaction":
            raise RpcRefusedError(method, -32602, "failed to deserialize transaction")
        return await super().call(method, *params)


def keeper(world: World, store: MemoryTables) -> tuple[LookupTables, Sender]:
    sender = world.sender()
    return LookupTables(sender, store, world.clock), sender


def keys(world: World, owners: Iterable[int]) -> list[Pubkey]:
    return [world.token.account_of(wallet(n).pubkey()) for n in owners]


async def test_the_widest_format_that_every_node_takes_is_chosen() -> None:
    world = await new_world()

    with_v1 = await best_format(world.failover, PAYER.pubkey())
    mixed = world.failover_over(world.rpc, OldNode(world.chain))
    world.chain.faults.v1 = False
    without = await best_format(world.failover, PAYER.pubkey())

    assert (with_v1, without) == (V1, V0)
    assert await best_format(mixed, PAYER.pubkey()) is LEGACY


async def test_a_node_out_of_reach_has_no_say_but_one_must_answer() -> None:
    world = await new_world()
    dead = InProcessRpc(world.chain)

    def down(_method: str) -> None:
        raise RpcUnavailableError("down")

    dead.tap = down

    assert await best_format(world.failover_over(dead, world.rpc), PAYER.pubkey()) is V1
    with pytest.raises(RpcUnavailableError, match="which transaction formats"):
        await best_format(world.failover_over(dead), PAYER.pubkey())


@pytest.mark.parametrize(
    ("form", "owners", "transactions"), [(LEGACY, 40, 4), (V0, 33, 1), (V0, 12, 1), (V1, 57, 1)]
)
async def test_a_full_transaction_of_every_format_mints_to_all(
    tmp_path: Path, form: TransactionFormat, owners: int, transactions: int
) -> None:
    world = await new_world()
    rules = MintRules(conversion=CONVERSION, form=form, batch_size=200)

    with minter(world, tmp_path / "cloud.db", rules) as m:
        for owner in range(owners):
            m.credit(owner, 1000 + owner)
        await m.service.drain()
        report = await m.audit()
        batches = m.database.connection.execute("SELECT batch_id FROM mint_batches").fetchall()

    assert report.differences == ()
    assert len(batches) == transactions
    assert world.supply() == CONVERSION.wh_to_base_units(sum(1000 + n for n in range(owners)))


async def test_what_was_sealed_for_a_wider_format_is_minted_in_more_transactions(
    tmp_path: Path,
) -> None:
    world = await new_world()
    wide, path = MintRules(conversion=CONVERSION, form=V1), tmp_path / "cloud.db"
    with minter(world, path, wide) as m:
        for owner in range(20):
            m.credit(owner, 500)
        readings = m.service.fetch_unminted_readings(50)
        m.service._seal(m.service._validated(readings), 20)

    with minter(world, path) as m:
        left = await m.service.drain()
        world.clock.at_ms += 400_000
        await m.service.drain()
        report = await m.audit()

    assert left.waiting == 8
    assert report.differences == ()
    assert world.supply() == CONVERSION.wh_to_base_units(20 * 500)


async def test_a_table_is_reused_extended_and_only_then_is_another_made() -> None:
    world, store = await new_world(), MemoryTables()
    tables, _ = keeper(world, store)

    first = await tables.covering(keys(world, range(10)))
    again = await tables.covering(keys(world, range(5)))
    wider = await tables.covering(keys(world, range(5, 40)))
    other = await tables.covering(keys(world, range(1000, 1000 + TABLE_ADDRESSES - 10)))

    assert first == again
    assert wider.address == first.address
    assert set(keys(world, range(40))) == set(wider.addresses)
    assert other.address != first.address


async def test_an_idle_table_is_closed_513_slots_after_its_end_and_its_rent_comes_back() -> None:
    world, store = await new_world(), MemoryTables()
    tables, _ = keeper(world, store)
    await tables.covering(keys(world, range(3)))
    rich = world.chain.account_at(PAYER.pubkey(), world.chain.tip)
    await tables.sweep(needed=True)
    kept = [row.state for row in store.tables()]
    world.clock.at_ms += IDLE_MS + 1

    for _ in range(3):
        await tables.sweep(needed=True)
        await world.sleep(300 * world.block_s)

    richer = world.chain.account_at(PAYER.pubkey(), world.chain.tip)
    assert kept == ["active"]
    assert store.tables() == []
    assert world.chain.accounts_of(LOOKUP, world.chain.tip) == {}
    assert rich is not None
    assert richer is not None
    assert richer.lamports > rich.lamports


async def test_a_table_that_the_store_has_lost_is_found_and_closed() -> None:
    world, forgotten, store = await new_world(), MemoryTables(), MemoryTables()
    await keeper(world, forgotten)[0].covering(keys(world, range(3)))
    tables, _ = keeper(world, store)

    for _ in range(4):
        await tables.sweep(needed=True)
        await world.sleep(300 * world.block_s)

    assert [row.state for row in store.rows.values()] == ["closed"]
    assert world.chain.accounts_of(LOOKUP, world.chain.tip) == {}


async def test_a_table_that_never_came_to_be_is_given_up_once_it_never_can() -> None:
    world, store = await new_world(), MemoryTables()
    tables, _ = keeper(world, store)
    slot = world.chain.tip.slot - 40
    store.open_table("11111111111111111111111111111112", slot, 0)
    await world.sleep(600 * world.block_s)

    table = await tables.covering(keys(world, range(2)))

    assert store.rows["11111111111111111111111111111112"].state == "closed"
    assert store.rows[str(table.address)].state == "active"


async def test_with_another_format_all_tables_are_retired() -> None:
    world, store = await new_world(), MemoryTables()
    tables, _ = keeper(world, store)
    await tables.covering(keys(world, range(2)))

    for _ in range(4):
        await tables.sweep(needed=False)
        await world.sleep(300 * world.block_s)

    assert store.tables() == []
