"""Puts the minting service together from the settings; the only place that knows all its parts."""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from solders.pubkey import Pubkey

from gridtokenx_cloud.adapters.solana_rpc.chain import SolanaMintChain
from gridtokenx_cloud.adapters.solana_rpc.history import SolanaHistory
from gridtokenx_cloud.adapters.solana_rpc.probe import best_format
from gridtokenx_cloud.adapters.solana_rpc.rpc import FailoverRpc, JsonRpc, connect
from gridtokenx_cloud.adapters.solana_rpc.sending import Sender, Signer
from gridtokenx_cloud.adapters.solana_rpc.setup import check_chain, read_token
from gridtokenx_cloud.adapters.solana_rpc.status import StatusPoll
from gridtokenx_cloud.adapters.solana_rpc.tables import LookupTables
from gridtokenx_cloud.adapters.solana_rpc.transactions import (
    TOKEN_PROGRAMS,
    SolanaWallets,
    Token,
)
from gridtokenx_cloud.adapters.solana_rpc.upkeep import SolanaUpkeep
from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.key_journal import SqlKeyJournal
from gridtokenx_cloud.adapters.store.mint import SqlMintStore
from gridtokenx_cloud.adapters.store.mint_audit import SqlAuditStore
from gridtokenx_cloud.adapters.store.mint_upkeep import SqlMintUpkeep
from gridtokenx_cloud.audit import unknown_mint_reason, unknown_mints
from gridtokenx_cloud.batching import Markers
from gridtokenx_cloud.driving import WHOLE_STORE
from gridtokenx_cloud.formats import TransactionFormat
from gridtokenx_cloud.janitor import Janitor, JanitorRules
from gridtokenx_cloud.key_wiring import Keys, load_keys, policy_signers, prove_keys
from gridtokenx_cloud.mint_rules import MintRules
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.settings import Settings, TokenizationConfig, require
from gridtokenx_cloud.settle import MeterPollingService
from gridtokenx_cloud.tokenization import Conversion, RetryPolicy, conversion

