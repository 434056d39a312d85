"""A minter in a process of its own, over HTTP to a chain that lives faster than a cluster."""

from __future__ import annotations

import asyncio
import time
from multiprocessing.connection import Connection
from pathlib import Path

from solders.pubkey import Pubkey

from gridtokenx_cloud.adapters.keystore import LocalSigner, PolicySigner, SignerPolicy
from gridtokenx_cloud.adapters.solana_rpc.chain import SolanaMintChain
from gridtokenx_cloud.adapters.solana_rpc.history import SolanaHistory
from gridtokenx_cloud.adapters.solana_rpc.rpc import FailoverRpc, connect
from gridtokenx_cloud.adapters.solana_rpc.sending import Sender
from gridtokenx_cloud.adapters.solana_rpc.tables import LookupTables
from gridtokenx_cloud.adapters.solana_rpc.transactions import TOKEN, SolanaWallets, Token
from gridtokenx_cloud.adapters.store.mint import SqlMintStore
from gridtokenx_cloud.adapters.store.mint_upkeep import SqlMintUpkeep
from gridtokenx_cloud.adapters.store.sqlite import SqliteDatabase
from gridtokenx_cloud.batching import Markers
from gridtokenx_cloud.formats import TransactionFormat
from gridtokenx_cloud.mint_rules import MintRules
from gridtokenx_cloud.settle import MeterPollingService
from gridtokenx_cloud.tokenization import RetryPolicy
from tests.support.mint_world import AUTHORITY, CONVERSION, NOON_MS, PAYER, SECRET

BLOCK_MS = 5
_FASTER = 400 // BLOCK_MS
RULES = MintRules(conversion=CONVERSION, max_batch_size=2, concurrent_batches=3)


class FastClock:
    """As much faster than the wall as the chain is faster than a cluster."""

    def now_ms(self) -> int:
        return NOON_MS + int(time.monotonic() * 1000) * _FASTER


async def fast_sleep(seconds: float) -> None:
    """Sleep in the chain's time."""
    await asyncio.sleep(seconds / _FASTER)


def token_of(mint: Pubkey) -> Token:
    """Return the token under test."""
    return Token(mint, TOKEN, 9, AUTHORITY.pubkey(), PAYER.pubkey())


def marks(mint: Pubkey) -> Markers:
    """Return the markers under test."""
    return Markers(SECRET, str(AUTHORITY.pubkey()), str(mint))


def mint_all(path: Path, url: str, mint: str, started: Connection | None = None) -> None:
    """Mint what the store owes and end; the body of a process that is there to be killed."""
    if started is not None:
        started.send("alive")
    asyncio.run(_drain(path, url, Pubkey.from_string(mint)))


async def _drain(path: Path, url: str, mint: Pubkey) -> None:
    rpc, endpoints = connect([url], 30)
    database = SqliteDatabase(path)
    try:
        fast = FailoverRpc(rpc.endpoints, fast_sleep, lambda: time.monotonic() * _FASTER)
        await _service(database, fast, token_of(mint)).drain()
    finally:
        database.close()
        for endpoint in endpoints:
            await endpoint.close()


def _service(database: SqliteDatabase, rpc: FailoverRpc, token: Token) -> MeterPollingService:
    clock, markers = FastClock(), marks(token.mint)
    policy = SignerPolicy(str(token.mint), str(TOKEN), str(token.payer), 10**15, 10**18)
    signers = [PolicySigner(LocalSigner(pair), policy, clock.now_ms) for pair in (AUTHORITY, PAYER)]
    sender = Sender(rpc, token, signers, clock, sleep=fast_sleep)
    tables = LookupTables(sender, SqlMintUpkeep(database), clock)
    return MeterPollingService(
        SqlMintStore(database, CONVERSION, RetryPolicy),
        SolanaMintChain(rpc, sender, markers, TransactionFormat.LEGACY, tables, clock),
        SolanaHistory(rpc, token),
        SolanaWallets(token),
        rules=lambda: RULES,
        markers=markers,
        clock=clock,
        sleep=fast_sleep,
    )
