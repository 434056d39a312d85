"""Moves that the protocol does not know are refused by the database itself, over both stores."""

from collections.abc import Callable, Iterator
from itertools import product

import pytest

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.mint import SqlMintStore
from gridtokenx_cloud.batching import Markers, MintBatchData, MintGroup
from gridtokenx_cloud.errors import DisputedBatchError, StoreRefusedError
from gridtokenx_cloud.mint_rules import composer
from gridtokenx_cloud.mint_state import ChainError
from gridtokenx_cloud.ports.mint import Attempt, Landing
from gridtokenx_cloud.tokenization import RetryPolicy
from tests.support.mint_world import (
    AUTHORITY,
    CONVERSION,
    NOON_MS,
    SECRET,
    add_credits,
    wallet,
)

STATES = ("sealed", "signed", "in_flight", "final", "void", "disputed")
LEGAL = {
    "sealed": {"signed", "final", "void", "disputed"},
    "signed": {"in_flight", "sealed", "final", "disputed"},
    "in_flight": {"sealed", "final", "disputed"},
    "disputed": {"sealed", "void"},
    "void": {"final"},
    "final": set(),
}
ATTEMPT = Attempt(1, "signature", b"raw", 100, sent=False)
LANDING = Landing("signature", 7, 5000)


@pytest.fixture
def database(new_store: Callable[[], Database]) -> Iterator[Database]:
    opened = new_store()
    yield opened
    opened.close()


def sealed_batch(database: Database) -> tuple[SqlMintStore, int]:
    """Seal one credit of one owner."""
    [reading_id] = add_credits(database, 1, (500,), NOON_MS)
    owner = str(wallet(1).pubkey())
    group = MintGroup((MintBatchData(reading_id, "user-1", owner, "HOUSE-1", 500, 500),))
    store = SqlMintStore(database, CONVERSION, RetryPolicy)
    compose = composer(Markers(SECRET, str(AUTHORITY.pubkey()), "token"))
    batch_id = store.seal(group, {owner: "account"}, compose, NOON_MS)
    assert batch_id is not None
    return store, batch_id


def insert_batch(database: Database, name: str, state: str) -> int:
    """Write a batch in any state, as no program does."""
    with database.transaction() as tx:
        row = tx.execute(
            "INSERT INTO mint_batches (state, memo, merkle_root, leaf_count, marker, total_wh,"
            " total_base_units, sealed_at_ms, oldest_credit_at_ms, signature, dispute)"
            " VALUES (?, '', ?, 0, ?, 0, 0, 0, 0, ?, ?) RETURNING batch_id",
            (
                state,
                b"",
                name,
                "signature" if state == "final" else None,
                "why" if state == "disputed" else None,
            ),
        ).fetchone()
    return int(row["batch_id"])


def move(database: Database, batch_id: int, target: str) -> bool:
    """Change a batch's state behind the program's back; tell whether that went."""
    values = (
        target,
        "signature" if target == "final" else None,
        "why" if target == "disputed" else None,
        batch_id,
    )
    try:
        with database.transaction() as tx:
            tx.execute(
                "UPDATE mint_batches SET state = ?, signature = ?, dispute = ? WHERE batch_id = ?",
                values,
            )
    except StoreRefusedError:
        return False
    return True


def test_a_batch_makes_the_moves_of_the_protocol_and_no_other(database: Database) -> None:
    pairs = [pair for pair in product(STATES, STATES) if pair[0] != pair[1]]

    went = {
        (source, target)
        for source, target in pairs
        if move(database, insert_batch(database, f"{source} {target}", source), target)
    }

    assert len(pairs) == 30
    assert went == {(source, target) for source in STATES for target in LEGAL[source]}


