"""Lookup tables, old markers and restored batches, over both stores."""

from collections.abc import Callable, Iterator

import pytest

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.mint_audit import SqlAuditStore
from gridtokenx_cloud.adapters.store.mint_rebuild import SqlBatchDesk
from gridtokenx_cloud.adapters.store.mint_upkeep import SqlMintUpkeep
from gridtokenx_cloud.batching import BatchMemo
from gridtokenx_cloud.errors import StoreRefusedError
from gridtokenx_cloud.merkle import leaf_hash, merkle_root
from gridtokenx_cloud.ports.audit import ChainMint
from gridtokenx_cloud.ports.upkeep import OldMarker
from gridtokenx_cloud.rebuild import RebuildPlan, plan
from tests.support.mint_world import WorldClock, add_credits, wallet


@pytest.fixture
def database(new_store: Callable[[], Database]) -> Iterator[Database]:
    opened = new_store()
    yield opened
    opened.close()


class OwnWallets:
    def token_account(self, wallet: str) -> str:
        return f"account of {wallet}"


def planned(desk: SqlBatchDesk, batch_id: int = 7) -> RebuildPlan:
    """Plan the restoration of a batch that holds every credited line."""
    lines = desk.lines(OwnWallets())
    ordered = sorted(lines, key=lambda line: line.order)
    root = merkle_root([leaf_hash(line.line) for line in ordered])
    memo = BatchMemo(batch_id, len(lines), 0, 0, root).text()
    account = OwnWallets().token_account(str(wallet(1).pubkey()))
    owed = sum(line.credit_wh for line in lines)
    mint = ChainMint("signature", 11, {account: owed * 10}, memo, ("marker",), b"raw", 10_000)
    return plan([mint], lines, desk.states(), 10)


def test_only_one_table_can_be_on_its_way(database: Database) -> None:
    store = SqlMintUpkeep(database)
    store.open_table("first", 5, 100)

    with pytest.raises(StoreRefusedError):
        store.open_table("second", 6, 101)
    store.move_table("first", "active", 102)
    store.table_used("first", 500)
    store.open_table("second", 6, 103)
    store.adopt_table("lost", 104)
    store.move_table("second", "closed", 105)

    found = [(one.address, one.state, one.used_at_ms) for one in store.tables()]
    assert found == [("first", "active", 500), ("lost", "retiring", 104)]


def test_a_batch_is_restored_whole_and_its_marker_given_up_once(database: Database) -> None:
    add_credits(database, 1, (5, 7), 1_000)
    clock = WorldClock()
    desk, upkeep = SqlBatchDesk(database, clock, actor="cli:test"), SqlMintUpkeep(database)

    [restored] = planned(desk).restored
    desk.restore(restored)
    due = upkeep.markers_to_reclaim(clock.now_ms() + 1, 10)
    upkeep.intend_reclaim(due, clock.now_ms())
    upkeep.intend_reclaim(due, clock.now_ms())
    again = upkeep.markers_to_reclaim(0, 10)
    upkeep.reclaimed(due, 101, clock.now_ms())

    snapshot = SqlAuditStore(database).snapshot()
    [batch] = snapshot.batches
    assert (batch.batch_id, batch.state, batch.minted_wh, batch.marker_reclaimed) == (
        7,
        "final",
        12,
        True,
    )
    assert snapshot.faults == ()
    assert due == again == [OldMarker(7, "marker")]
    assert upkeep.markers_to_reclaim(2**62, 10) == []
    assert planned(desk).restored == ()
    assert desk.show(7)["attempts"]


def test_the_next_batch_gets_a_number_after_the_restored_ones(database: Database) -> None:
    add_credits(database, 1, (5,), 1_000)
    desk = SqlBatchDesk(database, WorldClock(), actor="cli:test")
    [restored] = planned(desk, batch_id=1).restored

    desk.restore(restored)

    with database.transaction() as tx:
        row = tx.execute(
            "INSERT INTO mint_batches (state, memo, merkle_root, leaf_count, marker, total_wh,"
            " total_base_units, sealed_at_ms, oldest_credit_at_ms)"
            " VALUES ('sealed', '', ?, 0, '', 1, 1, 0, 0) RETURNING batch_id",
            (b"",),
        ).fetchone()
    assert row["batch_id"] == 2
