"""Each role with the adapters and values it needs; the only place that knows them all."""

import asyncio
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

from solders.keypair import Keypair
from solders.pubkey import Pubkey

from gridtokenx_cloud.adapters.http_api import ReadyCheck, build_api
from gridtokenx_cloud.adapters.keystore import PolicySigner, SignerPolicy, load_keypair
from gridtokenx_cloud.adapters.mqtt import MqttIngest
from gridtokenx_cloud.adapters.solana_rpc.chain import SolanaMintChain
from gridtokenx_cloud.adapters.solana_rpc.history import SolanaHistory
from gridtokenx_cloud.adapters.solana_rpc.rpc import FailoverRpc
from gridtokenx_cloud.adapters.solana_rpc.transactions import TOKEN_PROGRAMS, SolanaWallets, Token
from gridtokenx_cloud.adapters.store.access import SqliteAccess
from gridtokenx_cloud.adapters.store.database import Database, open_database
from gridtokenx_cloud.adapters.store.events import SqliteEventStore
from gridtokenx_cloud.adapters.store.ingest import SqliteIngestStore
from gridtokenx_cloud.adapters.store.migrate import check_schema
from gridtokenx_cloud.adapters.store.mint import SqliteMintStore
from gridtokenx_cloud.adapters.store.mint_audit import SqliteAuditStore
from gridtokenx_cloud.adapters.store.upkeep import signed_since
from gridtokenx_cloud.adapters.store.views import SqliteViews
from gridtokenx_cloud.adapters.verifier import verify
from gridtokenx_cloud.adapters.websocket_api import EventServer, EventServerLimits
from gridtokenx_cloud.batching import Markers, TransactionFormat
from gridtokenx_cloud.broadcast import Broadcast, BroadcastLimits
from gridtokenx_cloud.errors import ConfigError, NotFoundError
from gridtokenx_cloud.ingest import IngestService, Message
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.roles.api import ApiRole
from gridtokenx_cloud.roles.events import EventsRole
from gridtokenx_cloud.roles.ingest import IngestRole
from gridtokenx_cloud.roles.relay import Relay
from gridtokenx_cloud.roles.settle import Minting, SettleRole
from gridtokenx_cloud.settings import Settings, require, split_bind
from gridtokenx_cloud.settle import MeterPollingService, MintRules
from gridtokenx_cloud.tokenization import Conversion, RetryPolicy, conversion
from gridtokenx_cloud.verify import ReadingRules
from gridtokenx_wire.topics import Channel, topic

