"""The `BLOCKCHAIN_*` settings: which token, whose keys, how fast and how much."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from gridtokenx_cloud.settings.base import Group
from gridtokenx_cloud.settings.keys import KeyReference
from gridtokenx_cloud.settings.values import Base58Key, PlainInt

U64_MAX = 2**64 - 1


class BlockchainSettings(Group):
    """The token, its keys, and the limits of one transaction."""

    model_config = SettingsConfigDict(env_prefix="BLOCKCHAIN_")
    KEY_FILES: ClassVar[frozenset[str]] = frozenset({"key_password"})
    SIGNING_KEYS: ClassVar[frozenset[str]] = frozenset({"mint_authority_key", "fee_payer_key"})
    SECRETS: ClassVar[frozenset[str]] = frozenset({"marker_secret"})

    mint_address: Base58Key | None = Field(
        None, description="Address of the token; needed by ingest, settle and api"
    )
    genesis_hash: Base58Key | None = Field(
        None, description="Genesis hash of the cluster; needed by settle"
    )
    token_program: Literal["spl-token", "token-2022"] = Field(
        "spl-token", description="Program that owns the mint"
    )
    transaction_format: Literal["auto", "legacy", "v0", "v1"] = Field(
        "auto", description="Format of mint transactions; auto = the widest the cluster takes"
    )
    mint_authority_key: KeyReference | None = Field(
        None,
        description="Key that may mint: file:PATH (mode 0600), enc:PATH, credential:NAME or"
        " keychain:SERVICE?...; needed by settle",
    )
    fee_payer_key: KeyReference | None = Field(
        None, description="Key that pays fees and rent, given in the same ways; needed by settle"
    )
    key_password: Path | None = Field(
        None, description="File with the password of enc: keys, mode 0600"
    )
    signer_timeout_secs: PlainInt = Field(
        10, ge=1, le=60, description="Patience with a service that signs, s"
    )
    marker_secret: SecretStr | None = Field(
        None,
        min_length=32,
        description="At least 32 bytes, never changed while markers stand; needed by settle",
    )
    max_batch_size: PlainInt = Field(60, ge=1, le=64, description="Recipients in one transaction")
    concurrent_batches: PlainInt = Field(5, ge=1, le=50, description="Batches in flight")
    max_tokens_per_transaction: PlainInt = Field(
        10**13, ge=1, le=U64_MAX, description="Signer's cap for one transaction, base units"
    )
    max_tokens_per_day: PlainInt = Field(
        10**15, ge=1, le=U64_MAX, description="Signer's cap for one day, base units"
    )
    priority_fee_floor_micro_lamports: PlainInt = Field(
        1_000, ge=0, le=10**9, description="Lowest price of a compute unit, micro-lamports"
    )
    priority_fee_cap_micro_lamports: PlainInt = Field(
        1_000_000, ge=0, le=10**9, description="Highest price of a compute unit, micro-lamports"
    )
    marker_retention_days: PlainInt = Field(
        30,
        ge=1,
        le=3650,
        description="Markers stand at least so long; never less than backups are kept, days",
    )
    payer_low_transactions: PlainInt = Field(
        100, ge=1, le=10**6, description="Report a fee payer that pays for fewer mints than this"
    )
    rpc_timeout_secs: PlainInt = Field(10, ge=1, le=60, description="Patience with one call, s")
    audit_interval_secs: PlainInt = Field(
        3600, ge=60, le=86_400, description="Pause between two audits against the chain, s"
    )
