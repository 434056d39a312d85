"""Record <-> canonical line; any other byte string is refused."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

from gridtokenx_wire import base58, canonical
from gridtokenx_wire.errors import MalformedLineError, UnsupportedVersionError
from gridtokenx_wire.record import (
    GATEWAY_STREAM,
    WIRE_VERSION,
    ClockQuality,
    ClockRecord,
    EventRecord,
    LiveValues,
    Quality,
    Record,
    SampleRecord,
    SlotRecord,
    Stamp,
)
from gridtokenx_wire.signing import RECORD_DOMAIN, Sign, seal, split
from gridtokenx_wire.slot_line import read_slot

MAX_LINE_BYTES = 2048
MAX_LINES = 100
MAX_COUNT = 2**53 - 1
"""Largest integer every JSON reader keeps exactly; 9,007 TWh as Wh."""

METER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_EPOCH = re.compile(r"[0-9a-f]{16}\Z")
_HEX32 = re.compile(r"[0-9a-f]{32}\Z")
_EVENT = re.compile(r"[A-Z][A-Za-z0-9]{0,63}\Z")
_DETAIL = re.compile(r"[ -~]{0,200}\Z")

_STAMP_KEYS = Stamp._fields
_LIVE_KEYS = tuple(f.name for f in fields(LiveValues))
_ALWAYS = {"v", "kind", *_STAMP_KEYS}
_REQUIRED: dict[str, set[str]] = {
    "slot": {"interval_s", "import_wh", "export_wh", "token", "prev", "flags"},
    "sample": {"flags"},
    "event": {"event", "detail"},
    "clock": {"error_ms"},
}
_OPTIONAL: dict[str, set[str]] = {
    "slot": set(_LIVE_KEYS),
    "sample": set(_LIVE_KEYS),
    "event": set(),
    "clock": set(),
}


def encode(record: Record) -> bytes:
    """Return the canonical JSON object of *record*, not yet signed.

    Raises:
        MalformedLineError: A field is outside its range; nothing this contract refuses is sent.
    """
    stamp = record.stamp
    value: dict[str, Any] = {name: getattr(stamp, name) for name in _STAMP_KEYS}
    value |= {"v": WIRE_VERSION, "kind": record.kind, "clock": int(stamp.clock)}
    value |= {name: getattr(record, name) for name in _REQUIRED[record.kind]}
    if isinstance(record, SlotRecord | SampleRecord):
        value["flags"] = int(record.flags)
        live = {name: getattr(record.live, name) for name in _LIVE_KEYS}
        value |= {name: number for name, number in live.items() if number is not None}
    body = canonical.dump(value)
    _decode(body)
    return body


def encode_line(record: Record, sign: Sign) -> bytes:
    """Return the signed line of *record*."""
    return seal(encode(record), RECORD_DOMAIN, sign)


def parse_line(line: bytes) -> Record:
    """Return the record of a line whose signature the caller has checked.

    Raises:
        MalformedLineError: Any other byte string than the one canonical line of a record.
        UnsupportedVersionError: Canonical, but not of version 1.
    """
    if len(line) > MAX_LINE_BYTES:
        raise MalformedLineError(f"{len(line)} bytes; a line has at most {MAX_LINE_BYTES}")
    body, _ = split(line)
    return parse_body(body)


def parse_body(body: bytes) -> Record:
    """Return the record of a canonical JSON object whose signature the caller has cut off.

    Raises:
        MalformedLineError: Any other byte string than the one canonical spelling of a record.
        UnsupportedVersionError: Canonical, but not of version 1.
    """
    return read_slot(body) or _decode(body)


def line_hash(line: bytes) -> str:
    """Return the first 16 bytes of SHA-256 of a signed line, in hex: its name in `prev`."""
    return hashlib.sha256(line).hexdigest()[:32]


def join_lines(lines: Sequence[bytes]) -> bytes:
    """Return the payload of one `readings` message (1 to 100 lines)."""
    if not 1 <= len(lines) <= MAX_LINES:
        raise MalformedLineError(f"{len(lines)} lines; a message has 1 to {MAX_LINES}")
    return b"\n".join(lines)


def split_lines(payload: bytes) -> list[bytes]:
    """Return the lines of one `readings` message; one trailing newline is tolerated.

    Raises:
        MalformedLineError: Empty, or more than 100 lines.
    """
    lines = payload.removesuffix(b"\n").split(b"\n")
    if len(lines) > MAX_LINES or not payload.strip():
        raise MalformedLineError(f"a message has 1 to {MAX_LINES} lines")
    return lines


def _decode(body: bytes) -> Record:
    value = canonical.load(body)
    version = value.get("v")
    if type(version) is int and version != WIRE_VERSION:
        raise UnsupportedVersionError(f"version {version}; this program knows {WIRE_VERSION}")
    kind = value.get("kind")
    if type(version) is not int or not isinstance(kind, str) or kind not in _REQUIRED:
        raise MalformedLineError("v or kind is missing or unknown")
    _check_keys(kind, set(value))
    stamp = _stamp(value)
    if kind == "event":
        return EventRecord(
            stamp=stamp, event=_text(value, "event", _EVENT), detail=_text(value, "detail", _DETAIL)
        )
    if kind == "clock":
        return ClockRecord(stamp=stamp, error_ms=_number(value, "error_ms"))
    flags = _number(value, "flags", high=2**31 - 1)
    live = LiveValues(**{name: _signed(value, name) for name in _LIVE_KEYS if name in value})
    if kind == "sample":
        return SampleRecord(stamp=stamp, flags=Quality(flags), live=live)
    return _slot(value, stamp, Quality(flags), live)


def _slot(value: dict[str, Any], stamp: Stamp, flags: Quality, live: LiveValues) -> SlotRecord:
    if stamp.meter_id == GATEWAY_STREAM:
        raise MalformedLineError("the gateway itself has no energy registers")
    token = value["token"]
    if not isinstance(token, str):
        raise MalformedLineError("token is no text")
    base58.decode_key(token)
    return SlotRecord(
        stamp=stamp,
        interval_s=_number(value, "interval_s", low=1, high=86_400),
        import_wh=_number(value, "import_wh"),
        export_wh=_number(value, "export_wh"),
        token=token,
        prev=_text(value, "prev", _HEX32),
        flags=flags,
        live=live,
    )


def _stamp(value: dict[str, Any]) -> Stamp:
    meter_id = value["meter_id"]
    if meter_id != GATEWAY_STREAM:
        meter_id = _text(value, "meter_id", METER_ID)
    return Stamp(
        meter_id=meter_id,
        epoch=_text(value, "epoch", _EPOCH),
        seq=_number(value, "seq", low=1),
        boot_id=_text(value, "boot_id", _HEX32),
        mono_ms=_number(value, "mono_ms"),
        wall_ms=_number(value, "wall_ms"),
        clock=ClockQuality(_number(value, "clock", high=2)),
    )


def _check_keys(kind: str, keys: set[str]) -> None:
    required = _ALWAYS | _REQUIRED[kind]
    missing = required - keys
    unknown = keys - required - _OPTIONAL[kind]
    if missing or unknown:
        raise MalformedLineError(
            f"a {kind} record: missing {_names(missing)}, unknown {_names(unknown)}"
        )


def _names(keys: Iterable[str]) -> str:
    return ", ".join(sorted(keys)) or "nothing"


def _number(value: dict[str, Any], name: str, *, low: int = 0, high: int = MAX_COUNT) -> int:
    number = value[name]
    if type(number) is not int or not low <= number <= high:
        raise MalformedLineError(f"{name}={str(number)[:40]} is no integer from {low} to {high}")
    return number


def _signed(value: dict[str, Any], name: str) -> int:
    return _number(value, name, low=-MAX_COUNT)


def _text(value: dict[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    text = value[name]
    if not isinstance(text, str) or not pattern.match(text):
        raise MalformedLineError(f"{name}={str(text)[:80]!r} does not fit {pattern.pattern}")
    return text
