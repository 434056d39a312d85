"""What was changed behind the program's back shows in the audit, over both stores."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.mint import SqlMintStore
from gridtokenx_cloud.adapters.store.mint_audit import SqlAuditStore
from gridtokenx_cloud.adapters.store.mint_rebuild import SqlBatchDesk
from gridtokenx_cloud.adapters.store.registry import SqlRegistry
from gridtokenx_cloud.batching import Markers, MintBatchData, MintGroup
from gridtokenx_cloud.errors import ClaimsDifferError, DisputedBatchError
from gridtokenx_cloud.mint_rules import composer
from gridtokenx_cloud.mint_state import ChainError
from gridtokenx_cloud.ports.mint import Attempt, Landing
from gridtokenx_cloud.tokenization import RetryPolicy
from tests.support.build_cloud import FakeClock
from tests.support.mint_world import (
    AUTHORITY,
    CONVERSION,
    NOON_MS,
    SECRET,
    add_credits,
    wallet,
)

EPOCH = "00000000000000e1"
ATTEMPT = Attempt(1, "signature", b"raw", 100, sent=False)


@dataclass
class Books:
    """A store in which everything agrees: a final batch of two owners, and a credit that waits."""

    database: Database
    store: SqlMintStore
    batch_id: int
    minted: list[int]
    waiting: int

    def codes(self) -> list[str]:
        snapshot = SqlAuditStore(self.database).snapshot()
        return sorted({fault.code for fault in snapshot.faults})


@pytest.fixture
def books(new_store: Callable[[], Database]) -> Iterator[Books]:
    database = new_store()
    registry = SqlRegistry(database, FakeClock(NOON_MS), actor="test")
    for owner in (1, 2):
        registry.add_user(f"user-{owner}", str(wallet(owner).pubkey()))
    minted = [
        *add_credits(database, 1, (500,), NOON_MS),
        *add_credits(database, 2, (700, 40), NOON_MS),
    ]
    [waiting] = add_credits(database, 1, (60,), NOON_MS)
    with database.transaction() as tx:
        tx.executemany(
            "INSERT INTO meter_epochs (meter_id, epoch, status, baseline_wh, credited_through_wh,"
            " opened_at_ms) VALUES (?, ?, 'accepted', 100, ?, 1)",
            [("HOUSE-1", EPOCH, 660), ("HOUSE-2", EPOCH, 840)],
        )
    worth = [(minted[0], 1, 500), (minted[1], 2, 700), (minted[2], 2, 40)]
    items = tuple(
        MintBatchData(
            number, f"user-{one}", str(wallet(one).pubkey()), f"HOUSE-{one}", wh, wh * 10**6
        )
        for number, one, wh in worth
    )
    group = MintGroup(items)
    store = SqlMintStore(database, CONVERSION, RetryPolicy)
    compose = composer(Markers(SECRET, str(AUTHORITY.pubkey()), "token"))
    accounts = {name: f"account of {name}" for name in group.wallets}
    batch_id = store.seal(group, accounts, compose, NOON_MS)
    assert batch_id is not None
    yield Books(database, store, batch_id, minted, waiting)
    database.close()


def final(books: Books) -> None:
    books.store.record_attempt(books.batch_id, ATTEMPT, NOON_MS)
    books.store.mark_final(books.batch_id, Landing("signature", 7, 5000), NOON_MS)


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        ("UPDATE meter_readings SET user_id = 'user-2' WHERE credit_wh = 500", ["SharesDiffer"]),
        (
            "DELETE FROM meter_readings WHERE credit_wh = 40",
            ["LedgerDiffers", "SharesDiffer"],
        ),
        ("UPDATE mint_items SET credit_wh = 501 WHERE user_id = 'user-1'", ["SharesDiffer"]),
        ("UPDATE meter_readings SET credit_wh = 6000 WHERE credit_wh = 60", ["LedgerDiffers"]),
        ("UPDATE meter_epochs SET credited_through_wh = 900", ["LedgerDiffers"]),
        (
            "UPDATE users SET wallet = 'thief' WHERE user_id = 'user-1'",
            ["WalletDiffers"],
        ),
        ("UPDATE mint_items SET wallet = 'thief' WHERE user_id = 'user-2'", ["WalletDiffers"]),
    ],
)
def test_a_row_that_was_changed_or_deleted_contradicts_another(
    books: Books, change: str, codes: list[str]
) -> None:
    final(books)
    before = books.codes()

    with books.database.transaction() as tx:
        tx.execute(change)

    assert before == []
    assert books.codes() == codes


def test_a_reading_that_was_doubled_contradicts_the_ledger(books: Books) -> None:
    with books.database.transaction() as tx:
        tx.execute(
            "INSERT INTO meter_readings (meter_id, epoch, seq, gateway_id, user_id,"
            " submitted_at_ms, interval_s, import_wh, export_wh, clock, flags, boot_id, mono_ms,"
            " credit_wh, status, line) SELECT meter_id, epoch, seq, gateway_id, user_id,"
            " submitted_at_ms, interval_s, import_wh, export_wh, clock, flags, boot_id, mono_ms,"
            " credit_wh, status, line FROM meter_readings WHERE reading_id = ?",
            (books.waiting,),
        )

    assert books.codes() == ["LedgerDiffers"]


def test_a_line_that_was_changed_has_another_root_than_the_chain(books: Books) -> None:
    final(books)
    store = SqlAuditStore(books.database)
    before = list(store.line_faults())

    with books.database.transaction() as tx:
        tx.execute(
            "UPDATE meter_readings SET line = ? WHERE reading_id = ?", (b"x", books.minted[1])
        )

    [after] = store.line_faults()
    assert before == []
    assert (after.subject, after.code) == (f"batch {books.batch_id}", "LinesDiffer")


def test_nothing_is_signed_that_the_readings_of_a_batch_are_not_worth(books: Books) -> None:
    with books.database.transaction() as tx:
        tx.execute(
            "UPDATE meter_readings SET batch_id = NULL WHERE reading_id = ?", (books.minted[2],)
        )

    with pytest.raises(ClaimsDifferError, match="user-2"):
        books.store.record_attempt(books.batch_id, ATTEMPT, NOON_MS)

    assert SqlAuditStore(books.database).known_signatures() == frozenset()


def test_a_disputed_batch_that_is_driven_again_may_still_end_its_attempt(books: Books) -> None:
    books.store.record_attempt(books.batch_id, ATTEMPT, NOON_MS)
    books.store.mark_sent(books.batch_id, 1, NOON_MS)
    books.store.dispute(books.batch_id, "a stranger touched the marker", NOON_MS)
    SqlBatchDesk(books.database, FakeClock(NOON_MS), actor="test").reopen(books.batch_id, {})

    books.store.end_attempt(books.batch_id, 1, None, NOON_MS)
    loaded = books.store.load(books.batch_id)
    with pytest.raises(DisputedBatchError, match="not pending"):
        books.store.end_attempt(books.batch_id, 1, ChainError(None, "late"), NOON_MS)

    assert loaded is not None
    assert loaded.attempt is None
    assert loaded.attempts == 1
