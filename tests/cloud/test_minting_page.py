"""The drawing and the tables of `docs/minting.md` are what the code does."""

import itertools
import re
import shutil
import typing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gridtokenx_cloud import mint_state
from gridtokenx_cloud.adapters.store.database import Database, open_database
from gridtokenx_cloud.adapters.store.migrate import migrate
from gridtokenx_cloud.adapters.store.mint import SqlMintStore
from gridtokenx_cloud.adapters.store.mint_rebuild import SqlBatchDesk
from gridtokenx_cloud.batching import BatchLimits, Markers, MintBatchData, optimize_batch
from gridtokenx_cloud.errors import DisputedBatchError
from gridtokenx_cloud.mint_rules import composer
from gridtokenx_cloud.ports.mint import Attempt, Landing, Refusal, Selection
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

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "minting.md").read_text(encoding="utf-8")
COMPOSE = composer(Markers(SECRET, str(AUTHORITY.pubkey()), "token"))
REFUSED = Refusal("RecipientRefused", "frozen")
Edge = tuple[str, str, str]


def drawn() -> set[Edge]:
    """Return (from, to, method) of each arrow."""
    arrows = re.findall(r"^    (\S+) --> (\S+): (\w+)$", PAGE, re.MULTILINE)
    return {(source, target, method) for source, target, method in arrows}


class Books:
    """A store with one batch, to which anything may be done."""

    def __init__(self, database: Database, owners: int) -> None:
        self.database = database
        self.store = SqlMintStore(database, CONVERSION, RetryPolicy)
        self.desk = SqlBatchDesk(database, WorldClock(), actor="test")
        self.owners = owners
        self.attempts = itertools.count(1)

    def seal(self) -> None:
        for owner in range(1, self.owners + 1):
            add_credits(self.database, owner, (5,), NOON_MS)
        items = [
            MintBatchData(
                one.reading_id,
                one.user_id,
                one.wallet_address,
                one.meter_id,
                one.credit_wh,
                CONVERSION.wh_to_base_units(one.credit_wh),
            )
            for one in self.store.fetch_unminted(Selection(50, NOON_MS))
        ]
        [group] = optimize_batch(items, BatchLimits(12, 10**13))
        accounts = {address: f"account of {address}" for address in group.wallets}
        self.store.seal(group, accounts, COMPOSE, NOON_MS)

    def record_attempt(self) -> None:
        n = next(self.attempts)
        attempt = Attempt(n, f"signature {n}", b"raw", 500, sent=False)
        self.store.record_attempt(1, attempt, NOON_MS)

    def mark_sent(self) -> None:
        self.store.mark_sent(1, 1, NOON_MS)

    def end_attempt(self) -> None:
        self.store.end_attempt(1, 1, None, NOON_MS)

    def reseal_without(self) -> None:
        self.store.reseal_without(1, str(wallet(1).pubkey()), REFUSED, COMPOSE, NOON_MS)

    def mark_final(self) -> None:
        self.store.mark_final(1, Landing("signature 1", 7, 5_000), NOON_MS)

    def dispute(self) -> None:
        self.store.dispute(1, "a test", NOON_MS)

    def reopen(self) -> None:
        self.desk.reopen(1, {})

    def release(self) -> None:
        self.desk.release(1, {})

    @property
    def state(self) -> str:
        row = self.database.connection.execute("SELECT state FROM mint_batches").fetchone()
        return str(row["state"]) if row else "[*]"


MOVES: dict[str, Callable[[Books], None]] = {
    name: getattr(Books, name)
    for name in (
        "record_attempt",
        "mark_sent",
        "end_attempt",
        "reseal_without",
        "mark_final",
        "dispute",
        "reopen",
        "release",
    )
}
WAYS: dict[str, tuple[str, ...]] = {
    "sealed": (),
    "signed": ("record_attempt",),
    "in_flight": ("record_attempt", "mark_sent"),
    "final": ("record_attempt", "mark_sent", "mark_final"),
    "void": ("dispute", "release"),
    "disputed": ("dispute",),
}


@contextmanager
def opened(folder: Path, owners: int) -> Iterator[Books]:
    database = open_database(f"sqlite:///{folder / 'cloud.db'}")
    try:
        yield Books(database, owners)
    finally:
        database.close()


def brought_to(folder: Path, source: str, empty: Path, owners: int) -> None:
    """Make a store whose batch is in a state."""
    shutil.copytree(empty, folder)
    with opened(folder, owners) as books:
        books.seal()
        for step in WAYS[source]:
            MOVES[step](books)
        assert books.state == source


def tried(folder: Path, start: Path, source: str, move: str, owners: int) -> Edge | None:
    """Make one move in a copy of a store; None = it is refused and changes nothing."""
    shutil.copytree(start, folder)
    with opened(folder, owners) as books:
        try:
            MOVES[move](books)
        except DisputedBatchError:
            assert books.state == source
            return None
        return source, books.state, move


def test_the_drawing_shows_every_move_that_the_store_makes_and_no_other(tmp_path: Path) -> None:
    found: set[Edge] = {("[*]", "sealed", "seal")}
    empty = tmp_path / "empty"
    empty.mkdir()
    with opened(empty, 0) as books:
        migrate(books.database)
    for source, owners in itertools.product(WAYS, (1, 2)):
        start = tmp_path / f"{source}-{owners}"
        brought_to(start, source, empty, owners)
        for move in MOVES:
            edge = tried(tmp_path / f"{start.name}-{move}", start, source, move, owners)
            found |= {edge} if edge else set()

    assert drawn() == found


def test_every_state_of_the_schema_is_explained_and_drawn() -> None:
    schema = (ROOT / "cloud/gridtokenx_cloud/migrations/0001.initial.sql").read_text()
    listed = re.search(r"CHECK \(state IN \(('sealed'[^)]*)\)\)", schema)
    assert listed
    states = set(re.findall(r"'(\w+)'", listed[1]))

    assert states == set(WAYS)
    assert {state for state in states if f"| `{state}` |" in PAGE} == states
    assert {one for source, target, _ in drawn() for one in (source, target)} == states | {"[*]"}


@pytest.mark.parametrize("function", ["next_step", "resolve", "classify"])
def test_every_decision_is_explained(function: str) -> None:
    decided = typing.get_args(typing.get_type_hints(getattr(mint_state, function))["return"])

    assert decided
    assert [one.__name__ for one in decided if f"`{one.__name__}`" not in PAGE] == []


def test_every_file_that_the_page_names_is_there() -> None:
    tests = re.findall(r"`(?:tests/\w+/)?(test_\w+\.py)`", PAGE)
    there = {path.name for path in (ROOT / "tests").rglob("test_*.py")}

    assert tests
    assert set(tests) <= there
    assert all((ROOT / "docs" / name).exists() for name in re.findall(r"\]\((\w+\.md)\)", PAGE))
