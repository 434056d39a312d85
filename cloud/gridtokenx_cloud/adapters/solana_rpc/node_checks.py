"""Checks of each RPC node: health, place, clock, and how far back it remembers."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from gridtokenx_cloud.adapters.solana_rpc.checks import Check, judged
from gridtokenx_cloud.adapters.solana_rpc.rpc import JsonRpc, RpcRefusedError
from gridtokenx_cloud.adapters.solana_rpc.transactions import Token
from gridtokenx_cloud.errors import RpcUnavailableError
from gridtokenx_cloud.ports.upkeep import Books

_FINALIZED = {"commitment": "finalized"}
_MOST_SLOTS_APART = 150
_USUAL_LAG_SLOTS = 32
_MOST_SECONDS_APART = 120


@dataclass(frozen=True, slots=True)
class _Node:
    """What one node says of itself; `health` None = healthy."""

    genesis: str
    version: str
    processed_slot: int
    finalized_slot: int
    block_unix_s: int | None
    health: str | None


async def node_checks(
    nodes: Sequence[JsonRpc], genesis_hash: str | None, now_ms: int
) -> list[Check]:
    """Return what was found about the nodes."""
    answers = await asyncio.gather(*(_node(node) for node in nodes))
    heard = [answer for answer in answers if answer is not None]
    silent = [str(n) for n, answer in enumerate(answers, 1) if answer is None]
    ill = [f"{n}: {one.health}" for n, one in enumerate(answers, 1) if one and one.health]
    versions = ", ".join(sorted({one.version for one in heard}))
    return [
        judged(
            "endpoints",
            not silent,
            f"{len(heard)} of {len(nodes)} answer; version {versions or '-'}",
            f"take number {', '.join(silent)} out of GTX_CLOUD_SOLANA_RPC_URLS, or cure it",
        ),
        judged(
            "health",
            not ill,
            "; ".join(ill) or "healthy",
            "wait until the node has caught up, or use another provider",
        ),
        _genesis(heard, genesis_hash),
        *_places(heard),
        _clock(heard, now_ms),
    ]


def _genesis(heard: Sequence[_Node], configured: str | None) -> Check:
    hashes = sorted({one.genesis for one in heard})
    agree = hashes == [configured] if configured else len(hashes) == 1
    return judged(
        "genesis hash",
        agree,
        f"on chain {', '.join(hashes) or '-'}; configured {configured or '-'}",
        "these endpoints are of another cluster than BLOCKCHAIN_GENESIS_HASH; correct one of both",
    )


def _places(heard: Sequence[_Node]) -> list[Check]:
    slots = [one.finalized_slot for one in heard] or [0]
    apart = max(slots) - min(slots)
    lag = max((one.processed_slot - one.finalized_slot for one in heard), default=0)
    return [
        judged(
            "endpoints agree",
            apart <= _MOST_SLOTS_APART,
            f"{apart} finalized slots apart",
            "the node that is behind delays every decision; leave it out until it has caught up",
        ),
        judged(
            "finality",
            lag <= _MOST_SLOTS_APART,
            f"{lag} slots from processed to finalized (about {_USUAL_LAG_SLOTS} is usual)",
            "the cluster does not finalize; wait, nothing is lost meanwhile",
        ),
    ]


def _clock(heard: Sequence[_Node], now_ms: int) -> Check:
    times = [one.block_unix_s for one in heard if one.block_unix_s is not None]
    if not times:
        return Check("clock", None, "no node tells the time of its newest finalized block")
    behind_s = now_ms // 1000 - max(times)
    return judged(
        "clock",
        abs(behind_s) <= _MOST_SECONDS_APART,
        f"this machine is {behind_s} s past the newest finalized block",
        "set the clock (chronyc tracking); else the cluster has stopped",
    )


async def _node(node: JsonRpc) -> _Node | None:
    try:
        genesis = str(await node.call("getGenesisHash"))
        version = str((await node.call("getVersion"))["solana-core"])
        # Finalized first: the distance is then never smaller than it was.
        finalized = int(await node.call("getSlot", _FINALIZED))
        processed = int(await node.call("getSlot", {"commitment": "processed"}))
        unix_s = await _block_time(node, finalized)
        return _Node(genesis, version, processed, finalized, unix_s, await _health(node))
    except RpcUnavailableError:
        return None


async def _health(node: JsonRpc) -> str | None:
    try:
        await node.call("getHealth")
    except (RpcUnavailableError, RpcRefusedError) as exc:
        return str(exc)
    return None


async def _block_time(node: JsonRpc, slot: int) -> int | None:
    try:
        found = await node.call("getBlockTime", slot)
    except (RpcUnavailableError, RpcRefusedError):
        return None
    return None if found is None else int(found)


async def history_checks(nodes: Sequence[JsonRpc], token: Token, books: Books | None) -> Check:
    """Return whether every node can show the first mint, which audit and rebuild walk back to."""
    oldest = books.oldest_signature if books else None
    shown = await asyncio.gather(*(_remembers(node, token, oldest) for node in nodes))
    forgetful = [str(n) for n, (remembers, _) in enumerate(shown, 1) if not remembers]
    from_slot = ", ".join(str(slot) for _, slot in shown)
    what = f"the first mint {oldest}" if oldest else "the newest transaction of the mint"
    return judged(
        "history",
        not forgetful,
        f"{len(nodes) - len(forgetful)} of {len(nodes)} show {what}; kept from slot {from_slot}",
        f"number {', '.join(forgetful)} forgets; audits need an endpoint with the whole history",
    )


async def _remembers(node: JsonRpc, token: Token, oldest: str | None) -> tuple[bool, int | str]:
    try:
        first = await _first_block(node)
        options = {**_FINALIZED, "limit": 1}
        listed = await node.call("getSignaturesForAddress", str(token.mint), options)
        if not listed:
            return False, first
        options = {**_FINALIZED, "encoding": "base64", "maxSupportedTransactionVersion": 1}
        found = await node.call("getTransaction", oldest or listed[0]["signature"], options)
    except (RpcUnavailableError, RpcRefusedError):
        return False, "?"
    return found is not None, first


async def _first_block(node: JsonRpc) -> int | str:
    try:
        return int(await node.call("getFirstAvailableBlock"))
    except RpcRefusedError:
        return "?"
