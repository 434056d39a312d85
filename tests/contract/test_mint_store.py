"""What the minting service may expect of its store."""

from collections.abc import Callable, Iterator

import pytest

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.mint import SqlMintStore
from gridtokenx_cloud.adapters.store.mint_retry import SqlRetryQueue
from gridtokenx_cloud.batching import BatchLimits, Markers, MintBatchData, optimize_batch
from gridtokenx_cloud.errors import ConfigError, DisputedBatchError, NotFoundError
from gridtokenx_cloud.mint_rules import composer
from gridtokenx_cloud.mint_state import ChainError, InFlight, Sealed
from gridtokenx_cloud.ports.mint import Attempt, Landing, MintBatch, Refusal, Selection
from gridtokenx_cloud.tokenization import RetryPolicy
from tests.support.mint_world import (
    AUTHORITY,
    CONVERSION,
    NOON_MS,
    SECRET,
    WorldClock,
    add_credits,
    wallet,
)

COMPOSE = composer(Markers(SECRET, str(AUTHORITY.pubkey()), "token"))
FROZEN = Refusal("RecipientRefused", "frozen")


@pytest.fixture
def database(new_store: Callable[[], Database]) -> Iterator[Database]:
    opened = new_store()
    yield opened
    opened.close()


@pytest.fixture
def store(database: Database) -> SqlMintStore:
    return SqlMintStore(database, CONVERSION, RetryPolicy)


def due(store: SqlMintStore, now_ms: int = NOON_MS, limit: int = 50) -> list[int]:
    return [reading.reading_id for reading in store.fetch_unminted(Selection(limit, now_ms))]


def credits_due(store: SqlMintStore) -> list[MintBatchData]:
    return [
        MintBatchData(
            reading.reading_id,
            reading.user_id,
            reading.wallet_address,
            reading.meter_id,
            reading.credit_wh,
            CONVERSION.wh_to_base_units(reading.credit_wh),
        )
        for reading in store.fetch_unminted(Selection(50, NOON_MS))
    ]


def seal(store: SqlMintStore, items: list[MintBatchData]) -> int | None:
    [group] = optimize_batch(items, BatchLimits(12, 10**13))
    accounts = {address: f"account of {address}" for address in group.wallets}
    return store.seal(group, accounts, COMPOSE, NOON_MS)


def sealed(store: SqlMintStore) -> MintBatch:
    batch_id = seal(store, credits_due(store))
    assert batch_id is not None
    batch = store.load(batch_id)
    assert batch is not None
    return batch


def attempt(n: int) -> Attempt:
    return Attempt(n, f"signature {n}", b"raw", 500, sent=False)


def test_credits_come_oldest_first_and_a_batch_takes_them_once(
    database: Database, store: SqlMintStore
) -> None:
    later = add_credits(database, 1, (5,), NOON_MS + 5)
    earlier = add_credits(database, 2, (7, 8), NOON_MS)
    items = credits_due(store)

    first, second = seal(store, items), seal(store, items)

    assert [item.reading_id for item in items] == earlier + later
    assert (first, second) == (1, None)
    assert due(store) == []
    assert store.live_batches() == [1]


def test_a_batch_holds_what_each_owner_is_owed(database: Database, store: SqlMintStore) -> None:
    add_credits(database, 1, (5, 6), NOON_MS)
    add_credits(database, 2, (7,), NOON_MS)

    batch = sealed(store)

    owed = {item.wallet: (item.credit_wh, item.amount_base_units) for item in batch.items}
    assert owed == {
        str(wallet(1).pubkey()): (11, 11_000_000),
        str(wallet(2).pubkey()): (7, 7_000_000),
    }
    assert batch.state == Sealed()
    assert batch.memo.startswith("gm1:1:3:29666666:1:")


def test_a_credit_whose_owner_changed_his_wallet_is_not_sealed_for_the_old_one(
    database: Database, store: SqlMintStore
) -> None:
    add_credits(database, 1, (5,), NOON_MS)
    items = credits_due(store)
    with database.transaction() as tx:
        tx.execute("UPDATE users SET wallet = 'new'")

    assert seal(store, items) is None
    assert store.live_batches() == []


def test_an_attempt_is_on_record_before_and_after_it_leaves(
    database: Database, store: SqlMintStore
) -> None:
    add_credits(database, 1, (5,), NOON_MS)
    sealed(store)

    store.record_attempt(1, attempt(1), NOON_MS)
    signed = store.load(1)
    store.mark_sent(1, 1, NOON_MS)
    sent = store.load(1)

    assert signed is not None
    assert signed.state == InFlight(1, "signature 1", 500)
    assert signed.attempt is not None
    assert not signed.attempt.sent
    assert sent is not None
    assert sent.attempt is not None
    assert sent.attempt.sent


def test_a_second_attempt_waits_for_the_end_of_the_first(
    database: Database, store: SqlMintStore
) -> None:
    add_credits(database, 1, (5,), NOON_MS)
    sealed(store)
    store.record_attempt(1, attempt(1), NOON_MS)

    with pytest.raises(DisputedBatchError, match="second minter"):
        store.record_attempt(1, attempt(2), NOON_MS)
    store.end_attempt(1, 1, None, NOON_MS)
    store.record_attempt(1, attempt(2), NOON_MS)

    batch = store.load(1)
    assert batch is not None
    assert (batch.attempts, batch.state) == (2, InFlight(2, "signature 2", 500))


def test_a_recipient_in_flight_stays_in_its_batch(database: Database, store: SqlMintStore) -> None:
    add_credits(database, 1, (5,), NOON_MS)
    batch = sealed(store)
    store.record_attempt(1, attempt(1), NOON_MS)

    with pytest.raises(DisputedBatchError):
        store.reseal_without(1, batch.items[0].wallet, FROZEN, COMPOSE, NOON_MS)


