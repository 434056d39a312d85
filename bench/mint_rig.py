"""A localnet in another process whose blocks are final at once, and a minter over HTTP to it.

Waiting for finality is the cluster's time; what is left is ours: reading the store, building,
signing, commits with fsync, JSON, and the node's own work.
"""

import asyncio
import multiprocessing
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

from solders.keypair import Keypair

from gridtokenx_cloud.adapters.keystore import LocalSigner, PolicySigner, SignerPolicy
from gridtokenx_cloud.adapters.localnet import chain as chain_module
from gridtokenx_cloud.adapters.localnet import serve
from gridtokenx_cloud.adapters.localnet.packet import Incoming
from gridtokenx_cloud.adapters.localnet.server import tick
from gridtokenx_cloud.adapters.solana_rpc.chain import SolanaMintChain
from gridtokenx_cloud.adapters.solana_rpc.history import SolanaHistory
from gridtokenx_cloud.adapters.solana_rpc.mint_creation import MintCreation, MintSpec
from gridtokenx_cloud.adapters.solana_rpc.rpc import FailoverRpc, connect
from gridtokenx_cloud.adapters.solana_rpc.sending import Sender
from gridtokenx_cloud.adapters.solana_rpc.setup import airdrop
from gridtokenx_cloud.adapters.solana_rpc.status import StatusPoll
from gridtokenx_cloud.adapters.solana_rpc.tables import LookupTables
from gridtokenx_cloud.adapters.solana_rpc.transactions import TOKEN, SolanaWallets, Token
from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.migrate import migrate
from gridtokenx_cloud.adapters.store.mint import SqlMintStore
from gridtokenx_cloud.adapters.store.mint_upkeep import SqlMintUpkeep
from gridtokenx_cloud.adapters.store.sqlite import SqliteDatabase
from gridtokenx_cloud.adapters.system import SystemClock
from gridtokenx_cloud.batching import Markers
from gridtokenx_cloud.formats import TransactionFormat
from gridtokenx_cloud.mint_rules import MintRules
from gridtokenx_cloud.minting import Sleep
from gridtokenx_cloud.settle import MeterPollingService
from gridtokenx_cloud.tokenization import RetryPolicy
from tests.support.mint_world import CONVERSION, SECRET, wallet

_CAP = 10**15
CLUSTER_BLOCK_MS = 400


class InstantChain(chain_module.Localnet):
    """Makes a block of every transaction, until it is told not to."""

    instant = True

    def submit(self, incoming: Incoming) -> None:
        super().submit(incoming)
        if self.instant:
            # As a node does: the answer first, that it has taken the bytes; then the block.
            asyncio.get_running_loop().call_soon(self.advance)


def _serve(pipe: Connection) -> None:
    usual_lag, usual_age = dict(chain_module.LAG_BLOCKS), chain_module.MAX_AGE_BLOCKS

    async def run() -> None:
        cast("dict[str, int]", chain_module.LAG_BLOCKS).update(confirmed=0, finalized=0)
        # A block per transaction makes blocks far faster than a cluster does.
        chain_module.MAX_AGE_BLOCKS = 450
        chain = InstantChain()
        async with await serve(chain) as server:
            pipe.send(server.url)
            while not pipe.poll():
                await asyncio.sleep(0.05)
                chain.advance()
            if pipe.recv() != "blocks":
                return
            chain.instant = False
            cast("dict[str, int]", chain_module.LAG_BLOCKS).update(usual_lag)
            chain_module.MAX_AGE_BLOCKS = usual_age
            blocks = asyncio.create_task(tick(chain, CLUSTER_BLOCK_MS))
            await asyncio.to_thread(pipe.recv)
            blocks.cancel()

    asyncio.run(run())


class Node:
    """A localnet in a second process; at first its blocks come at once, and are final."""

    def __init__(self, url: str, pipe: Connection) -> None:
        self.url = url
        self._pipe = pipe

    def make_blocks_as_a_cluster(self) -> None:
        """From now on a block takes 400 ms, and 32 more make it final."""
        self._pipe.send("blocks")


@contextmanager
def localnet() -> Iterator[Node]:
    """Run a localnet in a second process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,))
    process.start()
    try:
        yield Node(ours.recv(), ours)
    finally:
        ours.send("stop")
        process.join(10)
        process.kill()


@dataclass(frozen=True, slots=True)
class Rig:
    """One token, one store, one minter."""

    database: Database
    rpc: FailoverRpc
    sender: Sender
    store: SqlMintStore
    service: MeterPollingService
    chain: SolanaMintChain
    tables: LookupTables
    markers: Markers


async def no_pause(_seconds: float) -> None:
    """Take a pause's place: the chain needs none."""
    await asyncio.sleep(0)


@asynccontextmanager
async def rig(
    url: str,
    form: TransactionFormat,
    *,
    keys: int = 2,
    concurrent: int = 1,
    recipients: int = 64,
    pause: Sleep = no_pause,
) -> AsyncIterator[Rig]:
    """Give a new token and store."""
    authority = Keypair()
    payer = authority if keys == 1 else Keypair()
    clock = SystemClock()
    rpc, endpoints = connect([url], 30)
    await airdrop(rpc, payer.pubkey(), 10**12)
    spec = MintSpec(TOKEN, 9, authority.pubkey())
    mint = await MintCreation(rpc, spec, LocalSigner(payer), LocalSigner(authority)).make()
    token = Token(mint, TOKEN, 9, authority.pubkey(), payer.pubkey())
    policy = SignerPolicy(str(mint), str(TOKEN), str(payer.pubkey()), _CAP, _CAP)
    pairs = dict.fromkeys((authority, payer))
    signers = [PolicySigner(LocalSigner(pair), policy, clock.now_ms) for pair in pairs]
    sender = Sender(rpc, token, signers, clock, sleep=no_pause)
    markers = Markers(SECRET, str(token.authority), str(mint))
    rules = MintRules(
        conversion=CONVERSION,
        form=form,
        signatures=sender.signatures,
        batch_size=1000,
        max_transactions_per_batch=100,
        concurrent_batches=concurrent,
        max_batch_size=recipients,
        auto_trigger_on_submit=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        database = SqliteDatabase(Path(folder) / "cloud.db")
        migrate(database)
        tables = LookupTables(sender, SqlMintUpkeep(database), clock)
        chain = SolanaMintChain(rpc, sender, markers, form, tables, clock, StatusPoll(rpc))
        store = SqlMintStore(database, CONVERSION, RetryPolicy)
        service = MeterPollingService(
            store,
            chain,
            SolanaHistory(rpc, token),
            SolanaWallets(token),
            rules=lambda: rules,
            markers=markers,
            clock=clock,
            sleep=pause,
        )
        try:
            yield Rig(database, rpc, sender, store, service, chain, tables, markers)
        finally:
            database.close()
            for endpoint in endpoints:
                await endpoint.close()


async def accounts_for(made: Rig, owners: range) -> None:
    """Make the owners' token accounts, which happens once in a customer's life."""
    await made.chain.create_token_accounts([str(wallet(owner).pubkey()) for owner in owners])
