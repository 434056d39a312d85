"""The `GTX_CLOUD_*` settings: the program itself, its store, broker, ports and logs."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from gridtokenx_cloud.settings.base import Group
from gridtokenx_cloud.settings.values import (
    ROLES,
    Bind,
    HttpUrls,
    MqttUrl,
    Networks,
    Origins,
    PlainInt,
    Roles,
    StoreUrl,
)


class CloudSettings(Group):
    """One process of the cloud."""

    model_config = SettingsConfigDict(env_prefix="GTX_CLOUD_")
    KEY_FILES: ClassVar[frozenset[str]] = frozenset({"cloud_key"})
    SECRETS: ClassVar[frozenset[str]] = frozenset({"mqtt_password"})

    environment: Literal["development", "staging", "production"] = Field(
        "production", description="Production refuses plain secrets and open doors"
    )
    roles: Roles = Field(ROLES, min_length=1, description="Services of this process")
    database_url: StoreUrl = Field(
        "sqlite:////var/lib/gridtokenx/cloud.db",
        description="The store: sqlite:///PATH or postgresql://USER@HOST/NAME",
    )
    database_pool_size: PlainInt = Field(
        10,
        ge=1,
        le=100,
        description="Requests of the API that use the store at once, each over its connection",
    )
    mqtt_url: MqttUrl | None = Field(None, description="The broker; needed by ingest")
    mqtt_username: str | None = Field(None, min_length=1, description="User at the broker")
    mqtt_password: SecretStr | None = Field(None, min_length=1, description="Its password")
    mqtt_ca_file: Path | None = Field(None, description="Authority of the broker's certificate")
    mqtt_cert_file: Path | None = Field(None, description="Client certificate for the broker")
    mqtt_key_file: Path | None = Field(None, description="Key of the client certificate")
    cloud_key: Path | None = Field(
        None,
        description="Key that signs receipts and commands, mode 0600; needed by ingest and api",
    )
    solana_rpc_urls: HttpUrls = Field(
        (), description="RPC endpoints, comma list, best first; needed by settle"
    )
    http_bind: Bind = Field("127.0.0.1:8080", description="Address of the HTTP API and the page")
    metrics_bind: Bind = Field("127.0.0.1:9090", description="Address of /metrics")
    allowed_origins: Origins = Field(
        (), description="Exact origins of our pages, comma list; by default where they are served"
    )
    trusted_proxies: Networks = Field(
        ("127.0.0.1/32", "::1/128"),
        description="Proxies whose X-Forwarded-For names the client, comma list of networks",
    )
    api_rate_limit: PlainInt = Field(
        1000, ge=1, le=1_000_000, description="Requests a minute with one API token"
    )
    session_ttl_secs: PlainInt = Field(
        3600, ge=300, le=86_400, description="Life of a browser session, s"
    )
    ingest_lines_per_second: PlainInt = Field(
        1_500, ge=1, le=100_000, description="Signed lines that a gateway may send, per s"
    )
    ingest_lines_burst: PlainInt = Field(
        10_000,
        ge=100,
        le=1_000_000,
        description="Lines a gateway may send at once; a week of ten meters has 6720",
    )
    shutdown_timeout_secs: PlainInt = Field(
        30, ge=1, le=300, description="Patience with a graceful shutdown, s"
    )
    sample_retention_days: PlainInt = Field(
        30, ge=1, le=3650, description="Age at which live samples are deleted, days"
    )
    archive_dir: Path | None = Field(
        None, description="Folder of archived readings; proofs of old readings read from there"
    )
    archive_after_days: PlainInt | None = Field(
        None,
        ge=31,
        le=36_500,
        description="Age at which settled readings move to the archive, days; not set: never",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe event written"
    )
    log_format: Literal["json", "text"] = Field("json", description="Log lines for whom")
