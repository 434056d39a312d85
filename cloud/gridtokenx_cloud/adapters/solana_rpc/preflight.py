"""Reads everything minting relies on from the cluster, and says of each whether it will do."""

import base64
from collections.abc import Awaitable, Sequence
from typing import Any

from solders.hash import Hash
from solders.instruction import Instruction
from solders.message import to_bytes_versioned
from solders.pubkey import Pubkey

from gridtokenx_cloud.adapters.solana_rpc.checks import Check, Wanted, judged
from gridtokenx_cloud.adapters.solana_rpc.lookup import LOOKUP
from gridtokenx_cloud.adapters.solana_rpc.mint_account import (
    MintAccount,
    read_mint,
    token_account_bytes,
)
from gridtokenx_cloud.adapters.solana_rpc.node_checks import history_checks, node_checks
from gridtokenx_cloud.adapters.solana_rpc.probe import best_format
from gridtokenx_cloud.adapters.solana_rpc.rpc import FailoverRpc
from gridtokenx_cloud.adapters.solana_rpc.transactions import (
    ASSOCIATED,
    MEMO,
    TOKEN_PROGRAMS,
    Budget,
    Token,
    compile_message,
)
from gridtokenx_cloud.batching import estimate_fee, unit_price_micro_lamports
from gridtokenx_cloud.errors import ChainMismatchError, CloudError
from gridtokenx_cloud.formats import TransactionFormat, max_recipients
from gridtokenx_cloud.ports.upkeep import Books

_FINALIZED = {"commitment": "finalized"}
_USUAL_UNITS = 15_000
_U64_MAX = 2**64 - 1


async def preflight(rpc: FailoverRpc, wanted: Wanted) -> list[Check]:
    """Return every check; one that can't be made is not passed."""
    signatures = 1 if wanted.token.authority == wanted.token.payer else 2
    parts: dict[str, Awaitable[Sequence[Check]]] = {
        "nodes": node_checks(rpc.endpoints, wanted.genesis_hash, wanted.now_ms()),
        "mint": _mint(rpc, wanted),
        "history": _history(rpc, wanted),
        "format": _format(rpc, wanted, signatures),
        "payer": _payer(rpc, wanted, signatures),
        "programs": _programs(rpc, wanted.token),
    }
    return [check for name, part in parts.items() for check in await _guarded(name, part)]


async def _guarded(name: str, part: Awaitable[Sequence[Check]]) -> Sequence[Check]:
    try:
        return await part
    except CloudError as exc:
        return [Check(name, ok=False, detail=str(exc), way_out="cure that and check again")]


async def _account(rpc: FailoverRpc, address: Pubkey) -> dict[str, Any] | None:
    options = {**_FINALIZED, "encoding": "base64"}
    reply = await rpc.call("getAccountInfo", str(address), options)
    found: dict[str, Any] | None = reply["value"]
    return found


async def _mint(rpc: FailoverRpc, wanted: Wanted) -> Sequence[Check]:
    token = wanted.token
    try:
        mint = read_mint(token.mint, await _account(rpc, token.mint))
    except ChainMismatchError as exc:
        way_out = "correct BLOCKCHAIN_MINT_ADDRESS, or run `gtx-cloud mint-account create`"
        return [Check("mint", ok=False, detail=str(exc), way_out=way_out)]
    said = mint.metadata
    named = f", {said.name} ({said.symbol}), {said.uri or 'no URI'}" if said else ", no metadata"
    refusals = mint.refusals()
    return [
        Check("mint", ok=True, detail=f"{token.mint}{named}"),
        *_equal(mint, token),
        judged(
            "extensions",
            not refusals,
            "; ".join(refusals) or "none that could bend a balance",
            "make another token with `gtx-cloud mint-account create`; this one can't be cured",
        ),
        _freezer(mint, token),
        _room(mint),
        # The chain was read first, so the store knows of every mint that it shows.
        _supply(mint.supply, wanted.books()),
    ]


def _equal(mint: MintAccount, token: Token) -> list[Check]:
    names = {program: name for name, program in TOKEN_PROGRAMS.items()}
    compared = (
        ("token program", names[mint.program], names[token.program], "BLOCKCHAIN_TOKEN_PROGRAM"),
        ("decimals", mint.decimals, token.decimals, "TOKENIZATION_DECIMALS"),
        (
            "mint authority",
            mint.authority,
            token.authority,
            "BLOCKCHAIN_MINT_AUTHORITY_KEY, or finish the rotation of the authority",
        ),
    )
    return [
        judged(name, found == configured, f"on chain {found}, configured {configured}", f"set {to}")
        for name, found, configured, to in compared
    ]


def _freezer(mint: MintAccount, token: Token) -> Check:
    freezer = mint.freeze_authority
    if freezer is None:
        return Check("freeze authority", None, "nobody can freeze accounts")
    return judged(
        "freeze authority",
        freezer not in (token.authority, token.payer),
        f"{freezer} can freeze accounts",
        "a key that signs every few minutes must not be able to; give it to a cold key",
    )


def _room(mint: MintAccount) -> Check:
    room = (_U64_MAX - mint.supply) // 10**mint.decimals
    return judged(
        "room in the supply",
        room > 0,
        f"{mint.supply} base units; {room} tokens more fit",
        "the token is full; begin another one",
    )


