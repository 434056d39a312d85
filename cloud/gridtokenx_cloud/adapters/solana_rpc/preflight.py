"""Reads everything minting relies on from the cluster, and says of each whether it will do."""

import asyncio
import base64
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

from solders.pubkey import Pubkey
from solders.token.state import Mint

from gridtokenx_cloud.adapters.solana_rpc.probe import best_format
from gridtokenx_cloud.adapters.solana_rpc.rpc import FailoverRpc, JsonRpc
from gridtokenx_cloud.adapters.solana_rpc.transactions import (
    ASSOCIATED,
    MEMO,
    TOKEN_PROGRAMS,
    Token,
)
from gridtokenx_cloud.batching import estimate_fee, unit_price_micro_lamports
from gridtokenx_cloud.errors import CloudError, RpcUnavailableError
from gridtokenx_cloud.formats import TransactionFormat, max_recipients

_FINALIZED = {"commitment": "finalized"}
_MINT_BYTES, _TOKEN_ACCOUNT_BYTES = 82, 165
_MOST_SLOTS_APART = 150
_USUAL_UNITS = 15_000
_U64_MAX = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; `ok` None = worth knowing, no obstacle."""

    name: str
    ok: bool | None
    detail: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the configuration says."""

    token: Token
    genesis_hash: str | None
    format: str
    low_transactions: int
    price_bounds_micro_lamports: tuple[int, int]


async def preflight(rpc: FailoverRpc, wanted: Wanted) -> list[Check]:
    """Return every check; one that can't be made is not passed."""
    signatures = 1 if wanted.token.authority == wanted.token.payer else 2
    parts: list[Awaitable[list[Check]]] = [
        _nodes(rpc.endpoints, wanted.genesis_hash),
        _mint(rpc, wanted.token),
        _format(rpc, wanted, signatures),
        _payer(rpc, wanted, signatures),
        _programs(rpc, wanted.token),
    ]
    names = ("nodes", "mint", "format", "payer", "programs")
    return [
        check
        for name, part in zip(names, parts, strict=True)
        for check in await _guarded(name, part)
    ]


async def _guarded(name: str, part: Awaitable[list[Check]]) -> list[Check]:
    try:
        return await part
    except CloudError as exc:
        return [Check(name, ok=False, detail=str(exc))]


async def _nodes(nodes: Sequence[JsonRpc], genesis_hash: str | None) -> list[Check]:
    answers = await asyncio.gather(*(_node(node) for node in nodes))
    heard = [answer for answer in answers if answer is not None]
    hashes = sorted({genesis for genesis, _ in heard})
    slots = [slot for _, slot in heard]
    agree = hashes == [genesis_hash] if genesis_hash else len(hashes) == 1
    apart = max(slots, default=0) - min(slots, default=0)
    return [
        Check("endpoints", len(heard) == len(nodes), f"{len(heard)} of {len(nodes)} answer"),
        Check(
            "genesis hash", agree, f"on chain {', '.join(hashes)}; configured {genesis_hash or '-'}"
        ),
        Check("endpoints agree", apart <= _MOST_SLOTS_APART, f"{apart} finalized slots apart"),
    ]


async def _node(node: JsonRpc) -> tuple[str, int] | None:
    try:
        genesis = await node.call("getGenesisHash")
        return str(genesis), int(await node.call("getSlot", _FINALIZED))
    except RpcUnavailableError:
        return None


async def _account(rpc: JsonRpc, address: Pubkey) -> dict[str, Any] | None:
    options = {**_FINALIZED, "encoding": "base64"}
    found: dict[str, Any] | None = (await rpc.call("getAccountInfo", str(address), options))[
        "value"
    ]
    return found


async def _mint(rpc: FailoverRpc, token: Token) -> list[Check]:
    account = await _account(rpc, token.mint)
    if account is None:
        text = f"{token.mint} does not exist; run `gtx-cloud mint-account create`"
        return [Check("mint", ok=False, detail=text)]
    names = {str(program): name for name, program in TOKEN_PROGRAMS.items()}
    program = account["owner"]
    if program not in names:
        text = f"{token.mint} belongs to {program}, no token program"
        return [Check("mint", ok=False, detail=text)]
    mint = Mint.from_bytes(base64.b64decode(account["data"][0])[:_MINT_BYTES])
    room = (_U64_MAX - mint.supply) // 10**mint.decimals
    frozen = (
        "nobody can freeze accounts"
        if mint.freeze_authority is None
        else (f"{mint.freeze_authority} can freeze accounts")
    )
    return [
        Check("mint", ok=True, detail=str(token.mint)),
        Check("token program", program == str(token.program), names[program]),
        Check(
            "decimals",
            mint.decimals == token.decimals,
            f"on chain {mint.decimals}, configured {token.decimals}",
        ),
        Check(
            "mint authority",
            mint.mint_authority == token.authority,
            f"on chain {mint.mint_authority}, configured {token.authority}",
        ),
        Check("freeze authority", None, frozen),
        Check("room in the supply", room > 0, f"{mint.supply} base units; {room} tokens more fit"),
    ]


async def _format(rpc: FailoverRpc, wanted: Wanted, signatures: int) -> list[Check]:
    best = await best_format(rpc, wanted.token.payer)
    chosen = best if wanted.format == "auto" else TransactionFormat(wanted.format)
    order = list(TransactionFormat)
    return [
        Check(
            "transaction format",
            order.index(chosen) <= order.index(best),
            f"configured {wanted.format}, every node takes {best.value}; {chosen.value} carries"
            f" {max_recipients(chosen, signatures)} recipients",
        )
    ]


async def _payer(rpc: FailoverRpc, wanted: Wanted, signatures: int) -> list[Check]:
    token = wanted.token
    written = [str(token.mint), str(token.payer)]
    recent = await rpc.call("getRecentPrioritizationFees", written)
    fees = [entry["prioritizationFee"] for entry in recent]
    price = unit_price_micro_lamports(fees, *wanted.price_bounds_micro_lamports)
    rent = int(await rpc.call("getMinimumBalanceForRentExemption", 0))
    account_rent = await rpc.call("getMinimumBalanceForRentExemption", _TOKEN_ACCOUNT_BYTES)
    fee = estimate_fee(signatures, price, _USUAL_UNITS)
    balance = int((await rpc.call("getBalance", str(token.payer), _FINALIZED))["value"])
    left = balance // (fee + rent)
    return [
        Check(
            "fee payer",
            left >= wanted.low_transactions,
            f"{token.payer} has {balance} lamports, enough for {left} mints; send more SOL below"
            f" {wanted.low_transactions}",
        ),
        Check("fee of a mint", None, f"{fee} lamports at {price} micro-lamports a unit"),
        Check("rent", None, f"marker {rent}, token account {account_rent} lamports"),
        Check(
            "keys",
            None,
            "mint authority and fee payer are two keys"
            if signatures == 2
            else "one key mints and pays: half the fees, and it holds SOL",
        ),
    ]


async def _programs(rpc: FailoverRpc, token: Token) -> list[Check]:
    found = [await _account(rpc, key) for key in (token.program, ASSOCIATED, MEMO)]
    there = all(account is not None and account["executable"] for account in found)
    return [Check("programs", there, "token, associated token account and memo")]
