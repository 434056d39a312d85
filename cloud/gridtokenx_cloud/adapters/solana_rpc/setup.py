"""Makes a token, and refuses to work on another one than the configured."""

import asyncio
import base64
from collections.abc import Awaitable, Callable

from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.system_program import CreateAccountParams, create_account
from solders.token.state import Mint

from gridtokenx_cloud.adapters.solana_rpc.rpc import JsonRpc
from gridtokenx_cloud.adapters.solana_rpc.transactions import Token, signed
from gridtokenx_cloud.errors import ChainMismatchError, RpcUnavailableError
from gridtokenx_cloud.formats import TransactionFormat
from gridtokenx_cloud.ports.keys import KeySigner

_MINT_BYTES = 82
_INITIALIZE_MINT_2 = 20
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
    options = {**_FINALIZED, "encoding": "base64"}
    account = (await rpc.call("getAccountInfo", str(token.mint), options))["value"]
    if account is None:
        raise ChainMismatchError(
            f"the mint {token.mint} does not exist on the cluster with genesis hash {genesis};"
            " check BLOCKCHAIN_MINT_ADDRESS and the RPC URLs, or run"
            " `gtx-cloud mint-account create`"
        )
    _must_be("token program of the mint", str(token.program), account["owner"])
    mint = Mint.from_bytes(base64.b64decode(account["data"][0])[:_MINT_BYTES])
    _must_be("decimals of the mint", str(token.decimals), str(mint.decimals))
    _must_be("mint authority", str(token.authority), str(mint.mint_authority))
    return genesis


async def read_token(rpc: JsonRpc, mint_address: Pubkey) -> Token:
    """Return a token as the chain has it; nobody in it can pay.

    Raises:
        ChainMismatchError: There is no such mint, or nobody may mint.
    """
    options = {**_FINALIZED, "encoding": "base64"}
    account = (await rpc.call("getAccountInfo", str(mint_address), options))["value"]
    if account is None:
        raise ChainMismatchError(f"the mint {mint_address} does not exist on this cluster")
    mint = Mint.from_bytes(base64.b64decode(account["data"][0])[:_MINT_BYTES])
    if mint.mint_authority is None:
        raise ChainMismatchError(f"the authority of mint {mint_address} was given up")
    program = Pubkey.from_string(account["owner"])
    return Token(mint_address, program, mint.decimals, mint.mint_authority, Pubkey.default())


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


async def create_mint(
    rpc: JsonRpc,
    payer: KeySigner,
    authority: Pubkey,
    program: Pubkey,
    decimals: int,
    sleep: Sleep = asyncio.sleep,
) -> Pubkey:
    """Make a mint without freeze authority and return its address once it is finalized.

    Raises:
        RpcUnavailableError: The transaction has expired; run it again.
        SignerUnavailableError: The service that holds the payer's key did not answer.
    """
    mint = Keypair()
    paying = Pubkey.from_string(payer.address)
    rent = await rpc.call("getMinimumBalanceForRentExemption", _MINT_BYTES)
    value = (await rpc.call("getLatestBlockhash", _FINALIZED))["value"]
    create = create_account(
        CreateAccountParams(
            from_pubkey=paying,
            to_pubkey=mint.pubkey(),
            lamports=rent,
            space=_MINT_BYTES,
            owner=program,
        )
    )
    data = bytes([_INITIALIZE_MINT_2, decimals]) + bytes(authority) + b"\x00"
    mint_meta = AccountMeta(mint.pubkey(), is_signer=False, is_writable=True)
    initialize = Instruction(program, data, [mint_meta])
    blockhash = Hash.from_string(value["blockhash"])
    message = Message.new_with_blockhash([create, initialize], paying, blockhash)
    body = to_bytes_versioned(message)
    signatures = [await payer.sign(body), bytes(mint.sign_message(body))]
    _, raw = signed(message, signatures, TransactionFormat.LEGACY)
    text = base64.b64encode(raw).decode()
    # A new key each time, so a second run never collides with a first that landed late.
    await rpc.call(
        "sendTransaction", text, {"encoding": "base64", "preflightCommitment": "confirmed"}
    )
    options = {**_FINALIZED, "encoding": "base64"}
    while True:
        if (await rpc.call("getAccountInfo", str(mint.pubkey()), options))["value"] is not None:
            return mint.pubkey()
        if await rpc.call("getBlockHeight", _FINALIZED) > value["lastValidBlockHeight"]:
            raise RpcUnavailableError("the mint's transaction has expired; run the command again")
        await sleep(_POLL_S)


async def rents_lamports(rpc: JsonRpc) -> tuple[int, int]:
    """Return the rent of a marker and of a token account, as this cluster takes it today."""
    marker = await rpc.call("getMinimumBalanceForRentExemption", 0)
    account = await rpc.call("getMinimumBalanceForRentExemption", 165)
    return int(marker), int(account)
