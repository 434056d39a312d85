"""A localnet without sockets, a token on it, a store with credits, and a minter between them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from gridtokenx_cloud.adapters.keystore import LocalSigner, PolicySigner, SignerPolicy
from gridtokenx_cloud.adapters.localnet import Localnet
from gridtokenx_cloud.adapters.localnet.errors import CutConnectionError
from gridtokenx_cloud.adapters.localnet.faults import Faults
from gridtokenx_cloud.adapters.localnet.rpc import answer
from gridtokenx_cloud.adapters.solana_rpc.chain import SolanaMintChain
from gridtokenx_cloud.adapters.solana_rpc.history import SolanaHistory
from gridtokenx_cloud.adapters.solana_rpc.mint_creation import MintCreation, MintSpec
from gridtokenx_cloud.adapters.solana_rpc.rpc import (
    FailoverRpc,
    JsonRpc,
    RpcBusyError,
    refusal,
)
from gridtokenx_cloud.adapters.solana_rpc.sending import Sender
from gridtokenx_cloud.adapters.solana_rpc.setup import airdrop
from gridtokenx_cloud.adapters.solana_rpc.tables import LookupTables
from gridtokenx_cloud.adapters.solana_rpc.transactions import TOKEN, SolanaWallets, Token
from gridtokenx_cloud.adapters.store.database import Database, open_database
from gridtokenx_cloud.adapters.store.migrate import migrate
from gridtokenx_cloud.adapters.store.mint import SqlMintStore
from gridtokenx_cloud.adapters.store.mint_audit import SqlAuditStore
from gridtokenx_cloud.adapters.store.mint_upkeep import SqlMintUpkeep
from gridtokenx_cloud.audit import run_audit
from gridtokenx_cloud.batching import Markers
from gridtokenx_cloud.errors import RpcUnavailableError
from gridtokenx_cloud.formats import TransactionFormat
from gridtokenx_cloud.mint_rules import MintRules
from gridtokenx_cloud.ports.audit import AuditReport
from gridtokenx_cloud.ports.upkeep import TableStore
from gridtokenx_cloud.settle import MeterPollingService
from gridtokenx_cloud.tokenization import RetryPolicy, conversion
from tests.support.memory_tables import MemoryTables

AUTHORITY = Keypair.from_seed(b"a" * 32)
PAYER = Keypair.from_seed(b"p" * 32)
SECRET = b"marker secret of the test, 32+ bytes"
NOON_MS = 1_780_000_000_000
BLOCK_S = 0.4
CONVERSION = conversion(Decimal(1), 9)


def wallet(number: int) -> Keypair:
    """Return the wallet of owner *number*."""
    return Keypair.from_seed(b"w" * 28 + number.to_bytes(4, "big"))


class WorldClock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.at_ms = NOON_MS

    def now_ms(self) -> int:
        return self.at_ms


@dataclass
class InProcessRpc:
    """`JsonRpc` straight into a localnet; before each call *tap* may interfere."""

    chain: Localnet
    tap: Callable[[str], None] = lambda _method: None
    calls: list[str] = field(default_factory=list)
    faults: Faults | None = None
    """Of a node of its own; None = the chain's."""

    async def call(self, method: str, *params: Any) -> Any:
        self.tap(method)
        self.calls.append(method)
        await asyncio.sleep(0)
        if (self.faults or self.chain.faults).too_many_requests():
            raise RpcBusyError(f"{method}: HTTP 429", 1.0)
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)}
        try:
            reply = answer(self.chain, request, self.faults)
        except CutConnectionError as exc:
            raise RpcUnavailableError("connection cut") from exc
        if "error" in reply:
            raise refusal(method, reply["error"]["code"], reply["error"]["message"])
        return reply["result"]