def test_an_attempt_that_has_ended_stays_ended_except_that_the_chain_may_show_it_landed(
    database: Database,
) -> None:
    outcomes = ("pending", "landed", "failed", "expired")
    went: set[tuple[str, str]] = set()

    for source, target in product(outcomes, outcomes):
        number = insert_batch(database, f"{source} {target}", "signed")
        try:
            with database.transaction() as tx:
                tx.execute(
                    "INSERT INTO mint_attempts (batch_id, n, signature, raw,"
                    " last_valid_block_height, outcome, signed_at_ms) VALUES (?, 1, ?, ?, 1, ?, 1)",
                    (number, f"signature {number}", b"", source),
                )
                tx.execute(
                    "UPDATE mint_attempts SET outcome = ? WHERE batch_id = ?", (target, number)
                )
        except StoreRefusedError:
            continue
        went.add((source, target))

    same = {(outcome, outcome) for outcome in outcomes}
    ends = {("pending", "landed"), ("pending", "failed"), ("pending", "expired")}
    assert went - same == ends | {("expired", "landed"), ("failed", "landed")}


@pytest.mark.parametrize(
    "change",
    ["minted = 0, mint_tx_signature = NULL", "credit_wh = 999", "mint_tx_signature = 'other'"],
)
def test_a_minted_credit_stays_as_it_was_minted(database: Database, change: str) -> None:
    store, batch_id = sealed_batch(database)
    store.mark_final(batch_id, LANDING, NOON_MS)

    with pytest.raises(StoreRefusedError), database.transaction() as tx:
        tx.execute(f"UPDATE meter_readings SET {change} WHERE minted = 1")  # noqa: S608


def test_what_a_credit_is_worth_does_not_change_while_it_is_in_a_batch(
    database: Database,
) -> None:
    sealed_batch(database)

    with pytest.raises(StoreRefusedError), database.transaction() as tx:
        tx.execute("UPDATE meter_readings SET credit_wh = credit_wh + 1")


def test_every_move_of_a_batch_leaves_an_entry_in_the_audit_log(database: Database) -> None:
    store, batch_id = sealed_batch(database)
    moves: list[Callable[[], None]] = [
        lambda: store.record_attempt(batch_id, ATTEMPT, NOON_MS),
        lambda: store.mark_sent(batch_id, 1, NOON_MS),
        lambda: store.end_attempt(batch_id, 1, ChainError(2, 17), NOON_MS),
        lambda: store.record_attempt(batch_id, Attempt(2, "s2", b"", 9, sent=False), NOON_MS),
        lambda: store.end_attempt(batch_id, 2, None, NOON_MS),
        lambda: store.mark_final(batch_id, LANDING, NOON_MS),
    ]

    for one in moves:
        one()

    rows = database.connection.execute(
        "SELECT action FROM audit_log WHERE subject = ? ORDER BY entry", (f"batch:{batch_id}",)
    )
    assert [row["action"] for row in rows] == [
        "batch_sealed",
        "attempt_signed",
        "attempt_sent",
        "batch_classified",
        "attempt_signed",
        "attempt_expired",
        "batch_final",
    ]


def test_the_store_makes_no_move_from_a_state_that_does_not_know_it(database: Database) -> None:
    store, batch_id = sealed_batch(database)

    premature: list[Callable[[], None]] = [
        lambda: store.mark_sent(batch_id, 1, NOON_MS),
        lambda: store.end_attempt(batch_id, 1, None, NOON_MS),
    ]
    late: list[Callable[[], None]] = [
        lambda: store.record_attempt(batch_id, ATTEMPT, NOON_MS),
        lambda: store.mark_sent(batch_id, 1, NOON_MS),
        lambda: store.mark_final(batch_id, LANDING, NOON_MS),
        lambda: store.dispute(batch_id, "why", NOON_MS),
    ]

    for one in premature:
        with pytest.raises(DisputedBatchError):
            one()
    store.mark_final(batch_id, LANDING, NOON_MS)
    for one in late:
        with pytest.raises(DisputedBatchError):
            one()

    [row] = database.connection.execute("SELECT state FROM mint_batches").fetchall()
    assert row["state"] == "final"
