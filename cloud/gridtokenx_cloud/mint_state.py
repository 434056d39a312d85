"""The states of a mint batch and the only moves between them; no clock, no I/O.

An attempt is given up on proof alone: the chain is final beyond the last block that could take
it, its signature is unknown, its marker does not exist, and both answers are at least as new.
"""

from dataclasses import dataclass

MARKER_INDEX = 0
"""Instructions: marker, the mints, memo; limit and price come last, since v1 has none."""
FIRST_MINT_INDEX = 1

_RESOLVE_LOOKS = 30
OUT_OF_COMPUTE = ("ComputationalBudgetExceeded", "ProgramFailedToComplete")
"""How a builtin and how a deployed program says that the limit was reached; nobody's fault."""
_BAD_RECIPIENT = frozenset(
    {3, 17, "InvalidAccountData", "IncorrectProgramId", "UninitializedAccount"}
)
_STOP_ALL = {
    4: "the key is not the mint's authority",
    5: "the mint's authority was given up",
    14: "the supply would exceed 2**64-1",
    18: "the mint has other decimals",
}
_PAYER_SHORT = frozenset(
    {
        "InsufficientFundsForFee",
        "InsufficientFundsForRent",
        "AccountNotFound",
        "InvalidAccountForFee",
    }
)


# --- what the store says -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sealed:
    """Content fixed; no attempt of ours can land."""


@dataclass(frozen=True, slots=True)
class InFlight:
    """One signed attempt is on record and may land."""

    n: int
    signature: str
    last_valid_block_height: int


# --- what the chain says -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChainError:
    """Why a transaction failed; `instruction` None = before any instruction ran.

    `code` is the number of a program's own error, or the runtime's name for it.
    """

    instruction: int | None
    code: int | str

    def __str__(self) -> str:
        where = "transaction" if self.instruction is None else f"instruction {self.instruction}"
        return f"{where}: {self.code}"


@dataclass(frozen=True, slots=True)
class StatusUnknown:
    """The node, asked with history search, does not know the signature."""

    context_slot: int


@dataclass(frozen=True, slots=True)
class StatusSeen:
    """In a block that may still be dropped."""


@dataclass(frozen=True, slots=True)
class StatusFinal:
    """In a finalized block; only `error` None minted anything."""

    slot: int
    error: ChainError | None


@dataclass(frozen=True, slots=True)
class Marker:
    """Whether the marker account exists in the finalized state of *context_slot*."""

    exists: bool
    context_slot: int


@dataclass(frozen=True, slots=True)
class Observation:
    """What was read of one attempt; slot and height come from one reply, read first.

    Once the height is beyond the attempt's last block, `finalized_slot` may stay the first one
    for which that was so: what is at least that new knows of every block that could take it.

    `marker` None = not asked, because the attempt may still land.
    """

    finalized_slot: int
    finalized_height: int
    status: StatusUnknown | StatusSeen | StatusFinal
    marker: Marker | None


# --- what to do ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Keep:
    """Ask again later; the bytes may still land, so they are sent again."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Ask again later; nothing can land any more, but the proof is not complete."""


@dataclass(frozen=True, slots=True)
class Land:
    """The mint is final."""

    signature: str
    slot: int | None


@dataclass(frozen=True, slots=True)
class Fail:
    """The attempt is final and minted nothing."""

    slot: int
    error: ChainError


@dataclass(frozen=True, slots=True)
class Expire:
    """The attempt has provably not landed and can't any more."""


@dataclass(frozen=True, slots=True)
class Resolve:
    """The marker exists and no attempt on record made it: find out who did."""


@dataclass(frozen=True, slots=True)
class Dispute:
    """The chain holds something the store can't explain; a human must look."""

    reason: str


def needs_marker(state: InFlight, finalized_height: int, status: object) -> bool:
    """Tell whether the marker's state matters for the next step."""
    return finalized_height > state.last_valid_block_height and isinstance(status, StatusUnknown)


