"""What an audit compares, and what it found."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ChainMint:
    """A finalized transaction in which our authority minted.

    Attributes:
        payments: Token account -> base units.
        created: Accounts it made with a seed of the authority.
        raw: Its bytes.
        by_former: An authority signed it that has handed the token over since.
    """

    signature: str
    slot: int
    payments: Mapping[str, int]
    memo: str | None
    created: tuple[str, ...]
    raw: bytes = b""
    fee_lamports: int | None = None
    by_former: bool = False


@dataclass(frozen=True, slots=True)
class StoredBatch:
    """A batch as the store has it; `signature` only when it is final.

    Attributes:
        payments: Token account -> base units.
        minted_wh: Sum of the credits of its readings that are marked minted.
        attempts: Signatures of all its attempts.
    """

    batch_id: int
    state: str
    memo: str
    marker: str
    marker_reclaimed: bool
    signature: str | None
    total_wh: int
    total_base_units: int
    minted_wh: int
    payments: Mapping[str, int]
    attempts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing the two sides do not agree on."""

    subject: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class StoreSnapshot:
    """All batches, the oldest first, and the credits of all minted readings, of one moment.

    Attributes:
        faults: What the store's own tables do not agree on.
        foreign: Signatures of the mints that an operator has declared not ours.
    """

    batches: tuple[StoredBatch, ...]
    minted_wh: int
    faults: tuple[Difference, ...] = ()
    foreign: frozenset[str] = frozenset()


class AuditStore(Protocol):
    """What the audit reads from the store."""

    def snapshot(self) -> StoreSnapshot:
        """Return everything minted and to be minted."""
        ...

    def known_signatures(self) -> frozenset[str]:
        """Return the signatures of all attempts, final batches and mints declared foreign."""
        ...


class AuditChain(Protocol):
    """What the audit reads from the chain, finalized only."""

    def mints(self) -> AsyncIterator[ChainMint]:
        """Return every mint our authority signed."""
        ...

    def newest_mints(self, known: frozenset[str]) -> AsyncIterator[ChainMint]:
        """Return the mints among the newest transactions whose signature is not in *known*."""
        ...

    async def burned(self, known: frozenset[str]) -> int:
        """Return the base units that holders ever destroyed; *known* transactions are no burns."""
        ...

    async def supply(self) -> int:
        """Return the token's supply in base units."""
        ...

    async def exists(self, address: str) -> bool:
        """Tell whether an account exists."""
        ...


@dataclass(frozen=True, slots=True)
class AuditSums:
    """The same energy, counted in five places; *foreign* = minted, and declared not ours."""

    minted_readings_wh: int
    final_batches_wh: int
    final_batches_base_units: int
    foreign_base_units: int
    chain_minted_base_units: int
    burned_base_units: int
    supply_base_units: int
    batches: int
    transactions: int


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found."""

    differences: tuple[Difference, ...]
    sums: AuditSums

    @property
    def ok(self) -> bool:
        """True when both sides agree on everything."""
        return not self.differences
