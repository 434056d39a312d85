"""What the cloud tells the world: five kinds of event, written to the outbox with their cause.

Wh are integers; base units are decimal text, because a u64 does not fit a browser's number.
"""

import json
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import Any, ClassVar

ADMIN_STREAM = "admin"


def user_stream(user_id: str) -> str:
    """Return the name of an owner's event stream."""
    return f"user:{user_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterReadingReceived:
    """A slot reading was stored (`status` accepted, late or held), or a sample came in.

    `kwh_amount` is the credit as decimal text with three places; `kind` is slot or sample.
    """

    type: ClassVar[str] = "MeterReadingReceived"
    kind: str
    reading_id: int | None
    user_id: str
    wallet_address: str
    meter_id: str
    status: str
    kwh_amount: str
    credit_wh: int
    import_wh: int | None
    export_wh: int | None
    reading_timestamp: str | None
    active_power_w: int | None = None
    voltage_mv: int | None = None
    current_ma: int | None = None
    frequency_mhz: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterReadingValidationFailed:
    """A reading is held, or a line was rejected; `error_reason` is for people."""

    type: ClassVar[str] = "MeterReadingValidationFailed"
    reading_id: int | None
    user_id: str | None
    wallet_address: str | None
    meter_id: str | None
    kwh_amount: str
    outcome: str
    error_code: str
    error_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MintedMeter:
    """One meter's share of a mint."""

    meter_id: str
    credit_wh: int
    readings: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensMinted:
    """An owner's part of a batch is finalized on chain."""

    type: ClassVar[str] = "TokensMinted"
    batch_id: int
    user_id: str
    wallet_address: str
    meters: tuple[MintedMeter, ...]
    kwh_amount: str
    tokens_minted: str
    decimals: int
    transaction_signature: str
    slot: int
    duration_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchMintingCompleted:
    """A whole batch is finalized on chain; for operators."""

    type: ClassVar[str] = "BatchMintingCompleted"
    batch_id: int
    total_readings: int
    successful_mints: int
    failed_mints: int
    recipients: int
    total_wh: int
    tokens_minted: str
    transaction_signature: str
    fee_lamports: int
    duration_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MintingFailed:
    """A credit could not be minted now; `next_retry_at` None = it waits for an operator."""

    type: ClassVar[str] = "MintingFailed"
    reading_id: int
    batch_id: int | None
    user_id: str
    wallet_address: str
    meter_id: str
    kwh_amount: str
    error_code: str
    error_reason: str
    retry_count: int
    next_retry_at: str | None


MarketEvent = (
    MeterReadingReceived
    | MeterReadingValidationFailed
    | TokensMinted
    | BatchMintingCompleted
    | MintingFailed
)

_BY_TYPE: dict[str, type[MarketEvent]] = {
    kind.type: kind
    for kind in (
        MeterReadingReceived,
        MeterReadingValidationFailed,
        TokensMinted,
        BatchMintingCompleted,
        MintingFailed,
    )
}

_FIELDS = {kind: tuple(field.name for field in fields(kind)) for kind in _BY_TYPE.values()}
_encode = json.JSONEncoder(separators=(",", ":"), default=asdict).encode

EVENT_TYPES = frozenset(_BY_TYPE)
"""Names of all event types."""


# A batch of readings names few moments, each many times.
@lru_cache(maxsize=1024)
def rfc3339(unix_ms: int) -> str:
    """Return a UTC time as RFC 3339 text with milliseconds and `Z`."""
    moment = datetime.fromtimestamp(unix_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def kwh_text(wh: int) -> str:
    """Return Wh as kWh with exactly three places, without a float on the way."""
    sign = "-" if wh < 0 else ""
    return f"{sign}{abs(wh) // 1000}.{abs(wh) % 1000:03d}"


def to_json(event: MarketEvent, event_id: str, at_ms: int) -> str:
    """Return the CloudEvents 1.0 object of *event* as compact JSON."""
    return with_id(without_id(event, at_ms), event_id)


def without_id(event: MarketEvent, at_ms: int) -> str:
    """Return what `with_id` completes: the same for every stream an event goes to."""
    data = "".join(
        [
            f',"{name}":{json_of(value)}'
            for name in _FIELDS[type(event)]
            if (value := getattr(event, name)) is not None
        ]
    )
    return body_of(event.type, getattr(event, "meter_id", None), data, at_ms)


def body_of(type_name: str, meter_id: str | None, data: str, at_ms: int) -> str:
    """Return the body of an event whose fields are JSON already, each behind a comma."""
    subject = "" if meter_id is None else f',"subject":{json_of(meter_id)}'
    return (
        f'{{"source":"/gridtokenx","type":"{type_name}","time":"{rfc3339(at_ms)}",'
        f'"datacontenttype":"application/json","data":{{"v":1{data}}}{subject}}}'
    )


def json_of(value: object) -> str:
    """Return JSON text; of texts and numbers at a third of what the encoder takes."""
    if type(value) is int:
        return str(value)
    return encode_basestring_ascii(value) if isinstance(value, str) else _encode(value)


def with_id(body: str, event_id: str) -> str:
    """Return the CloudEvents object of a body made by `without_id`."""
    return f'{{"specversion":"1.0","id":{encode_basestring_ascii(event_id)},{body[1:]}'


def from_json(text: str) -> MarketEvent:
    """Return the event of a CloudEvents object made by `to_json`.

    Raises:
        ValueError: Unknown type, or a field this version does not know.
    """
    value = json.loads(text)
    kind = _BY_TYPE.get(value.get("type"))
    if kind is None:
        raise ValueError(f"unknown event type {value.get('type')!r}")
    data: dict[str, Any] = {name: item for name, item in value["data"].items() if name != "v"}
    names = {f.name for f in fields(kind)}
    if unknown := set(data) - names:
        raise ValueError(f"{kind.type} has no field {', '.join(sorted(unknown))}")
    if "meters" in data:
        data["meters"] = tuple(MintedMeter(**entry) for entry in data["meters"])
    arguments: dict[str, Any] = {name: data.get(name) for name in names}
    return kind(**arguments)