def test_a_held_recipients_credit_goes_back_and_the_rest_keeps_its_marker(
    database: Database, store: SqlMintStore
) -> None:
    [frozen] = add_credits(database, 1, (5,), NOON_MS)
    add_credits(database, 2, (7,), NOON_MS)
    before = sealed(store)

    store.reseal_without(1, str(wallet(1).pubkey()), FROZEN, COMPOSE, NOON_MS)

    after = store.load(1)
    assert after is not None
    assert after.marker == before.marker
    assert after.memo != before.memo
    assert [item.credit_wh for item in after.items] == [7]
    assert due(store) == []
    assert due(store, NOON_MS + 300_000) == [frozen]


def test_a_failed_attempt_for_lack_of_compute_is_counted(
    database: Database, store: SqlMintStore
) -> None:
    add_credits(database, 1, (5,), NOON_MS)
    sealed(store)
    store.record_attempt(1, attempt(1), NOON_MS)

    store.end_attempt(1, 1, ChainError(3, "ComputationalBudgetExceeded"), NOON_MS)

    batch = store.load(1)
    assert batch is not None
    assert batch.exhausted_attempts == 1


def test_a_final_batch_marks_all_its_readings_in_one_commit(
    database: Database, store: SqlMintStore
) -> None:
    ids = add_credits(database, 1, (5, 6), NOON_MS)
    sealed(store)
    store.record_attempt(1, attempt(1), NOON_MS)

    store.mark_final(1, Landing("signature 1", 77, 10_000), NOON_MS + 9)

    results = store.results_of(ids)
    assert all(result.success for result in results)
    assert {result.tx_signature for result in results} == {"signature 1"}
    assert store.load(1) is None
    assert store.backlog(NOON_MS).unminted == 0
    with pytest.raises(DisputedBatchError):
        store.mark_final(1, Landing("signature 2", 78, None), NOON_MS)


def test_a_final_batch_with_other_readings_than_sealed_changes_nothing(
    database: Database, store: SqlMintStore
) -> None:
    ids = add_credits(database, 1, (5, 6), NOON_MS)
    sealed(store)
    with database.transaction() as tx:
        tx.execute("UPDATE meter_readings SET batch_id = NULL WHERE reading_id = ?", (ids[0],))

    with pytest.raises(DisputedBatchError, match="1 of its 2"):
        store.mark_final(1, Landing("signature 1", 77, None), NOON_MS)

    assert not any(result.success for result in store.results_of(ids))
    assert store.live_batches() == [1]


def test_a_credit_refused_too_often_waits_for_an_operator(
    database: Database, store: SqlMintStore
) -> None:
    [reading] = add_credits(database, 1, (5,), NOON_MS)
    clock = WorldClock()
    queue = SqlRetryQueue(database, clock, actor="cli:test")
    for _ in range(4):
        store.refuse([reading], FROZEN, clock.now_ms())
        clock.at_ms += 3_600_000

    parked = queue.rows(parked_only=True)
    assert [(row["reading_id"], row["attempts"]) for row in parked] == [(reading, 4)]
    assert due(store, clock.now_ms() + 10**9) == []
    assert store.backlog(clock.now_ms()).waiting == 1

    queue.requeue(reading)

    assert due(store, clock.now_ms()) == [reading]
    queue.give_up(reading)
    assert due(store, clock.now_ms() + 10**9) == []


def test_a_second_refusal_replaces_the_first(database: Database, store: SqlMintStore) -> None:
    [reading] = add_credits(database, 1, (5,), NOON_MS)
    store.refuse([reading], FROZEN, NOON_MS)

    store.refuse([reading], Refusal("AmountExceedsMaximum", "too much"), NOON_MS)

    [row] = SqlRetryQueue(database, WorldClock(), actor="test").rows()
    assert (row["error_code"], row["error_message"]) == ("AmountExceedsMaximum", "too much")


def test_an_unknown_reading_can_be_neither_requeued_nor_reported(
    database: Database, store: SqlMintStore
) -> None:
    with pytest.raises(NotFoundError, match="retry list"):
        SqlRetryQueue(database, WorldClock(), actor="test").requeue(99)
    with pytest.raises(NotFoundError, match="99"):
        store.results_of([99])


def test_a_store_is_tied_to_its_token_and_rate(store: SqlMintStore) -> None:
    store.bind({"mint_address": "A", "base_units_per_wh": "1000000"}, NOON_MS)
    store.bind({"mint_address": "A"}, NOON_MS)

    with pytest.raises(ConfigError, match="mint_address is B, but this store was started with A"):
        store.bind({"mint_address": "B"}, NOON_MS)


EXPLAIN = {
    # A planner that has seen no rows yet would rather read the empty table.
    True: ("SET enable_seqscan = off", "SET enable_sort = off", "EXPLAIN "),
    False: ("EXPLAIN QUERY PLAN ",),
}


def test_looking_for_credits_uses_the_partial_index(database: Database) -> None:
    read = database.connection
    *preparations, explain = EXPLAIN[read.dialect.locks_rows]
    for statement in preparations:
        read.execute(statement)

    plan = read.execute(
        f"{explain}SELECT reading_id FROM mint_queue WHERE attempts IS NULL"  # noqa: S608
        " ORDER BY submitted_at_ms, reading_id LIMIT 50"
    ).fetchall()

    steps = "\n".join(str(row[-1]) for row in plan)
    # PostgreSQL names a partition's part of an index by its columns.
    assert "meter_readings_unminted" in steps or "_submitted_at_ms_reading_id_" in steps
    assert "Seq Scan on meter_readings" not in steps
    assert "USE TEMP B-TREE" not in steps
