"""Protocol `gridtokenx.v1` between browser and events server: messages, filter, close codes.

One JSON object per text frame. Pure: bytes in, values out, and back.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Final

from gridtokenx_cloud.events import EVENT_TYPES, BatchMintingCompleted, MarketEvent, TokensMinted

SUBPROTOCOL: Final = "gridtokenx.v1"
MAX_MESSAGE_BYTES: Final = 16_384
STREAM_LABELS: Final = ("me", "admin", "public")
_MAX_STREAMS = 8
_MAX_TYPES = 8
_MAX_METERS = 64
_MAX_TEXT = 200
_MAX_INTEGER = 2**53


class CloseCode(IntEnum):
    """Why a connection ends; 40xx: stay away, 41xx: back off, 42xx: come back and resume."""

    BUG = 1011
    RESTART = 1012
    BAD_MESSAGE = 4001
    FORBIDDEN = 4003
    INVALID_TICKET = 4004
    CONNECT_TIMEOUT = 4008
    TOO_MANY_CONNECTIONS = 4009
    RATE_LIMITED = 4101
    OVERLOADED = 4102
    SESSION_EXPIRED = 4201
    SLOW = 4202


class ProtocolFault(Exception):  # noqa: N818 - a fault of the peer, not of this program
    """The peer broke the protocol: it is told `code`, then closed with `close_code`."""

    def __init__(self, close_code: CloseCode, code: str, detail: str) -> None:
        super().__init__(detail)
        self.close_code = close_code
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSubscription:
    """What a connection wants of what it may see; None = everything.

    Attributes:
        event_types: Names of event types.
        meters: Meter ids; an event about no meter at all is then left out.
        min_amount_wh: Smallest energy an event must speak of.
    """

    event_types: frozenset[str] | None = None
    meters: frozenset[str] | None = None
    min_amount_wh: int | None = None

    def matches(self, event: MarketEvent) -> bool:
        """Return whether type, meter and amount all fit."""
        if self.event_types is not None and event.type not in self.event_types:
            return False
        if self.meters is not None and self.meters.isdisjoint(_meters_of(event)):
            return False
        return self.min_amount_wh is None or _amount_wh(event) >= self.min_amount_wh


EVERYTHING: Final = EventSubscription()


def _meters_of(event: MarketEvent) -> tuple[str, ...]:
    if isinstance(event, TokensMinted):
        return tuple(share.meter_id for share in event.meters)
    if isinstance(event, BatchMintingCompleted) or event.meter_id is None:
        return ()
    return (event.meter_id,)


def _amount_wh(event: MarketEvent) -> int:
    if isinstance(event, BatchMintingCompleted):
        return event.total_wh
    # kWh with exactly three places: without the point it counts Wh.
    return int(event.kwh_amount.replace(".", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumePoint:
    """A stream the client wants, and the last offset it has seen; no epoch = from now on."""

    stream: str
    epoch: str | None = None
    offset: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """First message of a connection; no streams = all that the ticket allows."""

    ticket: str | None
    streams: tuple[ResumePoint, ...] = ()
    subscription: EventSubscription = EVERYTHING


@dataclass(frozen=True, slots=True)
class SetFilter:
    """Replaces the filter of a running connection."""

    subscription: EventSubscription


@dataclass(frozen=True, slots=True)
class Refresh:
    """A new ticket of the same user, before the session runs out."""

    ticket: str


ClientMessage = Connect | SetFilter | Refresh


def parse_message(text: str | bytes) -> ClientMessage:
    """Return the message of one frame.

    Raises:
        ProtocolFault: Not one JSON object of this protocol; unknown keys are refused too, as a
            filter that is silently ignored shows its sender what it asked not to see.
    """
    if isinstance(text, bytes):
        raise _bad("send text frames")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise _bad("the message is not JSON") from exc
    if not isinstance(value, dict):
        raise _bad("the message is not a JSON object")
    match value.get("op"):
        case "connect":
            return _connect(value)
        case "filter":
            body = {name: item for name, item in value.items() if name not in ("op", "id")}
            return SetFilter(parse_filter(body))
        case "refresh":
            _only(value, {"op", "id", "ticket"})
            return Refresh(_text(value.get("ticket"), "ticket"))
        case _:
            raise _bad("op must be connect, filter or refresh")


def _connect(value: Mapping[str, Any]) -> Connect:
    _only(value, {"op", "id", "ticket", "streams", "filter"})
    streams = value.get("streams", [])
    if not isinstance(streams, list) or len(streams) > _MAX_STREAMS:
        raise _bad(f"streams must be a list of at most {_MAX_STREAMS}")
    points = tuple(_resume_point(entry) for entry in streams)
    if len({point.stream for point in points}) < len(points):
        raise _bad("a stream is named once")
    ticket = value.get("ticket")
    return Connect(
        ticket=None if ticket is None else _text(ticket, "ticket"),
        streams=points,
        subscription=parse_filter(value.get("filter", {})),
    )


def _resume_point(entry: Any) -> ResumePoint:
    if not isinstance(entry, dict):
        raise _bad('a stream is an object such as {"s": "me"}')
    _only(entry, {"s", "epoch", "o"})
    if entry.get("s") not in STREAM_LABELS:
        raise _bad(f"s must be one of {', '.join(STREAM_LABELS)}")
    if ("epoch" in entry) != ("o" in entry):
        raise _bad("epoch and o come together")
    if "o" not in entry:
        return ResumePoint(stream=entry["s"])
    return ResumePoint(
        stream=entry["s"],
        epoch=_text(entry["epoch"], "epoch"),
        offset=_whole(entry["o"], "o"),
    )


def parse_filter(value: Any) -> EventSubscription:
    """Return the subscription of `{"types": [..], "meters": [..], "min_amount_wh": n}`.

    Raises:
        ProtocolFault: Unknown key, unknown type, or a list beyond its limit.
    """
    if not isinstance(value, dict):
        raise _bad_filter("a filter is an object")
    if unknown := set(value) - {"types", "meters", "min_amount_wh"}:
        raise _bad_filter(f"unknown key {sorted(unknown)[0][:40]!r}")
    subscription = EVERYTHING
    if "types" in value:
        types = _names(value["types"], "types", _MAX_TYPES)
        if strange := types - EVENT_TYPES:
            raise _bad_filter(f"unknown event type {sorted(strange)[0][:40]!r}")
        subscription = replace(subscription, event_types=types)
    if "meters" in value:
        meters = _names(value["meters"], "meters", _MAX_METERS)
        subscription = replace(subscription, meters=meters)
    if "min_amount_wh" in value:
        amount = _whole(value["min_amount_wh"], "min_amount_wh")
        subscription = replace(subscription, min_amount_wh=amount)
    return subscription


def _names(value: Any, name: str, limit: int) -> frozenset[str]:
    if not isinstance(value, list) or not 0 < len(value) <= limit:
        raise _bad_filter(f"{name} must be a list of 1 to {limit} names")
    return frozenset(_text(entry, name) for entry in value)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT:
        raise _bad(f"{name} must be a text of 1 to {_MAX_TEXT} characters")
    return value


def _whole(value: Any, name: str) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_INTEGER:
        raise _bad(f"{name} must be a whole number, not negative")
    return value


def _only(value: Mapping[str, Any], known: set[str]) -> None:
    if unknown := set(value) - known:
        raise _bad(f"unknown key {sorted(unknown)[0][:40]!r}")


def _bad(detail: str) -> ProtocolFault:
    return ProtocolFault(CloseCode.BAD_MESSAGE, "bad_message", detail)


def _bad_filter(detail: str) -> ProtocolFault:
    return ProtocolFault(CloseCode.BAD_MESSAGE, "bad_filter", detail)


def dump(value: Mapping[str, Any]) -> str:
    """Return one frame's compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True)


def event_frame(stream: str, offset: int, previous: int, body: str) -> str:
    """Return the frame of one event; *body* is its CloudEvents JSON, already encoded."""
    return f'{{"op":"ev","s":"{stream}","o":{offset},"p":{previous},"ev":{body}}}'


def sample_frame(stream: str, body: str) -> str:
    """Return the frame of a live value: no offset, as it is never replayed."""
    return f'{{"op":"ev","s":"{stream}","ev":{body}}}'
