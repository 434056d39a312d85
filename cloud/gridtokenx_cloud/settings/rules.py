"""Rules that span several settings; each is a function of values alone."""

from collections.abc import Iterator
from dataclasses import dataclass

from gridtokenx_cloud.ports.keys import SealedKeyFile
from gridtokenx_cloud.settings.blockchain import U64_MAX, BlockchainSettings
from gridtokenx_cloud.settings.cloud import CloudSettings
from gridtokenx_cloud.settings.fault import Fault, fault
from gridtokenx_cloud.settings.tokenization import TokenizationConfig
from gridtokenx_cloud.settings.websocket import WebSocketSettings

_LONGEST_RETRIES_S = 86_400


@dataclass(frozen=True, slots=True)
class Groups:
    """All settings; each group whole and within its own ranges."""

    tokenization: TokenizationConfig
    blockchain: BlockchainSettings
    websocket: WebSocketSettings
    cloud: CloudSettings


def cross_faults(groups: Groups) -> Iterator[Fault]:
    """Yield every rule between settings that is broken."""
    yield from _amounts(groups.tokenization, groups.blockchain)
    yield from _retries(groups.tokenization)
    yield from _chain(groups.blockchain)
    yield from _sealed(groups.blockchain)
    yield from _broker(groups.cloud)
    yield from _archive(groups.cloud)
    yield from _missing(groups)
    if groups.cloud.environment == "production":
        yield from _production(groups)


def _amounts(config: TokenizationConfig, chain: BlockchainSettings) -> Iterator[Fault]:
    ratio, decimals = "TOKENIZATION_KWH_TO_TOKEN_RATIO", "TOKENIZATION_DECIMALS"
    per_wh = config.kwh_to_token_ratio * 10**config.decimals / 1000
    if per_wh % 1:
        yield fault(
            "UnreasonablePrecision",
            (ratio, decimals),
            f"{ratio}={config.kwh_to_token_ratio} and {decimals}={config.decimals} make {per_wh} "
            "base units of one Wh, which must be whole; use more decimals or a rounder ratio",
        )
    slot = config.max_reading_kwh * 1000 * per_wh
    cap = chain.max_tokens_per_transaction
    if slot > min(cap, U64_MAX):
        limit = f"BLOCKCHAIN_MAX_TOKENS_PER_TRANSACTION={cap}"
        yield fault(
            "IncompatibleValues",
            (ratio, decimals, "TOKENIZATION_MAX_READING_KWH", limit.partition("=")[0]),
            f"TOKENIZATION_MAX_READING_KWH={config.max_reading_kwh} is {slot:f} base units, above "
            f"{limit}; no such reading could be minted, so lower the first or raise the second",
        )


def retry_delays_s(config: TokenizationConfig) -> list[int]:
    """Return the delay before each retry."""
    return [config.retry_delay(attempt) for attempt in range(1, config.max_retry_attempts + 1)]


def _retries(config: TokenizationConfig) -> Iterator[Fault]:
    initial, longest = config.initial_retry_delay_secs, config.max_retry_delay_secs
    names = ("TOKENIZATION_INITIAL_RETRY_DELAY_SECS", "TOKENIZATION_MAX_RETRY_DELAY_SECS")
    if longest < initial:
        yield fault(
            "IncompatibleValues",
            names,
            f"{names[1]}={longest} is below {names[0]}={initial}; raise it to {initial} or more",
        )
        return
    total = sum(retry_delays_s(config))
    if total > _LONGEST_RETRIES_S:
        attempts = "TOKENIZATION_MAX_RETRY_ATTEMPTS"
        yield fault(
            "ExcessiveRetryTime",
            (*names, attempts, "TOKENIZATION_RETRY_BACKOFF_MULTIPLIER"),
            f"{attempts}={config.max_retry_attempts} retries take {total} s with these delays, "
            f"more than {_LONGEST_RETRIES_S}; allow fewer or lower {names[1]}",
        )


