"""What the minting service needs: its queue and batches in the store, the chain, the wallets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from gridtokenx_cloud.batching import BatchMemo, MintGroup, MintResult
from gridtokenx_cloud.mint_state import ChainError, InFlight, MarkerOrigin, Observation, Sealed


@dataclass(frozen=True, slots=True)
class Selection:
    """Which unminted credits a pass takes.

    Attributes:
        limit: Most readings.
        now_ms: Retries due by now are taken, at most half of *limit*.
        threshold_wh: An owner with less waits; 0 = nobody waits.
        owner_percent: Share of owners whose credits are minted at all.
    """

    limit: int
    now_ms: int
    threshold_wh: int = 0
    owner_percent: int = 100


@dataclass(frozen=True, slots=True)
class UnmintedReading:
    """A credit that is in no batch."""

    reading_id: int
    user_id: str
    wallet_address: str
    meter_id: str
    credit_wh: int
    submitted_at_ms: int


@dataclass(frozen=True, slots=True)
class Leaf:
    """One reading of a batch, as the proof names it."""

    meter_id: str
    epoch: str
    seq: int
    reading_timestamp_ms: int | None
    line: bytes


@dataclass(frozen=True, slots=True)
class Composed:
    """What a batch's content makes of its id."""

    memo: BatchMemo
    marker: str


Compose = Callable[[int, Sequence[Leaf]], Composed]
"""(batch id, leaves ordered by meter, epoch, seq) -> memo and marker."""


@dataclass(frozen=True, slots=True)
class MintItem:
    """One recipient of a batch."""

    wallet: str
    user_id: str
    token_account: str
    credit_wh: int
    amount_base_units: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """A signed transaction on record."""

    n: int
    signature: str
    raw: bytes
    last_valid_block_height: int
    sent: bool


@dataclass(frozen=True, slots=True)
class MintBatch:
    """One batch that is not over, as the store has it."""

    batch_id: int
    memo: str
    marker: str
    items: tuple[MintItem, ...]
    attempt: Attempt | None
    attempts: int
    exhausted_attempts: int
    sealed_at_ms: int
    oldest_credit_at_ms: int

    @property
    def state(self) -> Sealed | InFlight:
        """Return the state that decides the next move."""
        if self.attempt is None:
            return Sealed()
        attempt = self.attempt
        return InFlight(attempt.n, attempt.signature, attempt.last_valid_block_height)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why credits can't be minted now."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Landing:
    """A finalized mint."""

    signature: str
    slot: int | None
    fee_lamports: int | None


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is still to do; parked and not yet due credits apart."""

    unminted: int
    waiting: int
    live_batches: int


class MintQueue(Protocol):
    """Credits on their way into a batch; each method is one commit."""

    def fetch_unminted(self, selection: Selection) -> list[UnmintedReading]:
        """Return unminted credits in no batch, the oldest first."""
        ...

    def seal(
        self,
        group: MintGroup,
        token_accounts: dict[str, str],
        compose: Compose,
        now_ms: int,
    ) -> int | None:
        """Claim the group's credits for a new batch; None when one of them was already taken."""
        ...

    def refuse(self, readings: Sequence[int], refusal: Refusal, now_ms: int) -> list[int]:
        """Put unminted credits on the retry queue; return those parked for an operator."""
        ...

    def results_of(self, readings: Sequence[int]) -> list[MintResult]:
        """Return what has become of each reading, in the order given."""
        ...

    def backlog(self, now_ms: int) -> Backlog:
        """Count what is left."""
        ...


class MintBatches(Protocol):
    """Sealed batches and their attempts; each method is one commit."""

    def live_batches(self) -> list[int]:
        """Return the batches that are not over, the oldest first."""
        ...

    def load(self, batch_id: int) -> MintBatch | None:
        """Return a batch; None when it is over."""
        ...

    def reseal_without(
        self, batch_id: int, wallet: str, refusal: Refusal, compose: Compose, now_ms: int
    ) -> None:
        """Give a recipient's credits back to the retry queue; same batch, same marker.

        Raises:
            DisputedBatchError: An attempt of the batch may still land.
        """
        ...

    def mark_final(self, batch_id: int, landing: Landing, now_ms: int) -> None:
        """Mark the batch and its readings minted, with their events.

        Raises:
            DisputedBatchError: Other readings than those that were sealed; nothing is changed.
        """
        ...

    def dispute(self, batch_id: int, reason: str, now_ms: int) -> None:
        """Take a batch out of the loop until an operator has looked at it."""
        ...


class MintAttempts(Protocol):
    """Signed transactions; on record before they leave. Each method is one commit."""

    def record_attempt(self, batch_id: int, attempt: Attempt, now_ms: int) -> None:
        """Write a signed attempt down.

        Raises:
            ClaimsDifferError: The batch's readings are not those of its recipients any more.
        """
        ...

    def mark_sent(self, batch_id: int, n: int, now_ms: int) -> None:
        """Note that the bytes have left."""
        ...

    def end_attempt(self, batch_id: int, n: int, failure: ChainError | None, now_ms: int) -> None:
        """Close an attempt that minted nothing: expired, or finalized with *failure*."""
        ...


class MintStore(MintQueue, MintBatches, MintAttempts, Protocol):
    """All of it, as one adapter has it."""


@dataclass(frozen=True, slots=True)
class AccountReport:
    """What the chain says about a batch's accounts before it is signed.

    Attributes:
        refused: Wallet -> why its account takes no tokens.
        missing: Wallets without a token account.
        marker_exists: The batch may have been minted already.
    """

    refused: dict[str, str]
    missing: tuple[str, ...]
    marker_exists: bool


class MintChain(Protocol):
    """Minting transactions of one cluster; every method may raise `RpcUnavailableError`."""

    async def inspect(self, batch: MintBatch) -> AccountReport:
        """Read the recipients' accounts and the marker."""
        ...

    async def create_token_accounts(self, wallets: Sequence[str]) -> None:
        """Make missing token accounts, and return when they exist or the try has expired."""
        ...

    def most_recipients(self, memo: str) -> int:
        """Return how many recipients one transaction with this memo carries."""
        ...

    async def prepare(self, batch: MintBatch) -> Attempt | ChainError:
        """Build, simulate and sign the next attempt; nothing leaves."""
        ...

    async def send(self, raw: bytes) -> None:
        """Hand signed bytes to every node; whatever they answer is no verdict, so no answer."""
        ...

    async def observe(self, state: InFlight, marker: str) -> Observation:
        """Read what the chain knows of an attempt."""
        ...


class MintHistory(Protocol):
    """Looks into finalized transactions."""

    async def marker_origin(self, batch: MintBatch) -> MarkerOrigin | None:
        """Return the transaction that made the marker; None when no node can tell."""
        ...

    async def fee_lamports(self, signature: str) -> int | None:
        """Return what a transaction cost; None when no node can tell."""
        ...


class Wallets(Protocol):
    """Addresses that can hold tokens."""

    def token_account(self, wallet: str) -> str:
        """Return the associated token account of *wallet*.

        Raises:
            ValidationError: `InvalidWalletAddress`, no 32-byte key on the curve.
        """
        ...