def next_step(state: InFlight, seen: Observation) -> Keep | Wait | Land | Fail | Expire | Resolve:
    """Return the one legal move of an attempt in flight."""
    match seen.status:
        case StatusFinal(slot, None):
            return Land(state.signature, slot)
        case StatusFinal(slot, error) if error is not None:
            return Fail(slot, error)
        case StatusUnknown(context_slot):
            return _unknown(state, seen, context_slot)
    return Keep()


def _unknown(
    state: InFlight, seen: Observation, context_slot: int
) -> Keep | Wait | Expire | Resolve:
    if seen.finalized_height <= state.last_valid_block_height:
        return Keep()
    if seen.marker is None:
        return Wait()
    if seen.marker.exists:
        return Resolve()
    # An answer older than the height we judge by proves nothing: its node may lag behind.
    fresh = min(context_slot, seen.marker.context_slot) >= seen.finalized_slot
    return Expire() if fresh else Wait()


@dataclass(frozen=True, slots=True)
class MarkerOrigin:
    """The finalized transaction that made the marker, as far as the chain's history can tell.

    Attributes:
        matches: It mints exactly the batch's items.
        ours: Our authority signed it; else it is a stranger's that touched the marker, and none
            of ours is known.
    """

    signature: str
    slot: int
    matches: bool
    ours: bool = True


def resolve(
    state: Sealed | InFlight, origin: MarkerOrigin | None, looks: int
) -> Land | Dispute | Wait:
    """Return what an existing marker means; *looks* counts the searches without a result.

    A node that keeps no history can't name the transaction. Earlier attempts expired with the
    marker absent, so then the attempt in flight is the one that made it; unless the history knows
    a stranger who put lamports there.
    """
    if origin is not None and origin.matches:
        return Land(origin.signature, origin.slot)
    if origin is not None and origin.ours:
        return Dispute(
            f"transaction {origin.signature} made this batch's marker and minted something else"
        )
    if looks < _RESOLVE_LOOKS:
        return Wait()
    if origin is not None:
        return Dispute(
            f"transaction {origin.signature} touched this batch's marker, and none that our"
            " authority signed is known to have made it"
        )
    if isinstance(state, InFlight):
        return Land(state.signature, None)
    return Dispute("the marker exists, the store knows no attempt, and the chain keeps no history")


@dataclass(frozen=True, slots=True)
class HoldRecipient:
    """The recipient at this place of the batch refuses tokens; mint the rest without it."""

    position: int
    reason: str


@dataclass(frozen=True, slots=True)
class StopAll:
    """No mint can succeed until an operator acts."""

    reason: str


@dataclass(frozen=True, slots=True)
class TopUp:
    """The fee payer has too little SOL; wait for more."""


@dataclass(frozen=True, slots=True)
class TryAgain:
    """Nothing about the content is wrong; sign again."""

    more_compute: bool


def classify(
    error: ChainError, recipients: int
) -> HoldRecipient | StopAll | TopUp | TryAgain | Resolve:
    """Return what a failure means for a batch with so many recipients."""
    if error.code in OUT_OF_COMPUTE:
        return TryAgain(more_compute=True)
    if error.instruction is None:
        return TopUp() if error.code in _PAYER_SHORT else TryAgain(more_compute=False)
    if error.instruction == MARKER_INDEX:
        return Resolve() if error.code == 0 else TopUp()
    return _classify_mint(error.instruction - FIRST_MINT_INDEX, error.code, recipients)


def _classify_mint(
    position: int, code: int | str, recipients: int
) -> HoldRecipient | StopAll | TryAgain:
    if not 0 <= position < recipients:
        return TryAgain(more_compute=False)
    if isinstance(code, int) and code in _STOP_ALL:
        return StopAll(_STOP_ALL[code])
    known = "AccountFrozen" if code == 17 else "RecipientRefused"
    reason = known if code in _BAD_RECIPIENT else "RecipientFailed"
    return HoldRecipient(position, f"{reason}: {code}")
