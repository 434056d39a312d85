"""The `TOKENIZATION_*` settings: what a reading is worth, and when it is minted."""

from decimal import Decimal
from typing import ClassVar, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from gridtokenx_cloud.settings.base import Group
from gridtokenx_cloud.settings.values import PlainDecimal, PlainInt, WholeWhDecimal
from gridtokenx_cloud.tokenization import RetryPolicy, retry_delay_s
from gridtokenx_cloud.verify import ReadingRules


class TokenizationConfig(Group):
    """From credited Wh to base units, and the pace of minting."""

    model_config = SettingsConfigDict(env_prefix="TOKENIZATION_")
    FIXED: ClassVar[frozenset[str]] = frozenset({"kwh_to_token_ratio", "decimals"})
    """Fields that the store and the chain are tied to; the others may change while running."""

    kwh_to_token_ratio: PlainDecimal = Field(
        Decimal(1),
        gt=0,
        le=1000,
        description="Tokens for one kWh; fixed in the store at the first start",
    )
    decimals: PlainInt = Field(9, ge=0, le=9, description="Decimals of the token; the mint's own")
    max_reading_kwh: WholeWhDecimal = Field(
        Decimal(100), gt=0, le=1_000_000, description="Most energy credited for one slot, kWh"
    )
    reading_max_age_days: PlainInt = Field(
        7, ge=1, le=365, description="Older readings, by their own time, are held"
    )
    spike_action: Literal["hold", "remark"] = Field(
        "remark", description="What becomes of more energy than the measured power explains"
    )
    spike_percent: PlainInt = Field(
        280, ge=100, le=10_000, description="Most energy, in % of what the measured power gives"
    )
    spike_rated_percent: PlainInt = Field(
        25, ge=0, le=100, description="A spike is beyond that by this % of a slot at rated power"
    )
    stuck_action: Literal["hold", "remark"] = Field(
        "hold", description="What becomes of a register that stands still under power"
    )
    stuck_wh: PlainInt = Field(
        100, ge=1, le=1_000_000, description="Measured power of so much must move a register, Wh"
    )
    chain_gap_action: Literal["hold", "remark"] = Field(
        "remark", description="What becomes of a reading whose predecessor is missing"
    )
    chain_gap_wait_secs: PlainInt = Field(
        86_400, ge=60, le=2_592_000, description="A missing line holds others for so long, s"
    )
    phase_sum_action: Literal["hold", "remark"] = Field(
        "remark", description="What becomes of phases that don't add up, as the gateway finds"
    )
    auto_mint_enabled: bool = Field(
        True, description="Seal new batches; sealed ones are brought to their end in any case"
    )
    auto_mint_percentage: PlainInt = Field(
        100, ge=0, le=100, description="Share of owners minted for, by a stable hash"
    )
    auto_trigger_on_submit: bool = Field(
        False, description="A committed credit wakes the minting loop at once"
    )
    polling_interval_secs: PlainInt = Field(
        60, ge=10, le=3600, description="Pause between two passes of the minting loop, s"
    )
    batch_size: PlainInt = Field(50, ge=1, le=1000, description="Readings fetched in one pass")
    max_transactions_per_batch: PlainInt = Field(
        20, ge=1, le=100, description="Transactions sealed in one pass"
    )
    mint_threshold: WholeWhDecimal = Field(
        Decimal(0), ge=0, le=1000, description="Less than this per wallet waits up to a day, kWh"
    )
    max_retry_attempts: PlainInt = Field(
        3, ge=0, le=10, description="Retries of a refused reading before an operator is needed"
    )
    initial_retry_delay_secs: PlainInt = Field(
        300, ge=1, le=86_400, description="Delay before the first retry, s"
    )
    retry_backoff_multiplier: PlainDecimal = Field(
        Decimal(2), ge=1, le=10, description="Growth of the delay from retry to retry"
    )
    max_retry_delay_secs: PlainInt = Field(
        3600, ge=1, le=86_400, description="Longest delay before a retry, s"
    )
    transaction_timeout_secs: PlainInt = Field(
        60, ge=10, le=600, description="A transaction in flight for longer is reported as slow, s"
    )

    @property
    def reading_rules(self) -> ReadingRules:
        """The limits of a reading."""
        return ReadingRules(
            max_reading_wh=int(self.max_reading_kwh * 1000),
            reading_max_age_days=self.reading_max_age_days,
            spike_holds=self.spike_action == "hold",
            spike_percent=self.spike_percent,
            spike_rated_percent=self.spike_rated_percent,
            stuck_holds=self.stuck_action == "hold",
            stuck_wh=self.stuck_wh,
            chain_gap_holds=self.chain_gap_action == "hold",
            chain_gap_wait_s=self.chain_gap_wait_secs,
            phase_sum_holds=self.phase_sum_action == "hold",
        )

    @property
    def retry_policy(self) -> RetryPolicy:
        """How long a refused credit waits, and how often it is tried again."""
        return RetryPolicy(
            initial_s=self.initial_retry_delay_secs,
            multiplier=self.retry_backoff_multiplier,
            max_s=self.max_retry_delay_secs,
            max_attempts=self.max_retry_attempts,
        )

    def retry_delay(self, attempt: int) -> int:
        """Return the wait in seconds before retry number *attempt* (1, 2, 3 ...)."""
        return retry_delay_s(attempt, self.retry_policy)
