"""Refuses to work on another token than the configured; fills a payer on a test cluster."""

import asyncio
from collections.abc import Awaitable, Callable

from solders.pubkey import Pubkey

from gridtokenx_cloud.adapters.solana_rpc.mint_account import (
    MintAccount,
    read_mint,
    token_account_bytes,
)
from gridtokenx_cloud.adapters.solana_rpc.rpc import JsonRpc
from gridtokenx_cloud.adapters.solana_rpc.transactions import Token
from gridtokenx_cloud.errors import ChainMismatchError, RpcUnavailableError

_FINALIZED = {"commitment": "finalized"}
_CONFIRMED = {"commitment": "confirmed"}
_POLL_S = 0.5

Sleep = Callable[[float], Awaitable[None]]


async def check_chain(rpc: JsonRpc, token: Token, genesis_hash: str | None) -> str:
    """Return the cluster's genesis hash when everything is as configured.

    Raises:
        ChainMismatchError: Names the first thing that differs, with both values.
    """
    genesis = str(await rpc.call("getGenesisHash"))
    if genesis_hash is not None:
        _must_be("genesis hash", genesis_hash, genesis)
    mint = await _mint(rpc, token.mint)
    _must_be("token program of the mint", str(token.program), str(mint.program))
    _must_be("decimals of the mint", str(token.decimals), str(mint.decimals))
    _must_be("mint authority", str(token.authority), str(mint.authority))
    if refusals := mint.refusals():
        raise ChainMismatchError(
            f"the mint {token.mint} can't carry energy: {'; '.join(refusals)}; make another with"
            " `gtx-cloud mint-account create`"
        )
    return genesis


async def read_token(rpc: JsonRpc, mint_address: Pubkey) -> Token:
    """Return a token as the chain has it; nobody in it can pay.

    Raises:
        ChainMismatchError: There is no such mint, or nobody may mint.
    """
    mint = await _mint(rpc, mint_address)
    if mint.authority is None:
        raise ChainMismatchError(f"the authority of mint {mint_address} was given up")
    return Token(mint_address, mint.program, mint.decimals, mint.authority, Pubkey.default())


async def _mint(rpc: JsonRpc, address: Pubkey) -> MintAccount:
    options = {**_FINALIZED, "encoding": "base64"}
    account = (await rpc.call("getAccountInfo", str(address), options))["value"]
    if account is None:
        raise ChainMismatchError(
            f"the mint {address} does not exist on this cluster; check BLOCKCHAIN_MINT_ADDRESS and"
            " the RPC URLs, or run `gtx-cloud mint-account create`"
        )
    return read_mint(address, account)


def _must_be(what: str, configured: str, on_chain: str) -> None:
    if configured != on_chain:
        raise ChainMismatchError(f"{what}: configured {configured}, on chain {on_chain}")


async def airdrop(
    rpc: JsonRpc, address: Pubkey, lamports: int, sleep: Sleep = asyncio.sleep
) -> None:
    """Ask a test cluster for SOL and wait until it is there.

    Raises:
        RpcUnavailableError: Nothing came within a minute.
    """
    before = await _balance(rpc, address)
    await rpc.call("requestAirdrop", str(address), lamports)
    for _ in range(120):
        if await _balance(rpc, address) > before:
            return
        await sleep(_POLL_S)
    raise RpcUnavailableError(f"the airdrop to {address} has not come; is this a test cluster?")


async def _balance(rpc: JsonRpc, address: Pubkey) -> int:
    return int((await rpc.call("getBalance", str(address), _CONFIRMED))["value"])


async def rents_lamports(rpc: JsonRpc, program: Pubkey) -> tuple[int, int]:
    """Return the rent of a marker and of a token account, as this cluster takes it today."""
    marker = await rpc.call("getMinimumBalanceForRentExemption", 0)
    account = await rpc.call("getMinimumBalanceForRentExemption", token_account_bytes(program))
    return int(marker), int(account)