_POLL_WINDOW_S = 0.05
"""Attempts whose next look is due within it share one."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectedMinter:
    """The service and what an audit beside it needs."""

    service: MeterPollingService
    store: SqlAuditStore
    history: SolanaHistory
    conversion: Conversion
    janitor: Janitor
    journal: SqlKeyJournal


def conversion_of(settings: Settings) -> Conversion:
    """Return the rate between energy and tokens."""
    group = settings.tokenization
    return conversion(group.kwh_to_token_ratio, group.decimals)


def rules_of(settings: Settings, tokenization: TokenizationConfig | None = None) -> MintRules:
    """Return the minting rules; *tokenization* = the group with what was changed while running."""
    group, chain = tokenization or settings.tokenization, settings.blockchain
    return MintRules(
        conversion=conversion_of(settings),
        auto_mint_enabled=group.auto_mint_enabled,
        auto_mint_percentage=group.auto_mint_percentage,
        auto_trigger_on_submit=group.auto_trigger_on_submit,
        polling_interval_s=group.polling_interval_secs,
        batch_size=group.batch_size,
        max_transactions_per_batch=group.max_transactions_per_batch,
        mint_threshold_wh=int(group.mint_threshold * 1000),
        transaction_timeout_s=group.transaction_timeout_secs,
        concurrent_batches=chain.concurrent_batches,
        max_batch_size=chain.max_batch_size,
        max_base_units_per_transaction=chain.max_tokens_per_transaction,
    )


async def format_of(settings: Settings, rpc: FailoverRpc, payer: Pubkey) -> TransactionFormat:
    """Return the format of mint transactions: as set, or the widest that the cluster takes."""
    chosen = settings.blockchain.transaction_format
    if chosen == "auto":
        return await best_format(rpc, payer)
    return TransactionFormat(chosen)


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[FailoverRpc]:
    """Give the way to the cluster."""
    urls = settings.cloud.solana_rpc_urls
    if not urls:
        require(None, "GTX_CLOUD_SOLANA_RPC_URLS")
    rpc, endpoints = connect(urls, settings.blockchain.rpc_timeout_secs)
    try:
        yield rpc
    finally:
        for endpoint in endpoints:
            await endpoint.close()


async def public_token(settings: Settings, rpc: JsonRpc) -> Token:
    """Return the token as the chain has it, for programs that hold no key."""
    mint = require(settings.blockchain.mint_address, "BLOCKCHAIN_MINT_ADDRESS")
    return await read_token(rpc, Pubkey.from_string(mint))


@asynccontextmanager
async def connected_minter(
    settings: Settings,
    database: Database,
    clock: Clock,
    tokenization: Callable[[], TokenizationConfig] | None = None,
    *,
    despite_unknown_mints: bool = False,
) -> AsyncIterator[ConnectedMinter]:
    """Give a minting service whose chain, keys and store have been checked against each other.

    Args:
        settings: Of this process.
        database: The store, its schema checked.
        clock: Wall clock.
        tokenization: Asked before every pass for the group in force; default: that of
            *settings*, unchanged.
        despite_unknown_mints: The store is the newest there is, and somebody else minted.

    Raises:
        ConfigError: A setting is missing, or the store was started with others.
        ChainMismatchError: The chain is not the configured one.
        SignerUnavailableError: The service that holds a key does not answer.
        SigningKeyError: A key can't be used.
    """
    keys = load_keys(settings)
    token = token_of(settings, keys)
    markers = markers_of(settings, token)
    rate = conversion_of(settings)
    group = tokenization or (lambda: settings.tokenization)
    store = SqlMintStore(database, rate, lambda: _retry_policy(group()))
    async with connected(settings) as rpc:
        with database.only_minter():
            genesis = await check_chain(rpc, token, settings.blockchain.genesis_hash)
            store.bind(_facts(token, genesis, rate, markers), clock.now_ms())
            form = await format_of(settings, rpc, token.payer)
            _log.info("format_chosen", extra={"format": form.value})
            journal = SqlKeyJournal(database, clock)
            await prove_keys(keys, journal)
            signers = policy_signers(settings, keys, clock, journal)
            sender = sender_of(settings, rpc, token, signers, clock)
            upkeep = SqlMintUpkeep(database)
            tables = LookupTables(sender, upkeep, clock)
            poll = StatusPoll(rpc, _POLL_WINDOW_S)
            history = SolanaHistory(rpc, token)
            service = MeterPollingService(
                store,
                SolanaMintChain(rpc, sender, markers, form, tables, clock, poll),
                history,
                SolanaWallets(token),
                rules=lambda: replace(
                    rules_of(settings, group()), form=form, signatures=sender.signatures
                ),
                markers=markers,
                clock=clock,
            )
            audit_store = SqlAuditStore(database)
            if not despite_unknown_mints:
                await _halt_on_unknown_mints(service, audit_store, history)
            recovery = SolanaUpkeep(sender, markers, form, tables)
            janitor = Janitor(upkeep, recovery, clock, _janitor_rules(settings))
            yield ConnectedMinter(service, audit_store, history, rate, janitor, journal)


def _janitor_rules(settings: Settings) -> JanitorRules:
    group = settings.blockchain
    return JanitorRules(group.marker_retention_days, group.payer_low_transactions)


def token_of(settings: Settings, keys: Keys) -> Token:
    """Return the token as configured.

    Raises:
        ConfigError: Its address is not set.
    """
    group = settings.blockchain
    return Token(
        mint=Pubkey.from_string(require(group.mint_address, "BLOCKCHAIN_MINT_ADDRESS")),
        program=TOKEN_PROGRAMS[group.token_program],
        decimals=settings.tokenization.decimals,
        authority=Pubkey.from_string(keys.authority.address),
        payer=Pubkey.from_string(keys.payer.address),
    )


def sender_of(
    settings: Settings,
    rpc: FailoverRpc,
    token: Token,
    signers: Sequence[Signer],
    clock: Clock,
) -> Sender:
    """Return what signs and sends for a token and its keys."""
    return Sender(rpc, token, signers, clock, price_bounds(settings))


def price_bounds(settings: Settings) -> tuple[int, int]:
    """Return the lowest and the highest price of a compute unit, in micro-lamports."""
    group = settings.blockchain
    return group.priority_fee_floor_micro_lamports, group.priority_fee_cap_micro_lamports


async def _halt_on_unknown_mints(
    service: MeterPollingService, store: SqlAuditStore, history: SolanaHistory
) -> None:
    """Sign nothing on a store that is older than the chain: it would mint credits again."""
    for mint in await unknown_mints(store, history):
        service.halt(WHOLE_STORE, unknown_mint_reason(mint.signature))


def _retry_policy(group: TokenizationConfig) -> RetryPolicy:
    return RetryPolicy(
        initial_s=group.initial_retry_delay_secs,
        multiplier=group.retry_backoff_multiplier,
        max_s=group.max_retry_delay_secs,
        max_attempts=group.max_retry_attempts,
    )


def _facts(token: Token, genesis: str, rate: Conversion, markers: Markers) -> dict[str, str]:
    return {
        "genesis_hash": genesis,
        "mint_address": str(token.mint),
        "mint_authority": str(token.authority),
        "decimals": str(rate.decimals),
        "base_units_per_wh": str(rate.base_units_per_wh),
        **marker_facts(markers),
    }


def markers_of(settings: Settings, token: Token) -> Markers:
    """Return the markers of a token's batches, tied to its authority.

    Raises:
        ConfigError: Their secret is not set.
    """
    secret = require(settings.blockchain.marker_secret, "BLOCKCHAIN_MARKER_SECRET")
    return Markers(secret.get_secret_value().encode(), str(token.authority), str(token.mint))


def marker_facts(markers: Markers) -> dict[str, str]:
    """Return what ties a store to its markers."""
    # Batches count from 1; this marker is never made, it only shows a changed secret.
    return {"marker_check": markers.address(0)}
