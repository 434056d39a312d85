"""Store against chain, batch by batch: every token owed was minted once, and nothing else."""

import asyncio
from collections.abc import Sequence

from gridtokenx_cloud.batching import parse_memo
from gridtokenx_cloud.ports.audit import (
    AuditChain,
    AuditReport,
    AuditStore,
    AuditSums,
    ChainMint,
    Difference,
    StoredBatch,
    StoreSnapshot,
)
from gridtokenx_cloud.tokenization import Conversion

_MOST_READS = 5
_BATCHES_AND_MINTS = "batches, mints"


async def run_audit(store: AuditStore, chain: AuditChain, conversion: Conversion) -> AuditReport:
    """Compare all batches with all mints, and the sums with the supply.

    Safe beside a running minter: the store is read before and after the chain, and a batch that
    became final on chain in between is no difference.
    """
    before = await asyncio.to_thread(store.snapshot)
    mints, burned, supply = await _still(chain)
    after = await asyncio.to_thread(store.snapshot)
    found = {mint.signature: mint for mint in mints}
    differences = list(before.faults)
    for batch in before.batches:
        mint = found.get(batch.signature or "")
        differences += _compare(batch, mint, conversion)
        # What a former authority signed is refused: its markers guard nothing any more.
        if mint is None or not mint.by_former:
            differences += await _compare_marker(batch, chain)
    ours = [mint for mint in mints if mint.signature not in after.foreign]
    pending, uncalled = _uncompared(before, after, ours)
    differences += uncalled
    sums = _sums(before, mints, burned, supply, foreign=_total(mints) - _total(ours))
    differences += _compare_sums(sums, conversion, _total(pending))
    return AuditReport(tuple(differences), sums)


def beside_unknown_mints(report: AuditReport) -> list[Difference]:
    """Return what differs for another reason than mints that the store does not know."""
    return [
        one
        for one in report.differences
        if one.code != "UnknownMint"
        and not (one.code == "SupplyDiffers" and one.detail.startswith(_BATCHES_AND_MINTS))
    ]


def unknown_mint_reason(signature: str) -> str:
    """Return why nothing is minted while the chain has a mint that the store does not know."""
    return (
        f"the store does not know {signature}, a mint that our authority signed: was an old backup"
        " restored, or is the key stolen? Run `gtx-cloud audit`"
    )


async def unknown_mints(store: AuditStore, chain: AuditChain) -> list[ChainMint]:
    """Return the mints among the authority's newest transactions that the store does not know."""
    known = store.known_signatures()
    return [mint async for mint in chain.newest_mints(known)]


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


def _uncompared(
    before: StoreSnapshot, after: StoreSnapshot, mints: Sequence[ChainMint]
) -> tuple[list[ChainMint], list[Difference]]:
    """Return the mints of batches that are not final yet, and those that no batch may have.

    A batch has one mint: beside the one it is final by, or once it is void, no attempt of it may
    have landed.
    """
    stood = {batch.batch_id: batch for batch in before.batches}
    owner = {
        signature: batch.batch_id
        for batch in (*after.batches, *before.batches)
        for signature in (*batch.attempts, batch.signature)
    }
    pending: dict[int, ChainMint] = {}
    differences: list[Difference] = []
    for mint in mints:
        number = owner.get(mint.signature)
        batch = None if number is None else stood.get(number)
        if number is None:
            differences.append(_unknown(mint))
        elif batch is not None and batch.signature == mint.signature:
            continue
        elif number in pending or (batch is not None and batch.state in ("final", "void")):
            differences.append(_one_too_many(number, batch, mint))
        else:
            pending[number] = mint
    return list(pending.values()), differences


def _one_too_many(number: int, batch: StoredBatch | None, mint: ChainMint) -> Difference:
    state = "live" if batch is None else batch.state
    return Difference(
        f"batch {number}",
        "MintedTwice",
        f"it is {state}, and {mint.signature} minted {_total([mint])} base units for it beside",
    )


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


def _sums(
    store: StoreSnapshot, mints: Sequence[ChainMint], burned: int, supply: int, *, foreign: int
) -> AuditSums:
    final = [batch for batch in store.batches if batch.state == "final"]
    return AuditSums(
        minted_readings_wh=store.minted_wh,
        final_batches_wh=sum(batch.total_wh for batch in final),
        final_batches_base_units=sum(batch.total_base_units for batch in final),
        foreign_base_units=foreign,
        chain_minted_base_units=_total(mints),
        burned_base_units=burned,
        supply_base_units=supply,
        batches=len(store.batches),
        transactions=len(mints),
    )


def _compare_sums(sums: AuditSums, conversion: Conversion, pending: int) -> list[Difference]:
    owed = conversion.wh_to_base_units(sums.minted_readings_wh)
    on_chain = sums.chain_minted_base_units
    accounted = sums.final_batches_base_units + sums.foreign_base_units + pending
    supply_and_burns = sums.supply_base_units + sums.burned_base_units
    pairs = (
        (
            "WhDiffer",
            "minted readings, final batches",
            sums.minted_readings_wh,
            sums.final_batches_wh,
        ),
        ("AmountDiffers", "minted readings, final batches", owed, sums.final_batches_base_units),
        ("SupplyDiffers", _BATCHES_AND_MINTS, accounted, on_chain),
        ("SupplyDiffers", "mints, supply and burns", on_chain, supply_and_burns),
    )
    return [
        Difference("sums", code, f"{what}: {ours} and {theirs}")
        for code, what, ours, theirs in pairs
        if ours != theirs
    ]
