"""Each role with the adapters and values it needs; the only place that knows them all."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Literal
from urllib.parse import urlsplit

from gridtokenx_cloud.adapters.http_api import ReadyCheck, build_api
from gridtokenx_cloud.adapters.keystore import load_key
from gridtokenx_cloud.adapters.limits import AccessLimits
from gridtokenx_cloud.adapters.mqtt import MqttIngest
from gridtokenx_cloud.adapters.store.access import SqlAccess
from gridtokenx_cloud.adapters.store.database import Database, open_database
from gridtokenx_cloud.adapters.store.events import SqlEventStore
from gridtokenx_cloud.adapters.store.figures import store_figures
from gridtokenx_cloud.adapters.store.ingest import SqlIngestStore
from gridtokenx_cloud.adapters.store.migrate import check_schema
from gridtokenx_cloud.adapters.store.mint import SqlMintStore
from gridtokenx_cloud.adapters.store.mint_audit import SqlAuditStore
from gridtokenx_cloud.adapters.store.mint_trigger import SqlMintTrigger
from gridtokenx_cloud.adapters.store.overrides import SqlOverrides
from gridtokenx_cloud.adapters.store.registry_rows import former_keys
from gridtokenx_cloud.adapters.store.views import SqlViews
from gridtokenx_cloud.adapters.verifier import verify
from gridtokenx_cloud.adapters.websocket_api import EventServer, EventServerLimits
from gridtokenx_cloud.archive_wiring import archive_folder
from gridtokenx_cloud.broadcast import Broadcast, BroadcastLimits
from gridtokenx_cloud.desk import administration
from gridtokenx_cloud.errors import FloodedError, NotFoundError, StoreBusyError, StoreRefusedError
from gridtokenx_cloud.ingest import IngestService, Message
from gridtokenx_cloud.metrics import Figure, access_figures, ingest_figures, process_figures
from gridtokenx_cloud.mint_wiring import connected_minter, conversion_of
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.roles.api import ApiRole
from gridtokenx_cloud.roles.events import EventsRole
from gridtokenx_cloud.roles.ingest import IngestRole
from gridtokenx_cloud.roles.metrics import MetricsRole
from gridtokenx_cloud.roles.relay import Relay
from gridtokenx_cloud.roles.settle import SettleRole
from gridtokenx_cloud.settings import Settings, require, split_bind
from gridtokenx_cloud.settings.live import LiveTokenization
from gridtokenx_cloud.supervisor import Role
from gridtokenx_cloud.throttle import TokenBuckets
from gridtokenx_cloud.tokenization import RetryPolicy
from gridtokenx_wire.topics import Channel, topic

Surface = Literal["http", "websocket"]
_INGEST_STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Parts:
    """What the roles of one process share."""

    settings: Settings
    clock: Clock
    database: Database
    relay: Relay
    live: LiveTokenization
    limits: Mapping[Surface, AccessLimits]


def make_parts(settings: Settings, clock: Clock, database: Database) -> Parts:
    """Return what the roles share.

    Raises:
        ConfigError: A stored override does not fit what was set since.
    """
    overrides = SqlOverrides(database, clock, actor="cloud")
    live = LiveTokenization(settings, overrides.values, clock.now_ms)
    cloud = settings.cloud
    limits: dict[Surface, AccessLimits] = {
        surface: AccessLimits(clock, cloud.api_rate_limit, cloud.trusted_proxies)
        for surface in ("http", "websocket")
    }
    return Parts(settings, clock, database, Relay(), live, limits)


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
    rate = conversion_of(parts.settings)
    facts = {"decimals": str(rate.decimals), "base_units_per_wh": str(rate.base_units_per_wh)}
    if (mint := parts.settings.blockchain.mint_address) is not None:
        facts["mint_address"] = mint
    # The minting service adds the chain's own facts once it has seen the chain.
    SqlMintStore(parts.database, rate, RetryPolicy).bind(facts, parts.clock.now_ms())


def ingest_service(parts: Parts) -> IngestService:
    """Return the service behind MQTT and HTTP alike.

    Raises:
        SigningKeyError: The cloud's key cannot be used.
    """
    settings = parts.settings
    key = load_key(require(settings.cloud.cloud_key, "GTX_CLOUD_CLOUD_KEY"))
    return IngestService(
        SqlIngestStore(parts.database),
        verify,
        key.sign_now,
        lambda: parts.live.current().reading_rules,
        require(settings.blockchain.mint_address, "BLOCKCHAIN_MINT_ADDRESS"),
        parts.clock,
        former_keys=lambda gateway_id: former_keys(
            parts.database.connection, gateway_id, parts.clock.now_ms()
        ),
        buckets=TokenBuckets(
            settings.cloud.ingest_lines_per_second, settings.cloud.ingest_lines_burst
        ),
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
            cert_file=cloud.mqtt_cert_file,
            key_file=cloud.mqtt_key_file,
        ),
        _INGEST_STOP_S,
    )


def events_role(parts: Parts) -> EventsRole:
    """Return the role that serves live events."""
    socket = parts.settings.websocket
    host, port = split_bind(socket.bind)
    limits = EventServerLimits(
        auth_required=socket.auth_required,
        auth_timeout_s=socket.auth_timeout_secs,
        max_connections=socket.max_connections,
        compression=socket.compression_enabled,
    )
    fan_out = BroadcastLimits(
        history=socket.event_buffer_size,
        per_user=socket.max_connections_per_user,
        events_per_minute=socket.rate_limit_events_per_minute,
    )

    def make_server() -> EventServer:
        hub = Broadcast(SqlEventStore(parts.database), parts.clock, fan_out)
        origins = own_origins(parts.settings)
        return EventServer(
            host, port, hub, _access(parts), origins, parts.limits["websocket"], limits
        )

    return EventsRole(make_server, parts.relay)


def api_role(
    parts: Parts, service: IngestService, ready_checks: Mapping[str, ReadyCheck]
) -> ApiRole:
    """Return the role that serves the API and the page."""
    settings = parts.settings
    app = build_api(
        sessions=_access(parts),
        views=SqlViews(parts.database, parts.clock),
        clock=parts.clock,
        submit=partial(submit, service),
        proofs=SqlAuditStore(parts.database, archive_folder(settings.cloud)).proof_source,
        ready_checks=ready_checks,
        ws_url=settings.websocket.url,
        allowed_origins=own_origins(settings),
        secure_cookies=settings.websocket.url.startswith("wss:"),
        mint_address=require(settings.blockchain.mint_address, "BLOCKCHAIN_MINT_ADDRESS"),
        decimals=settings.tokenization.decimals,
        administration=administration(
            settings,
            parts.database,
            parts.clock,
            parts.live,
            lambda: parts.live.current().reading_rules,
            parts.relay.pass_wanted,
            lambda: parts.relay.feed,
        ),
        limits=parts.limits["http"],
    )
    host, port = split_bind(settings.cloud.http_bind)
    return ApiRole(app, host, port, settings.cloud.database_pool_size)


def settle_role(parts: Parts) -> SettleRole:
    """Return the role that mints."""
    return SettleRole(
        partial(
            connected_minter,
            parts.settings,
            parts.database,
            parts.clock,
            parts.live.current,
        ),
        parts.relay,
        parts.settings.blockchain.audit_interval_secs,
        SqlMintTrigger(parts.database),
    )


def metrics_role(
    parts: Parts,
    roles: Sequence[Role],
    restarts: Mapping[str, int],
    service: IngestService | None,
) -> MetricsRole:
    """Return the role that shows how the others and the store are."""

    def collect() -> Iterator[Figure]:
        yield from process_figures(
            version("gridtokenx"), {role.name: role.trouble() for role in roles}, restarts
        )
        yield from store_figures(parts.database, parts.clock.now_ms())
        for role in roles:
            if isinstance(role, IngestRole | SettleRole | EventsRole):
                yield from role.figures()
        for surface, limits in parts.limits.items():
            yield from access_figures(surface, limits.refused)
        if service is not None:
            yield from ingest_figures(dict(service.totals))

    return MetricsRole(collect, *split_bind(parts.settings.cloud.metrics_bind))


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
    except (StoreBusyError, StoreRefusedError) as exc:
        return f"the store cannot be read: {exc}"
    return None


def submit(service: IngestService, gateway_id: str, payload: bytes) -> bytes:
    """Take lines that came by HTTP; return the signed receipt.

    Raises:
        FloodedError: The gateway is above its rate.
        NotFoundError: The gateway is not enrolled.
        TransientError: Nothing is stored.
    """
    message = Message(topic(gateway_id, Channel.READINGS), payload)
    if wait_ms := service.wait_ms(message):
        raise FloodedError(gateway_id, -(-wait_ms // 1000))
    outcome = service.process([message])
    for receiver, receipt in outcome.receipts:
        if receiver == gateway_id:
            return receipt
    raise NotFoundError(
        f"gateway {gateway_id} is not enrolled; add it with `gtx-cloud gateway add`"
    )


def _access(parts: Parts) -> SqlAccess:
    return SqlAccess(parts.database, parts.clock, parts.settings.cloud.session_ttl_secs)
