"""What keeps the chain side tidy: lookup tables, the markers of old batches, the payer's float."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

TableState = Literal["opening", "active", "retiring", "closed"]


@dataclass(frozen=True, slots=True)
class StoredTable:
    """A lookup table on record that may hold rent.

    Attributes:
        recent_slot: The slot its address is made of.
        used_at_ms: When a transaction was last built with it.
    """

    address: str
    recent_slot: int
    state: TableState
    used_at_ms: int


class TableStore(Protocol):
    """Lookup tables on record; each method is one commit."""

    def tables(self) -> list[StoredTable]:
        """Return all that are not closed, the oldest first."""
        ...

    def open_table(self, address: str, recent_slot: int, now_ms: int) -> None:
        """Write down a table that is about to be made; only one at a time can be."""
        ...

    def adopt_table(self, address: str, now_ms: int) -> None:
        """Write down a table found on chain, to be retired."""
        ...

    def move_table(self, address: str, state: TableState, now_ms: int) -> None:
        """Note how far a table is."""
        ...

    def table_used(self, address: str, now_ms: int) -> None:
        """Note that a transaction is built with it."""
        ...


@dataclass(frozen=True, slots=True)
class OldMarker:
    """The marker of a batch that was final long ago."""

    batch_id: int
    marker: str


class MarkerStore(Protocol):
    """Markers whose rent comes back; each method is one commit."""

    def markers_to_reclaim(self, final_before_ms: int, limit: int) -> list[OldMarker]:
        """Return markers of final batches, the oldest first; those begun before come first."""
        ...

    def intend_reclaim(self, markers: Sequence[OldMarker], now_ms: int) -> None:
        """Write down that these markers are given up; from now on nobody relies on them."""
        ...

    def reclaimed(self, markers: Sequence[OldMarker], lamports: int, now_ms: int) -> None:
        """Note that these markers are gone, and what came back."""
        ...


@dataclass(frozen=True, slots=True)
class PayerFloat:
    """What the fee payer has, and what one mint transaction takes of it."""

    lamports: int
    per_transaction_lamports: int

    @property
    def transactions(self) -> int:
        """How many mints it still pays for."""
        return self.lamports // max(1, self.per_transaction_lamports)


@dataclass(frozen=True, slots=True)
class Books:
    """What the store says of the chain.

    Attributes:
        minted_base_units: Of all batches that are final.
        open_base_units: Of those that are not over; some may have landed already.
        oldest_signature: Of the first mint; None = none yet.
        day_lamports: What the mints of the last 24 hours cost, without rent.
        day_transactions: How many they were.
        tables: Addresses of the lookup tables in use.
        foreign_base_units: Of the mints that an operator has declared not ours.
    """

    minted_base_units: int
    open_base_units: int
    oldest_signature: str | None
    day_lamports: int
    day_transactions: int
    tables: tuple[str, ...]
    foreign_base_units: int = 0


class UpkeepChain(Protocol):
    """The chain's side; every method may raise `RpcUnavailableError`."""

    async def payer_float(self) -> PayerFloat:
        """Return the payer's confirmed balance, and what a mint costs now."""
        ...

    async def empty_markers(self, markers: Sequence[OldMarker]) -> int | None:
        """Take the rent of markers back; return it when all are gone, None for another try."""
        ...

    async def sweep_tables(self) -> None:
        """Retire and close lookup tables that nobody needs."""
        ...