def _supply(supply: int, books: Books | None) -> Check:
    if books is None:
        return Check("supply", None, f"{supply} base units on chain; no store to compare with")
    known = books.minted_base_units + books.open_base_units + books.foreign_base_units
    burned = max(0, books.minted_base_units - supply)
    return judged(
        "supply",
        supply <= known,
        f"{supply} base units on chain; the store minted {books.minted_base_units}, and"
        f" {books.open_base_units} are on their way; {burned} burned or missing, which"
        " `gtx-cloud audit` tells apart",
        "somebody minted what the store does not know: run `gtx-cloud audit` before anything else",
    )


async def _history(rpc: FailoverRpc, wanted: Wanted) -> Sequence[Check]:
    books = wanted.books()
    return [await history_checks(rpc.endpoints, wanted.token, books), *await _tables(rpc, books)]


async def _tables(rpc: FailoverRpc, books: Books | None) -> list[Check]:
    if books is None or not books.tables:
        return [Check("lookup tables", None, "none in use")]
    found = [await _account(rpc, Pubkey.from_string(table)) for table in books.tables]
    there = sum(one is not None and one["owner"] == str(LOOKUP) for one in found)
    detail = f"{there} of {len(found)} in use exist; the minter makes another for one that is gone"
    return [Check("lookup tables", None, detail)]


async def _format(rpc: FailoverRpc, wanted: Wanted, signatures: int) -> Sequence[Check]:
    best = await best_format(rpc, wanted.token.payer)
    chosen = best if wanted.format == "auto" else TransactionFormat(wanted.format)
    order = list(TransactionFormat)
    return [
        judged(
            "transaction format",
            order.index(chosen) <= order.index(best),
            f"configured {wanted.format}, every node takes {best.value}; {chosen.value} carries"
            f" {max_recipients(chosen, signatures)} recipients",
            "set BLOCKCHAIN_TRANSACTION_FORMAT=auto",
        )
    ]


async def _payer(rpc: FailoverRpc, wanted: Wanted, signatures: int) -> Sequence[Check]:
    token = wanted.token
    written = [str(token.mint), str(token.payer)]
    recent = await rpc.call("getRecentPrioritizationFees", written)
    fees = [entry["prioritizationFee"] for entry in recent]
    price = unit_price_micro_lamports(fees, *wanted.price_bounds_micro_lamports)
    rent = int(await rpc.call("getMinimumBalanceForRentExemption", 0))
    size = token_account_bytes(token.program)
    account_rent = int(await rpc.call("getMinimumBalanceForRentExemption", size))
    fee = estimate_fee(signatures, price, _USUAL_UNITS)
    balance = int((await rpc.call("getBalance", str(token.payer), _FINALIZED))["value"])
    left = balance // (fee + rent)
    return [
        judged(
            "fee payer",
            left >= wanted.low_transactions,
            f"{token.payer} has {balance} lamports, enough for {left} mints and"
            f" {_days(balance, rent, wanted.books())}",
            f"send SOL to {token.payer}; below {wanted.low_transactions} mints it is reported",
        ),
        await _fee(rpc, token.payer, price),
        Check("fee of a mint", None, f"{fee} lamports at {price} micro-lamports a unit"),
        Check("rent", None, f"marker {rent}, token account {account_rent} lamports"),
        Check(
            "roles",
            None,
            "mint authority and fee payer are two keys"
            if signatures == 2
            else "one key mints and pays: half the fees, and it holds SOL",
        ),
    ]


def _days(balance: int, rent_lamports: int, books: Books | None) -> str:
    if books is None or not books.day_transactions:
        return "an unknown number of days (no mint in the last 24 hours)"
    a_day = books.day_lamports + books.day_transactions * rent_lamports
    return f"{balance // a_day} days at {books.day_transactions} mints a day"


async def _fee(rpc: FailoverRpc, payer: Pubkey, price_micro_lamports: int) -> Check:
    """Compare the fee we reckon with what the cluster says it takes for a message."""
    value = (await rpc.call("getLatestBlockhash", _FINALIZED))["value"]
    blockhash = Hash.from_string(value["blockhash"])
    budget = Budget(_USUAL_UNITS, price_micro_lamports)
    memo = Instruction(MEMO, b"fee", [])
    message = compile_message([memo], payer, blockhash, TransactionFormat.LEGACY, budget)
    text = base64.b64encode(to_bytes_versioned(message)).decode()
    taken = (await rpc.call("getFeeForMessage", text, _FINALIZED))["value"]
    reckoned = estimate_fee(1, price_micro_lamports, _USUAL_UNITS)
    return judged(
        "fee of a signature",
        taken == reckoned,
        f"the cluster takes {taken} lamports where {reckoned} were reckoned",
        "estimates are off by that; what was really paid is recorded in any case",
    )


async def _programs(rpc: FailoverRpc, token: Token) -> Sequence[Check]:
    found = [await _account(rpc, key) for key in (token.program, ASSOCIATED, MEMO)]
    there = all(account is not None and account["executable"] for account in found)
    return [
        judged(
            "programs",
            there,
            "token, associated token account and memo",
            "this cluster lacks one of them; no token can be minted there",
        )
    ]
