"""The tables of the configuration file; every key has a range."""

from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from gridtokenx_agent.validation import Thresholds
from gridtokenx_wire.base58 import decode_key
from gridtokenx_wire.encoding import METER_ID
from gridtokenx_wire.errors import MalformedLineError

ENV_PREFIX: Final = "GTX_AGENT_"
DAY_S: Final = 86_400
_Strict = ConfigDict(frozen=True, extra="forbid")


def _key(text: str) -> str:
    try:
        decode_key(text)
    except MalformedLineError as exc:
        raise ValueError(str(exc)) from exc
    return text


def _meter_id(text: str) -> str:
    if not METER_ID.match(text):
        raise ValueError("1 to 64 letters, digits, dots, dashes, underscores; the first no sign")
    return text


def _divides_the_day(seconds: int) -> int:
    if DAY_S % seconds:
        raise ValueError("must divide a day of 86400 s, so that slots fall on the same times")
    return seconds


def _broker_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        port = parts.port
        # What no name server can be asked for; told now, not at every attempt to connect.
        (parts.hostname or "").encode("idna")
    except ValueError as exc:
        raise ValueError(f"no URL: {exc}") from exc
    if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or port == 0:
        raise ValueError("must be mqtt://host:1883 or mqtts://host:8883")
    if parts.username or parts.password or parts.path not in ("", "/") or parts.query:
        raise ValueError("only host and port belong here; use mqtt.username, mqtt.password_file")
    return text


Key = Annotated[str, AfterValidator(_key)]


class GatewaySettings(BaseModel):
    """Attributes: *token* is the mint address the gateway is enrolled for."""

    model_config = _Strict

    key_file: Path
    token: Key


class CloudSettings(BaseModel):
    """Attributes: *public_key* checks receipts; without it nothing is ever deleted."""

    model_config = _Strict

    public_key: Key


class MqttSettings(BaseModel):
    """The broker.

    Attributes:
        username: The gateway id where only a password file is given.
        lines_per_s: Most lines that leave in a second, so that a backlog spares the link.
    """

    model_config = _Strict

    url: Annotated[str, AfterValidator(_broker_url)]
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    lines_per_s: Annotated[int, Field(ge=50, le=100_000)] = 1300


class BufferSettings(BaseModel):
    """Where records wait.

    Attributes:
        max_mb: Bound of the file.
        resend_after_s: A record the broker took, but no receipt names, goes again after this.
        group_s: Samples wait so long to share a commit; slots never wait.
        reserve_mb: A file beside it that is deleted when the disk is full; 0 = none.
    """

    model_config = _Strict

    path: Path
    max_mb: Annotated[int, Field(ge=4, le=65_536)] = 256
    resend_after_s: Annotated[int, Field(ge=1, le=21_600)] = 900
    group_s: Annotated[int, Field(ge=0, le=60)] = 5
    reserve_mb: Annotated[int, Field(ge=0, le=1024)] = 8


class MeterSettings(BaseModel):
    """One meter on a bus.

    Attributes:
        interval_s: Length of a slot.
        sample_s: Period of live values between slots; 0 = none.
        rated_power_w: Largest power it can see; with it impossible steps are refused.
        accept_disputed: Its counters were compared with its display: make slot records although
            the sources of its profile differ.
    """

    model_config = _Strict

    meter_id: Annotated[str, AfterValidator(_meter_id)]
    profile: str
    device_id: Annotated[int, Field(ge=0, le=255)]
    interval_s: Annotated[int, Field(ge=1, le=DAY_S), AfterValidator(_divides_the_day)] = 900
    sample_s: Annotated[int, Field(ge=0, le=DAY_S)] = 0
    rated_power_w: Annotated[int, Field(ge=1, le=10_000_000_000)] | None = None
    accept_disputed: bool = False


class BusSettings(BaseModel):
    """A serial port or TCP endpoint and its meters."""

    model_config = _Strict

    url: str
    meter: Annotated[tuple[MeterSettings, ...], Field(min_length=1)]


