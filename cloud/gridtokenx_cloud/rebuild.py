"""Restores what was minted from the chain and the signed lines; pure.

The chain names each batch, what it paid to whom, and the root over its lines. The store has the
lines and what each is worth. A batch is restored only when the lines found for it have that root.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gridtokenx_cloud.batching import BatchMemo, parse_memo
from gridtokenx_cloud.merkle import leaf_hash, merkle_root
from gridtokenx_cloud.ports.audit import ChainMint, Difference

_UNDECIDED = ("signed", "in_flight", "disputed")


@dataclass(frozen=True, slots=True)
class CreditLine:
    """A stored reading that is worth something and is not marked minted.

    Attributes:
        batch_id: The batch that claims it, if any.
    """

    reading_id: int
    user_id: str
    wallet: str
    token_account: str
    credit_wh: int
    order: tuple[str, str, int]
    submitted_at_ms: int
    line: bytes
    batch_id: int | None


@dataclass(frozen=True, slots=True)
class Restored:
    """A batch as it must have been."""

    memo: BatchMemo
    mint: ChainMint
    lines: tuple[CreditLine, ...]


@dataclass(frozen=True, slots=True)
class RebuildPlan:
    """What can be restored, and what can't."""

    restored: tuple[Restored, ...]
    differences: tuple[Difference, ...]


def plan(
    mints: Sequence[ChainMint],
    lines: Sequence[CreditLine],
    states: Mapping[int, str],
    base_units_per_wh: int,
) -> RebuildPlan:
    """Return which lines each mint was for.

    Args:
        mints: The mints that the store does not have as final, the oldest first.
        lines: Oldest first.
        states: Batch -> its state, of the batches the store has.
        base_units_per_wh: The fixed rate.
    """
    free = list(lines)
    restored: list[Restored] = []
    differences: list[Difference] = []
    for mint in mints:
        memo = parse_memo(mint.memo or "")
        if memo is None:
            fault = Difference(mint.signature, "UnknownMint", "its memo names no batch")
        elif states.get(memo.batch_id, "void") in ("final", "disputed"):
            fault = Difference(
                mint.signature,
                "BatchTaken",
                f"the store's batch {memo.batch_id} is {states[memo.batch_id]}; run"
                f" `gtx-cloud batch resolve {memo.batch_id}` first",
            )
        elif not mint.created:
            fault = Difference(mint.signature, "UnknownMint", "it made no marker")
        else:
            owed = {account: units // base_units_per_wh for account, units in mint.payments.items()}
            found = _lines_of(memo, owed, free)
            claimant = _other_claimant(memo, found or (), states)
            if found is not None and claimant is None:
                restored.append(Restored(memo, mint, found))
                taken = {line.reading_id for line in found}
                free = [line for line in free if line.reading_id not in taken]
                continue
            fault = _not_restored(mint, memo, claimant, states)
        differences.append(fault)
    return RebuildPlan(tuple(restored), tuple(differences))


def _other_claimant(
    memo: BatchMemo, found: Sequence[CreditLine], states: Mapping[int, str]
) -> int | None:
    """Return another batch that claims one of the lines and is not merely sealed, if there is one.

    An attempt of it may still land, or be signed again with what it once claimed.
    """
    claimants = {line.batch_id for line in found if line.batch_id is not None} - {memo.batch_id}
    return min((one for one in claimants if states.get(one) in _UNDECIDED), default=None)


def _not_restored(
    mint: ChainMint, memo: BatchMemo, claimant: int | None, states: Mapping[int, str]
) -> Difference:
    if claimant is not None:
        return Difference(
            mint.signature,
            "BatchUndecided",
            f"batch {claimant}, which is {states[claimant]}, claims readings of batch"
            f" {memo.batch_id} too; start the minter until it is sealed again or over, or run"
            f" `gtx-cloud batch resolve {claimant}`, and then this again",
        )
    return Difference(
        mint.signature,
        "LinesMissing",
        f"the lines of batch {memo.batch_id} ({memo.leaves}) are not all in this store, or an owner"
        " had another wallet then; restore them from a backup of the readings, or set the wallet"
        " back with `gtx-cloud user wallet` for the rebuild",
    )


def _lines_of(
    memo: BatchMemo, owed_wh: Mapping[str, int], free: Sequence[CreditLine]
) -> tuple[CreditLine, ...] | None:
    """Return the lines under the memo's root, or None."""
    claimed = [line for line in free if line.batch_id == memo.batch_id]
    unclaimed = [line for line in free if line.batch_id is None]
    for pool in (claimed, unclaimed, list(free)):
        for found in (_oldest(owed_wh, pool), _everything(owed_wh, pool)):
            ordered = tuple(sorted(found, key=lambda line: line.order))
            leaves = [leaf_hash(line.line) for line in ordered]
            if len(ordered) == memo.leaves and merkle_root(leaves) == memo.root:
                return ordered
    return None


def _oldest(owed_wh: Mapping[str, int], pool: Sequence[CreditLine]) -> list[CreditLine]:
    """Return each recipient's oldest lines that come to what it was paid."""
    left = dict(owed_wh)
    found: list[CreditLine] = []
    for line in pool:
        if 0 < line.credit_wh <= left.get(line.token_account, 0):
            left[line.token_account] -= line.credit_wh
            found.append(line)
    return found


def _everything(owed_wh: Mapping[str, int], pool: Sequence[CreditLine]) -> list[CreditLine]:
    return [line for line in pool if line.token_account in owed_wh]
