"""Store against chain, batch by batch: every token owed was minted once, and nothing else."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from gridtokenx_cloud.batching import parse_memo
from gridtokenx_cloud.tokenization import Conversion

_MOST_READS = 5


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
class StoreSnapshot:
    """All batches, the oldest first, and the credits of all minted readings, of one moment.

    Attributes:
        stranded: Readings that are not minted, in a batch that is over.
    """

    batches: tuple[StoredBatch, ...]
    minted_wh: int
    stranded: tuple[int, ...] = ()


class AuditStore(Protocol):
    """What the audit reads from the store."""

    def snapshot(self) -> StoreSnapshot:
        """Return everything minted and to be minted."""
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
class Difference:
    """One thing the two sides do not agree on."""

    subject: str
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class AuditSums:
    """The same energy, counted in five places."""

    minted_readings_wh: int
    final_batches_wh: int
    final_batches_base_units: int
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


async def run_audit(store: AuditStore, chain: AuditChain, conversion: Conversion) -> AuditReport:
    """Compare all batches with all mints, and the sums with the supply.

    Safe beside a running minter: the store is read before and after the chain, and a batch that
    became final on chain in between is no difference.
    """
    before = store.snapshot()
    mints, burned, supply = await _still(chain)
    known = {name for batch in store.snapshot().batches for name in batch.attempts}
    known |= {batch.signature for batch in before.batches if batch.signature}
    found = {mint.signature: mint for mint in mints}
    differences: list[Difference] = []
    for batch in before.batches:
        mint = found.get(batch.signature or "")
        differences += _compare(batch, mint, conversion)
        # What a former authority signed is refused: its markers guard nothing any more.
        if mint is None or not mint.by_former:
            differences += await _compare_marker(batch, chain)
    differences += [_unknown(mint) for mint in mints if mint.signature not in known]
    differences += [
        Difference(f"reading {number}", "ReadingStranded", "not minted, in a batch that is over")
        for number in before.stranded
    ]
    final = {batch.signature for batch in before.batches if batch.state == "final"}
    pending = [mint for mint in mints if mint.signature in known - final]
    sums = _sums(before, mints, burned, supply)
    differences += _compare_sums(sums, conversion, _total(pending))
    return AuditReport(tuple(differences), sums)


async def unknown_mints(store: AuditStore, chain: AuditChain) -> list[ChainMint]:
    """Return the mints among the authority's newest transactions that the store does not know."""
    known = {name for batch in store.snapshot().batches for name in batch.attempts}
    known |= {batch.signature for batch in store.snapshot().batches if batch.signature}
    return [mint async for mint in chain.newest_mints(frozenset(known))]


async def _still(chain: AuditChain) -> tuple[list[ChainMint], int, int]:
    """Return all mints, all burns and the supply of a moment in which nothing moved."""
    supply = await chain.supply()
    for _ in range(_MOST_READS):
        mints, burned = await _moved(chain)
        now = await chain.supply()
        if now == supply:
            return mints, burned, supply
        supply = now
    return *(await _moved(chain)), supply


async def _moved(chain: AuditChain) -> tuple[list[ChainMint], int]:
    mints = [mint async for mint in chain.mints()]
    return mints, await chain.burned(frozenset(mint.signature for mint in mints))


def _compare(
    batch: StoredBatch, mint: ChainMint | None, conversion: Conversion
) -> list[Difference]:
    subject = f"batch {batch.batch_id}"
    if batch.state == "disputed":
        return [Difference(subject, "BatchDisputed", "waits for an operator's decision")]
    if batch.state != "final":
        return []
    if mint is None:
        return [Difference(subject, "MintMissing", f"no finalized mint {batch.signature}")]
    pairs = (
        ("PaymentsDiffer", dict(batch.payments), dict(mint.payments)),
        ("MemoDiffers", batch.memo, mint.memo),
        ("MarkerDiffers", (batch.marker,), mint.created),
        ("ReadingsDiffer", batch.total_wh, batch.minted_wh),
        (
            "AmountDiffers",
            conversion.wh_to_base_units(batch.total_wh),
            batch.total_base_units,
        ),
        ("AmountDiffers", batch.total_base_units, sum(mint.payments.values())),
    )
    return [
        Difference(subject, code, f"store {ours!r}, chain {theirs!r}")
        for code, ours, theirs in pairs
        if ours != theirs
    ]


async def _compare_marker(batch: StoredBatch, chain: AuditChain) -> list[Difference]:
    wanted = batch.state == "final" and not batch.marker_reclaimed
    if not wanted or await chain.exists(batch.marker):
        return []
    return [Difference(f"batch {batch.batch_id}", "MarkerMissing", f"no account {batch.marker}")]


def _unknown(mint: ChainMint) -> Difference:
    """Return the alarm for a mint no batch explains: a stolen key, or a store that is too old."""
    return Difference(
        mint.signature,
        "UnknownMint",
        f"{_total([mint])} base units, {_claims(mint)}; the mint authority's key signed it and"
        " the store does not know it",
    )


def _claims(mint: ChainMint) -> str:
    memo = parse_memo(mint.memo or "")
    return f"memo of batch {memo.batch_id}" if memo else "no memo of ours"


def _total(mints: Sequence[ChainMint]) -> int:
    return sum(sum(mint.payments.values()) for mint in mints)


def _sums(store: StoreSnapshot, mints: Sequence[ChainMint], burned: int, supply: int) -> AuditSums:
    final = [batch for batch in store.batches if batch.state == "final"]
    return AuditSums(
        minted_readings_wh=store.minted_wh,
        final_batches_wh=sum(batch.total_wh for batch in final),
        final_batches_base_units=sum(batch.total_base_units for batch in final),
        chain_minted_base_units=_total(mints),
        burned_base_units=burned,
        supply_base_units=supply,
        batches=len(store.batches),
        transactions=len(mints),
    )


def _compare_sums(sums: AuditSums, conversion: Conversion, pending: int) -> list[Difference]:
    owed = conversion.wh_to_base_units(sums.minted_readings_wh)
    on_chain = sums.chain_minted_base_units
    supply_and_burns = sums.supply_base_units + sums.burned_base_units
    pairs = (
        (
            "WhDiffer",
            "minted readings, final batches",
            sums.minted_readings_wh,
            sums.final_batches_wh,
        ),
        ("AmountDiffers", "minted readings, final batches", owed, sums.final_batches_base_units),
        ("SupplyDiffers", "batches, mints", sums.final_batches_base_units + pending, on_chain),
        ("SupplyDiffers", "mints, supply and burns", on_chain, supply_and_burns),
    )
    return [
        Difference("sums", code, f"{what}: {ours} and {theirs}")
        for code, what, ours, theirs in pairs
        if ours != theirs
    ]
