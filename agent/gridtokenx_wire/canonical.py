"""Canonical JSON: ASCII, no white space, sorted keys, integers and strings only."""

import json
from typing import Any

from gridtokenx_wire.errors import MalformedLineError

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode


def dump(value: dict[str, Any]) -> bytes:
    """Return the one canonical spelling of *value*."""
    return _encode(value).encode()


def _refuse_constant(name: str) -> Any:
    raise MalformedLineError(f"{name} is no number here; only integers are")


def _refuse_fraction(text: str) -> Any:
    raise MalformedLineError(f"{text[:40]} is no integer; fractions are not allowed")


def load(body: bytes) -> dict[str, Any]:
    """Parse *body* and refuse it unless it is its own canonical spelling.

    Raises:
        MalformedLineError: Not ASCII, not JSON, fractions, duplicate or unsorted keys, white space,
            half a character.
    """
    try:
        value = json.loads(
            body.decode("ascii"), parse_constant=_refuse_constant, parse_float=_refuse_fraction
        )
    except UnicodeDecodeError as exc:
        raise MalformedLineError(f"byte {exc.start} is not ASCII") from exc
    except (ValueError, RecursionError) as exc:
        raise MalformedLineError(f"not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise MalformedLineError("not a JSON object")
    if dump(value) != body:
        raise MalformedLineError("not in canonical form (sorted keys, no white space, no doubles)")
    if rb"\ud" in body:
        _refuse_half_characters(value)
    return value


def _refuse_half_characters(value: dict[str, Any]) -> None:
    r"""Refuse a text with half a surrogate pair, as in "\ud800": no database can store it."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as exc:
        raise MalformedLineError("half a character in a text") from exc