def _chain(chain: BlockchainSettings) -> Iterator[Fault]:
    for low, high in (
        ("max_tokens_per_transaction", "max_tokens_per_day"),
        ("priority_fee_floor_micro_lamports", "priority_fee_cap_micro_lamports"),
    ):
        smaller, larger = getattr(chain, low), getattr(chain, high)
        if smaller > larger:
            names = (chain.env_name(low), chain.env_name(high))
            yield fault(
                "IncompatibleValues",
                names,
                f"{names[1]}={larger} is below {names[0]}={smaller}; swap or change them",
            )
    if chain.mint_authority_key and chain.mint_authority_key == chain.fee_payer_key:
        yield fault(
            "IncompatibleValues",
            ("BLOCKCHAIN_MINT_AUTHORITY_KEY", "BLOCKCHAIN_FEE_PAYER_KEY"),
            f"BLOCKCHAIN_FEE_PAYER_KEY is {chain.fee_payer_key}, the mint authority's key; the "
            "key that may mint must hold no SOL, so make a second one",
        )


def _sealed(chain: BlockchainSettings) -> Iterator[Fault]:
    for field in sorted(chain.SIGNING_KEYS):
        if isinstance(getattr(chain, field), SealedKeyFile) and chain.key_password is None:
            name, password = chain.env_name(field), chain.env_name("key_password")
            yield fault(
                "MissingVariable",
                (name, password),
                f"{password} is not set, and {name} is sealed; set it to file:PATH or"
                " credential:NAME of the password",
            )


def _broker(cloud: CloudSettings) -> Iterator[Fault]:
    for one, other in (
        ("mqtt_username", "mqtt_password"),
        ("mqtt_cert_file", "mqtt_key_file"),
    ):
        given = [name for name in (one, other) if getattr(cloud, name) is not None]
        if len(given) == 1:
            names = (cloud.env_name(one), cloud.env_name(other))
            yield fault(
                "IncompatibleValues",
                names,
                f"{cloud.env_name(given[0])} is set alone; set both {names[0]} and {names[1]}",
            )


def _archive(cloud: CloudSettings) -> Iterator[Fault]:
    if cloud.archive_after_days is not None and cloud.archive_dir is None:
        names = ("GTX_CLOUD_ARCHIVE_AFTER_DAYS", "GTX_CLOUD_ARCHIVE_DIR")
        yield fault(
            "IncompatibleValues",
            names,
            f"{names[0]}={cloud.archive_after_days} is set alone; set {names[1]} too",
        )


_LINES = (
    ("cloud", "cloud_key", "file:/etc/gridtokenx/cloud.json"),
    ("blockchain", "mint_address", "the address `gtx-cloud mint-account create` prints"),
)
"""What it takes to accept signed lines, over MQTT or HTTP."""
_NEEDED = {
    "ingest": (("cloud", "mqtt_url", "mqtts://broker.example:8883"), *_LINES),
    "api": _LINES,
    "settle": (
        ("cloud", "solana_rpc_urls", "https://rpc.example"),
        ("blockchain", "mint_address", "the address `gtx-cloud mint-account create` prints"),
        ("blockchain", "genesis_hash", "what `solana genesis-hash` prints"),
        ("blockchain", "mint_authority_key", "file:/etc/gridtokenx/mint-authority.json"),
        ("blockchain", "fee_payer_key", "file:/etc/gridtokenx/fee-payer.json"),
        ("blockchain", "marker_secret", "file:/etc/gridtokenx/marker.secret"),
    ),
}


def _missing(groups: Groups) -> Iterator[Fault]:
    seen: set[str] = set()
    for role in groups.cloud.roles:
        for group_name, field, example in _NEEDED.get(role, ()):
            group = getattr(groups, group_name)
            name = group.env_name(field)
            if getattr(group, field) or name in seen:
                continue
            seen.add(name)
            yield fault(
                "MissingVariable",
                (name, "GTX_CLOUD_ROLES"),
                f"{name} is not set, and the role {role} needs it; set it to {example}",
            )


def _production(groups: Groups) -> Iterator[Fault]:
    cloud = groups.cloud
    if cloud.mqtt_url and cloud.mqtt_url.startswith("mqtt://"):
        yield _refused("GTX_CLOUD_MQTT_URL", cloud.mqtt_url, "use mqtts://")
    if not groups.websocket.auth_required:
        yield _refused("WEBSOCKET_AUTH_REQUIRED", "false", "leave it out")
    if "settle" in cloud.roles and len(cloud.solana_rpc_urls) == 1:
        yield _refused(
            "GTX_CLOUD_SOLANA_RPC_URLS", "one endpoint", "add a second one of another provider"
        )


def _refused(name: str, value: str, way_out: str) -> Fault:
    return fault(
        "IncompatibleValues",
        (name, "GTX_CLOUD_ENVIRONMENT"),
        f"{name}={value} is refused where GTX_CLOUD_ENVIRONMENT is production; {way_out}",
    )