@dataclass
class World:
    """Everything around one token."""

    chain: Localnet
    rpc: InProcessRpc
    token: Token
    clock: WorldClock
    block_s: float = BLOCK_S

    @property
    def marks(self) -> Markers:
        return Markers(SECRET, str(AUTHORITY.pubkey()), str(self.token.mint))

    async def sleep(self, seconds: float) -> None:
        """Let time and blocks pass without waiting."""
        await asyncio.sleep(0)
        if seconds > 0:
            before = self.clock.at_ms // int(1000 * self.block_s)
            self.clock.at_ms += max(1, int(seconds * 1000))
            self.chain.advance(self.clock.at_ms // int(1000 * self.block_s) - before)

    @property
    def failover(self) -> FailoverRpc:
        return self.failover_over(self.rpc)

    def failover_over(self, *nodes: JsonRpc) -> FailoverRpc:
        """Return the way to several nodes, in this world's time."""
        return FailoverRpc(nodes, self.sleep, lambda: self.clock.at_ms / 1000)

    def sender(self, cap: int = 10**15) -> Sender:
        policy = SignerPolicy(
            str(self.token.mint), str(self.token.program), str(PAYER.pubkey()), 10**13, cap
        )
        signers = [
            PolicySigner(LocalSigner(AUTHORITY), policy, self.clock.now_ms),
            PolicySigner(LocalSigner(PAYER), policy, self.clock.now_ms),
        ]
        return Sender(self.failover, self.token, signers, self.clock, sleep=self.sleep)

    def solana(
        self,
        tables: TableStore | None = None,
        cap: int = 10**15,
        form: TransactionFormat = TransactionFormat.LEGACY,
    ) -> SolanaMintChain:
        sender = self.sender(cap)
        kept = LookupTables(sender, tables or MemoryTables(), self.clock)
        return SolanaMintChain(self.failover, sender, self.marks, form, kept, self.clock)

    def history(self) -> SolanaHistory:
        return SolanaHistory(self.failover, self.token)

    def supply(self) -> int:
        account = self.chain.account_at(self.token.mint, self.chain.block_at("processed"))
        return int.from_bytes(account.data[36:44], "little") if account else 0

    def balance(self, owner: Pubkey) -> int:
        address = self.token.account_of(owner)
        account = self.chain.account_at(address, self.chain.block_at("processed"))
        return int.from_bytes(account.data[64:72], "little") if account else 0


async def new_world(program: Pubkey = TOKEN, name: str = "", symbol: str = "") -> World:
    """Return a world whose payer is rich and whose mint is final."""
    chain, clock = Localnet(), WorldClock()
    rpc = InProcessRpc(chain)
    nothing = Pubkey.default()
    token = Token(nothing, program, 9, AUTHORITY.pubkey(), PAYER.pubkey())
    world = World(chain, rpc, token, clock)
    await airdrop(rpc, PAYER.pubkey(), 10 * 10**9, world.sleep)
    spec = MintSpec(program, 9, AUTHORITY.pubkey(), name, symbol)
    signers = LocalSigner(PAYER), LocalSigner(AUTHORITY)
    mint = await MintCreation(rpc, spec, *signers, sleep=world.sleep).make()
    world.token = replace(token, mint=mint)
    return world


@dataclass
class Minter:
    """A store with credits and the service over it."""

    world: World
    database: Database
    store: SqlMintStore
    service: MeterPollingService
    rules: MintRules

    def credit(self, owner: int, *credits_wh: int) -> list[int]:
        """Store accepted readings of an owner's meter; return their ids."""
        return add_credits(self.database, owner, credits_wh, self.world.clock.now_ms())

    async def audit(self) -> AuditReport:
        return await run_audit(SqlAuditStore(self.database), self.world.history(), CONVERSION)


@contextmanager
def minter(
    world: World, where: Path | Database, rules: MintRules | None = None
) -> Iterator[Minter]:
    """Take a store, or open the one at a path, new or left by a crash."""
    if isinstance(where, Path):
        new = not where.exists()
        database = open_database(f"sqlite:///{where}")
        if new:
            migrate(database)
    else:
        database = where
    chosen = rules or MintRules(conversion=CONVERSION)
    store = SqlMintStore(database, CONVERSION, RetryPolicy)
    try:
        service = MeterPollingService(
            store,
            world.solana(SqlMintUpkeep(database), form=chosen.form),
            world.history(),
            SolanaWallets(world.token),
            rules=lambda: chosen,
            markers=world.marks,
            clock=world.clock,
            sleep=world.sleep,
        )
        yield Minter(world, database, store, service, chosen)
    finally:
        database.close()


_SEQ = itertools.count(1)


def add_owner(database: Database, owner: int) -> None:
    """Enrol an owner with a gateway and a meter, once."""
    with database.transaction() as tx:
        tx.execute(
            "INSERT INTO users VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (f"user-{owner}", str(wallet(owner).pubkey()), NOON_MS),
        )
        tx.execute(
            "INSERT INTO gateways VALUES (?, ?, 'active', ?) ON CONFLICT DO NOTHING",
            (f"gateway-{owner}", "test", NOON_MS),
        )
        tx.execute(
            "INSERT INTO meters VALUES (?, ?, ?, 10000, 1, 'first', ?) ON CONFLICT DO NOTHING",
            (f"HOUSE-{owner}", f"gateway-{owner}", f"user-{owner}", NOON_MS),
        )


def add_credits(
    database: Database, owner: int, credits_wh: tuple[int, ...], at_ms: int
) -> list[int]:
    """Store accepted readings with these credits."""
    add_owner(database, owner)
    ids: list[int] = []
    with database.transaction() as tx:
        for credit_wh in credits_wh:
            seq = next(_SEQ)
            row = tx.execute(
                "INSERT INTO meter_readings (meter_id, epoch, seq, gateway_id, user_id,"
                " reading_timestamp_ms, submitted_at_ms, interval_s, import_wh, export_wh, clock,"
                " flags, boot_id, mono_ms, credit_wh, status, line)"
                " VALUES (?, '00000000000000e1', ?, ?, ?, ?, ?, 900, 0, ?, 2, 0, ?, 0, ?,"
                " 'accepted', ?) RETURNING reading_id",
                (
                    f"HOUSE-{owner}",
                    seq,
                    f"gateway-{owner}",
                    f"user-{owner}",
                    at_ms,
                    at_ms,
                    credit_wh,
                    "0" * 32,
                    credit_wh,
                    f"line {owner} {seq} {credit_wh}".encode(),
                ),
            ).fetchone()
            ids.append(row["reading_id"])
    return ids