_DAY_MS = 86_400_000
_INGEST_STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What the roles of one process share."""

    settings: Settings
    clock: Clock
    database: Database
    relay: Relay


def open_store(settings: Settings) -> Database:
    """Return the store with this program's schema.

    Raises:
        ConfigError: It cannot be opened.
        SchemaError: `gtx-cloud migrate` has to run first.
    """
    database = open_database(settings.cloud.database_url)
    check_schema(database)
    return database


def bind_facts(parts: Parts) -> None:
    """Tie the store to what must never change under its readings and batches.

    Raises:
        ConfigError: The configuration differs from what the store was started with.
    """
    config, chain = parts.settings.tokenization, parts.settings.blockchain
    facts = {
        "kwh_to_token_ratio": f"{config.kwh_to_token_ratio.normalize():f}",
        "decimals": str(config.decimals),
        "mint_address": chain.mint_address,
        "genesis_hash": chain.genesis_hash,
    }
    store = _mint_store(parts)
    store.bind({name: fact for name, fact in facts.items() if fact}, parts.clock.now_ms())


def ingest_service(parts: Parts) -> IngestService:
    """Return the service behind MQTT and HTTP alike.

    Raises:
        SigningKeyError: The cloud's key cannot be used.
    """
    settings = parts.settings
    key = load_keypair(require(settings.cloud.cloud_key, "GTX_CLOUD_CLOUD_KEY"))
    return IngestService(
        SqliteIngestStore(parts.database),
        verify,
        lambda message: bytes(key.sign_message(message)),
        ReadingRules(
            max_reading_wh=int(settings.tokenization.max_reading_kwh * 1000),
            reading_max_age_days=settings.tokenization.reading_max_age_days,
        ),
        require(settings.blockchain.mint_address, "BLOCKCHAIN_MINT_ADDRESS"),
        parts.clock,
        on_commit=parts.relay.committed,
        on_sample=parts.relay.sampled,
    )


def ingest_role(parts: Parts, service: IngestService) -> IngestRole:
    """Return the role that listens to the broker."""
    cloud = parts.settings.cloud
    password = cloud.mqtt_password
    return IngestRole(
        partial(
            MqttIngest,
            require(cloud.mqtt_url, "GTX_CLOUD_MQTT_URL"),
            cloud.mqtt_username,
            password.get_secret_value() if password is not None else None,
            cloud.mqtt_ca_file,
            service,
        ),
        _INGEST_STOP_S,
    )


def events_role(parts: Parts) -> EventsRole:
    """Return the role that serves live events."""
    socket = parts.settings.websocket
    host, port = split_bind(socket.bind)
    limits = EventServerLimits(
        auth_timeout_s=socket.auth_timeout_secs, max_connections=socket.max_connections
    )
    fan_out = BroadcastLimits(
        history=socket.event_buffer_size, per_user=socket.max_connections_per_user
    )

    def make_server() -> EventServer:
        hub = Broadcast(SqliteEventStore(parts.database), parts.clock, fan_out)
        return EventServer(host, port, hub, _access(parts), own_origins(parts.settings), limits)

    return EventsRole(make_server, parts.relay)


def api_role(
    parts: Parts, service: IngestService, ready_checks: Mapping[str, ReadyCheck]
) -> ApiRole:
    """Return the role that serves the API and the page."""
    settings = parts.settings
    app = build_api(
        sessions=_access(parts),
        views=SqliteViews(parts.database, parts.clock),
        clock=parts.clock,
        submit=partial(_submit, service),
        ready_checks=ready_checks,
        ws_url=settings.websocket.url,
        allowed_origins=own_origins(settings),
        secure_cookies=settings.websocket.url.startswith("wss:"),
        mint_address=require(settings.blockchain.mint_address, "BLOCKCHAIN_MINT_ADDRESS"),
        decimals=settings.tokenization.decimals,
    )
    return ApiRole(app, *split_bind(settings.cloud.http_bind))


def settle_role(parts: Parts) -> SettleRole:
    """Return the role that mints.

    Raises:
        SigningKeyError: A key cannot be used.
        ConfigError: Both keys are one.
    """
    settings, chain = parts.settings, parts.settings.blockchain
    keys = _mint_keys(settings)
    token = _token(settings, *keys)
    secret = require(chain.marker_secret, "BLOCKCHAIN_MARKER_SECRET")
    markers = Markers(secret.get_secret_value().encode(), str(token.authority))
    policy = SignerPolicy(
        mint=str(token.mint),
        token_program=str(token.program),
        max_per_transaction=chain.max_tokens_per_transaction,
        max_per_day=chain.max_tokens_per_day,
    )

    def signer(key: Keypair) -> PolicySigner:
        now_ms = parts.clock.now_ms()
        signed = signed_since(parts.database, now_ms - now_ms % _DAY_MS)
        return PolicySigner(key, policy, parts.clock.now_ms, signed)

    def mint_chain(rpc: FailoverRpc) -> SolanaMintChain:
        return SolanaMintChain(
            rpc,
            token,
            authority=signer(keys[0]),
            payer=signer(keys[1]),
            markers=markers,
            form=_form(settings),
            price_floor_micro_lamports=chain.priority_fee_floor_micro_lamports,
            price_cap_micro_lamports=chain.priority_fee_cap_micro_lamports,
        )

    def service(mint_chain: SolanaMintChain, history: SolanaHistory) -> MeterPollingService:
        return MeterPollingService(
            _mint_store(parts),
            mint_chain,
            history,
            SolanaWallets(token),
            rules=lambda: mint_rules(settings),
            markers=markers,
            clock=parts.clock,
            sleep=asyncio.sleep,
        )

    return SettleRole(
        Minting(
            rpc_urls=settings.cloud.solana_rpc_urls,
            rpc_timeout_s=chain.rpc_timeout_secs,
            genesis_hash=chain.genesis_hash,
            token=token,
            conversion=_conversion(settings),
            audit_store=SqliteAuditStore(parts.database),
            audit_interval_s=chain.audit_interval_secs,
            chain=mint_chain,
            service=service,
        ),
        parts.relay,
    )


def mint_rules(settings: Settings) -> MintRules:
    """Return what of the minting can be set."""
    config, chain = settings.tokenization, settings.blockchain
    return MintRules(
        conversion=_conversion(settings),
        auto_mint_enabled=config.auto_mint_enabled,
        auto_mint_percentage=config.auto_mint_percentage,
        auto_trigger_on_submit=config.auto_trigger_on_submit,
        polling_interval_s=config.polling_interval_secs,
        batch_size=config.batch_size,
        max_transactions_per_batch=config.max_transactions_per_batch,
        mint_threshold_wh=int(config.mint_threshold * 1000),
        transaction_timeout_s=config.transaction_timeout_secs,
        concurrent_batches=chain.concurrent_batches,
        max_batch_size=chain.max_batch_size,
        max_base_units_per_transaction=chain.max_tokens_per_transaction,
        form=_form(settings),
    )


def own_origins(settings: Settings) -> tuple[str, ...]:
    """Return the origins of our own pages: as set, or where this process can be reached."""
    if settings.cloud.allowed_origins:
        return settings.cloud.allowed_origins
    public = settings.websocket.public_url
    if public is not None:
        parts = urlsplit(public)
        return (f"{'https' if parts.scheme == 'wss' else 'http'}://{parts.netloc}",)
    host, port = split_bind(settings.cloud.http_bind)
    names = (host, "localhost") if host == "127.0.0.1" else (host,)
    return tuple(f"http://{name}:{port}" for name in names)


def store_check(database: Database) -> str | None:
    """Return why the store cannot be read now; None = it can."""
    try:
        database.connection.execute("SELECT 1")
    except sqlite3.Error as exc:
        return f"the store cannot be read: {exc}"
    return None


def _submit(service: IngestService, gateway_id: str, payload: bytes) -> bytes:
    outcome = service.process([Message(topic(gateway_id, Channel.READINGS), payload)])
    for receiver, receipt in outcome.receipts:
        if receiver == gateway_id:
            return receipt
    raise NotFoundError(
        f"gateway {gateway_id} is not enrolled; add it with `gtx-cloud gateway add`"
    )


def _access(parts: Parts) -> SqliteAccess:
    return SqliteAccess(parts.database, parts.clock, parts.settings.cloud.session_ttl_secs)


def _mint_store(parts: Parts) -> SqliteMintStore:
    config = parts.settings.tokenization
    retry = RetryPolicy(
        initial_s=config.initial_retry_delay_secs,
        multiplier=config.retry_backoff_multiplier,
        max_s=config.max_retry_delay_secs,
        max_attempts=config.max_retry_attempts,
    )
    return SqliteMintStore(parts.database, _conversion(parts.settings), retry)


def _conversion(settings: Settings) -> Conversion:
    config = settings.tokenization
    return conversion(config.kwh_to_token_ratio, config.decimals)


def _form(settings: Settings) -> TransactionFormat:
    wanted = settings.blockchain.transaction_format
    return TransactionFormat.LEGACY if wanted == "auto" else TransactionFormat(wanted)


def _mint_keys(settings: Settings) -> tuple[Keypair, Keypair]:
    chain = settings.blockchain
    authority = load_keypair(require(chain.mint_authority_key, "BLOCKCHAIN_MINT_AUTHORITY_KEY"))
    payer = load_keypair(require(chain.fee_payer_key, "BLOCKCHAIN_FEE_PAYER_KEY"))
    if authority.pubkey() == payer.pubkey():
        raise ConfigError(
            (
                "IncompatibleValues: BLOCKCHAIN_FEE_PAYER_KEY is the mint authority's key; the key"
                " that may mint must hold no SOL, so make a second one",
            )
        )
    return authority, payer


def _token(settings: Settings, authority: Keypair, payer: Keypair) -> Token:
    chain = settings.blockchain
    return Token(
        mint=Pubkey.from_string(require(chain.mint_address, "BLOCKCHAIN_MINT_ADDRESS")),
        program=TOKEN_PROGRAMS[chain.token_program],
        decimals=settings.tokenization.decimals,
        authority=authority.pubkey(),
        payer=payer.pubkey(),
    )