class ValidationSettings(BaseModel):
    """When a value is refused or marked; the names of the rules are in the documentation.

    Attributes:
        step_percent: Energy may grow by so much of the rated power times the time passed.
        zero_patience_s: So long a counter that fell to exactly zero counts as asleep, not reset.
        stuck_points: So many quantities with the same register words are one stuck answer.
        power_percent: Power may reach so much of the rated power.
        phase_percent: The sum of the phases may differ from the total power by so much.
        energy_percent: Power over time may differ from the counted energy by so much.
        energy_window_s: Over at least this time.
        voltage_min_v: Lowest usual voltage between phase and neutral.
        voltage_max_v: Highest; raise it for a meter behind voltage transformers.
        event_every: Of the refusals of one rule in a row, the first and every so many-th is told.
    """

    model_config = _Strict

    step_percent: Annotated[int, Field(ge=100, le=1000)] = 120
    zero_patience_s: Annotated[int, Field(ge=0, le=7 * DAY_S)] = DAY_S
    stuck_points: Annotated[int, Field(ge=3, le=20)] = 4
    power_percent: Annotated[int, Field(ge=100, le=1000)] = 200
    phase_percent: Annotated[int, Field(ge=1, le=100)] = 5
    energy_percent: Annotated[int, Field(ge=1, le=100)] = 20
    energy_window_s: Annotated[int, Field(ge=60, le=DAY_S)] = 900
    voltage_min_v: Annotated[int, Field(ge=0, le=1_000_000)] = 80
    voltage_max_v: Annotated[int, Field(ge=1, le=1_000_000)] = 300
    frequency_min_hz: Annotated[int, Field(ge=40, le=70)] = 45
    frequency_max_hz: Annotated[int, Field(ge=40, le=70)] = 65
    event_every: Annotated[int, Field(ge=2, le=1_000_000)] = 100

    def thresholds(self) -> Thresholds:
        """Return them in the units of the rules."""
        return Thresholds(
            step_percent=self.step_percent,
            zero_patience_ms=self.zero_patience_s * 1000,
            stuck_points=self.stuck_points,
            power_percent=self.power_percent,
            phase_percent=self.phase_percent,
            energy_percent=self.energy_percent,
            energy_window_ms=self.energy_window_s * 1000,
            voltage_mv=(self.voltage_min_v * 1000, self.voltage_max_v * 1000),
            frequency_mhz=(self.frequency_min_hz * 1000, self.frequency_max_hz * 1000),
            event_every=self.event_every,
        )


class LogSettings(BaseModel):
    """Attributes: *format* is text for people, json for machines."""

    model_config = _Strict

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


def _bind(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 1 <= int(port) <= 65_535:
        raise ValueError("must be an address and a port, such as 127.0.0.1:9101")
    return text


class MetricsSettings(BaseModel):
    """Attributes: *bind* is where Prometheus reads; None = nowhere."""

    model_config = _Strict

    bind: Annotated[str, AfterValidator(_bind)] | None = None


class HomeAssistantSettings(BaseModel):
    """Live values for a broker in the house; off without a URL.

    Attributes:
        prefix: Where Home Assistant looks for devices.
    """

    model_config = _Strict

    url: Annotated[str, AfterValidator(_broker_url)] | None = None
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "homeassistant"


class AgentSettings(BaseSettings):
    """Read once in `app`, then passed down as plain values."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", frozen=True, extra="forbid"
    )

    gateway: GatewaySettings
    cloud: CloudSettings
    mqtt: MqttSettings
    buffer: BufferSettings
    bus: Annotated[tuple[BusSettings, ...], Field(min_length=1)]
    validation: ValidationSettings = ValidationSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    home_assistant: HomeAssistantSettings = HomeAssistantSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the environment above the file's values, which come in as arguments."""
        return (env_settings, init_settings)
