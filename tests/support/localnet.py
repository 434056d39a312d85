"""Transactions for tests of the chain: one payer, one mint, one token owner."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message, MessageV0, MessageV1
from solders.pubkey import Pubkey
from solders.system_program import CreateAccountParams, TransferParams, create_account, transfer
from solders.token.state import Mint
from solders.transaction import VersionedTransaction
from spl.token.constants import TOKEN_PROGRAM_ID
from spl.token.instructions import (
    create_idempotent_associated_token_account,
    get_associated_token_address,
    initialize_mint,
    mint_to_checked,
)
from spl.token.models import InitializeMintParams, MintToCheckedParams

from gridtokenx_cloud.adapters.localnet import Localnet, run_localnet
from gridtokenx_cloud.adapters.localnet.packet import Incoming, decode_transaction

PAYER = Keypair.from_seed(bytes(31) + b"\x01")
MINT = Keypair.from_seed(bytes(31) + b"\x02")
OWNER = Keypair.from_seed(bytes(31) + b"\x03").pubkey()
TOKENS = get_associated_token_address(OWNER, MINT.pubkey())


def signed(
    blockhash: Hash,
    *instructions: Instruction,
    version: int | None = None,
    tables: Sequence[AddressLookupTableAccount] = (),
    payer: Keypair = PAYER,
    others: Sequence[Keypair] = (),
) -> VersionedTransaction:
    """Sign with the payer first; None is the legacy version."""
    message: Message | MessageV0 | MessageV1
    listed = list(instructions)
    if version is None:
        message = Message.new_with_blockhash(listed, payer.pubkey(), blockhash)
    elif version == 0:
        message = MessageV0.try_compile(payer.pubkey(), listed, list(tables), blockhash)
    else:
        message = MessageV1.try_compile(payer.pubkey(), listed, blockhash)
    return VersionedTransaction(message, [payer, *others])


def incoming(transaction: VersionedTransaction) -> Incoming:
    """Return what a node makes of the bytes."""
    return decode_transaction(bytes(transaction), v1=True)


def pay(to: Pubkey, lamports: int, payer: Keypair = PAYER) -> Instruction:
    """Move lamports."""
    params = TransferParams(from_pubkey=payer.pubkey(), to_pubkey=to, lamports=lamports)
    return transfer(params)


def mint_tokens(amount: int) -> Instruction:
    """Mint base units to the owner."""
    return mint_to_checked(
        MintToCheckedParams(
            program_id=TOKEN_PROGRAM_ID,
            mint=MINT.pubkey(),
            dest=TOKENS,
            mint_authority=PAYER.pubkey(),
            amount=amount,
            decimals=9,
        )
    )


def create_mint(rent_lamports: int) -> list[Instruction]:
    """Create the mint and the owner's token account."""
    account = CreateAccountParams(
        from_pubkey=PAYER.pubkey(),
        to_pubkey=MINT.pubkey(),
        lamports=rent_lamports,
        space=82,
        owner=TOKEN_PROGRAM_ID,
    )
    mint = InitializeMintParams(
        decimals=9,
        program_id=TOKEN_PROGRAM_ID,
        mint=MINT.pubkey(),
        mint_authority=PAYER.pubkey(),
    )
    return [
        create_account(account),
        initialize_mint(mint),
        create_idempotent_associated_token_account(PAYER.pubkey(), OWNER, MINT.pubkey()),
    ]


def funded_chain(**options: Any) -> Localnet:
    """Return a chain on which the payer is rich and the mint exists, all of it final."""
    chain = Localnet(**options)
    chain.airdrop(PAYER.pubkey(), 10**10)
    chain.advance()
    rent_lamports = chain.rent_minimum_lamports(82)
    chain.submit(incoming(signed(chain.tip.hash, *create_mint(rent_lamports), others=[MINT])))
    chain.advance(33)
    return chain


def lamports(chain: Localnet, address: Pubkey, commitment: str = "processed") -> int:
    """Return the balance in a view."""
    account = chain.account_at(address, chain.block_at(commitment))
    return account.lamports if account else 0


def supply(chain: Localnet, commitment: str = "processed") -> int:
    """Return the base units of the mint in a view."""
    account = chain.account_at(MINT.pubkey(), chain.block_at(commitment))
    return Mint.from_bytes(account.data).supply if account else 0


@contextmanager
def served_localnet(block_ms: int) -> Iterator[str]:
    """Serve a chain over a real socket, from a thread of its own; yield its URL."""
    urls: list[str] = []
    ready = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())

        def on_ready(url: str) -> None:
            urls.append(url)
            ready.set()

        await run_localnet("127.0.0.1", 0, block_ms=block_ms, state_file=None, on_ready=on_ready)

    def main() -> None:
        try:
            asyncio.run(serve())
        except asyncio.CancelledError:
            return

    thread = threading.Thread(target=main)
    thread.start()
    assert ready.wait(60)
    yield urls[0]
    loop = loops[0]
    loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])
    thread.join(60)
