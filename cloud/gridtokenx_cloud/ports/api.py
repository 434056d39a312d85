"""What the HTTP API needs: who asks, and what the store can show."""

from dataclasses import dataclass
from typing import Literal, Protocol

from gridtokenx_cloud.ports.events import Principal


class Sessions(Protocol):
    """Tokens, browser sessions and tickets."""

    def authenticate(self, token: str) -> Principal | None:
        """Return whose API token this is; None for a revoked, expired or unknown one."""
        ...

    def open_session(self, token: str, address: str) -> tuple[str, Principal] | None:
        """Exchange an API token for a session; return the session's secret and who it is.

        Good or not, it is in the audit log; *address* says from where.
        """
        ...

    def session(self, session: str) -> Principal | None:
        """Return whose session this is; None for one that has ended."""
        ...

    def close_session(self, session: str) -> None:
        """Sign out."""
        ...

    def issue_ticket(self, principal: Principal) -> str:
        """Return a single-use ticket for the events server."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LastReading:
    """Newest accepted reading of a meter; times are RFC 3339 UTC."""

    reading_id: int
    reading_timestamp: str | None
    submitted_at: str
    import_wh: int
    export_wh: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterView:
    """A meter now.

    Attributes:
        power_w: Newest measured power, positive = import from the grid; None = not measured.
        import_today_wh: Register's rise since UTC midnight; None = no reading today.
        credited_wh: Export that counts, of all time: minted and waiting.
    """

    meter_id: str
    gateway_id: str
    user_id: str
    wallet: str
    rated_power_w: int
    power_w: int | None
    power_at: str | None
    import_today_wh: int | None
    export_today_wh: int | None
    credited_wh: int
    minted_wh: int
    waiting_wh: int
    last_reading: LastReading | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingView:
    """One stored reading."""

    reading_id: int
    meter_id: str
    epoch: str
    seq: int
    reading_timestamp: str | None
    submitted_at: str
    interval_s: int
    import_wh: int
    export_wh: int
    active_power_w: int | None
    credit_wh: int
    status: str
    reason: str | None
    batch_id: int | None
    minted: bool
    mint_tx_signature: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterShare:
    """What one meter gave to a mint."""

    meter_id: str
    credit_wh: int
    readings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MintView:
    """One owner's part of a batch; base units are text, as a u64 does not fit a number."""

    batch_id: int
    state: str
    user_id: str
    wallet: str
    credit_wh: int
    amount_base_units: str
    held_reason: str | None
    transaction_signature: str | None
    slot: int | None
    sealed_at: str
    final_at: str | None
    meters: tuple[MeterShare, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerSummary:
    """What one owner has, and what is on its way."""

    user_id: str
    wallet: str
    meters: int
    minted_wh: int
    minted_base_units: str
    waiting_wh: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerPoint:
    """Measured power at one moment, Unix milliseconds."""

    at_ms: int
    power_w: int


MintingState = Literal["pending", "processing", "minted", "failed", "held", "nothing_to_mint"]
Period = Literal["hour", "day", "month"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MintingStatus:
    """What has become of the energy of one reading.

    Attributes:
        error_code: Why it is held, or why its credit was refused.
        next_retry_at: None = no retry is due: all is well, or an operator has to act.
    """

    reading_id: int
    status: MintingState
    credit_wh: int
    batch_id: int | None
    batch_state: str | None
    transaction_signature: str | None
    error_code: str | None
    error_reason: str | None
    attempts: int | None
    next_retry_at: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """One owner's part of a batch."""

    user_id: str
    wallet: str
    credit_wh: int
    amount_base_units: str
    held_reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchView:
    """A batch as it stands on the chain, or on its way there; owners see their own part."""

    batch_id: int
    state: str
    readings: int
    total_wh: int
    total_base_units: str
    memo: str
    merkle_root: str
    transaction_signature: str | None
    slot: int | None
    fee_lamports: int | None
    sealed_at: str
    final_at: str | None
    recipients: tuple[Recipient, ...]


@dataclass(frozen=True, slots=True)
class Energy:
    """What a meter's registers rose in one period that begins at *start*, UTC."""

    start: str
    import_wh: int
    export_wh: int
    credit_wh: int
    readings: int


class Views(Protocol):
    """What may be looked at; *user_id* None = everybody's."""

    def meters(self, user_id: str | None) -> list[MeterView]:
        """Return the meters, by owner and id."""
        ...

    def power(self, meter_id: str, user_id: str | None, since_ms: int) -> list[PowerPoint] | None:
        """Return measured power since then, oldest first; None for a foreign meter."""
        ...

    def readings(
        self, meter_id: str, user_id: str | None, cursor: str | None, limit: int
    ) -> tuple[list[ReadingView], str | None] | None:
        """Return a page, newest first, and the next page's cursor; None for a foreign meter.

        Raises:
            ValidationError: The cursor is none of ours.
        """
        ...

    def reading(self, reading_id: int, user_id: str | None) -> ReadingView | None:
        """Return one reading; None for a foreign one."""
        ...

    def minting_status(self, reading_id: int, user_id: str | None) -> MintingStatus | None:
        """Return what has become of a reading's energy; None for a foreign one."""
        ...

    def batch(self, batch_id: int, user_id: str | None) -> BatchView | None:
        """Return one batch; None where nothing of it is the owner's."""
        ...

    def energy(
        self, meter_id: str, user_id: str | None, period: Period, since_ms: int, until_ms: int
    ) -> list[Energy] | None:
        """Return the energy of whole periods (UTC), oldest first; None for a foreign meter."""
        ...

    def mints(
        self, user_id: str | None, cursor: str | None, limit: int
    ) -> tuple[list[MintView], str | None]:
        """Return a page of mints, newest first, and the next page's cursor.

        Raises:
            ValidationError: The cursor is none of ours.
        """
        ...

    def summary(self, user_id: str | None) -> list[OwnerSummary]:
        """Return each owner's totals, by user id."""
        ...
