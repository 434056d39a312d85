"""How one setting's text becomes a value: exactly, or not at all."""

import ipaddress
import re
from decimal import Decimal
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator

from gridtokenx_wire import base58
from gridtokenx_wire.errors import MalformedLineError

Role = Literal["ingest", "settle", "api", "events"]
ROLES: tuple[Role, ...] = ("ingest", "settle", "api", "events")


def _whole(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]+", value):
        raise ValueError("is no whole number in plain digits")
    return value


def _plain_decimal(value: object) -> object:
    if isinstance(value, str) and not re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value):
        raise ValueError("is no plain decimal number such as 12.5")
    return value


def _whole_wh(value: Decimal) -> Decimal:
    if value * 1000 % 1:
        raise ValueError("has a fraction of a Wh; three decimals at most")
    return value


def _address(text: str) -> str:
    host, port = split_bind(text)
    if not host or not 0 <= port <= 65535:
        raise ValueError("is no address such as 127.0.0.1:8080")
    return text


def _base58_key(text: str) -> str:
    try:
        base58.decode_key(text)
    except MalformedLineError as exc:
        raise ValueError("is no base58 text of 32 bytes") from exc
    return text


def _names(value: object) -> object:
    """Split a comma list; white space around a name does not matter."""
    if isinstance(value, str):
        return tuple(name for part in value.split(",") if (name := part.strip()))
    return value


def url_of(*schemes: str) -> AfterValidator:
    """Return a check that a text is a URL with a host and one of *schemes*."""

    def check(text: str) -> str:
        try:
            parts = urlsplit(text)
            good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        if not good:
            raise ValueError(f"is no {' or '.join(f'{scheme}://HOST' for scheme in schemes)} URL")
        return text

    return AfterValidator(check)


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or text != f"{parts.scheme}://{parts.netloc}":
        raise ValueError(f"{text!r} is no origin such as https://energy.example")
    return text


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as exc:
        raise ValueError(f"{text!r} is no network such as 10.0.0.0/8") from exc


def _store_url(text: str) -> str:
    if not re.fullmatch(r"sqlite:///.+|postgresql://[^/]*/[^/?]+(\?.+)?", text):
        raise ValueError(
            "is no sqlite:///PATH (relative), sqlite:////PATH (absolute) or"
            " postgresql://USER@HOST/NAME"
        )
    return text


def split_bind(text: str) -> tuple[str, int]:
    """Return (host, port) of `HOST:PORT`; port -1 when there is none."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port) if port.isdecimal() else -1


PlainInt = Annotated[int, BeforeValidator(_whole)]
"""A whole number in plain digits: no exponent, no underscore, no fraction."""
PlainDecimal = Annotated[Decimal, BeforeValidator(_plain_decimal)]
"""A decimal number in plain digits: no exponent, no NaN, no infinity."""
WholeWhDecimal = Annotated[PlainDecimal, AfterValidator(_whole_wh)]
"""kWh with at most three decimals."""
Bind = Annotated[str, AfterValidator(_address)]
"""`HOST:PORT` to listen on."""
Base58Key = Annotated[str, AfterValidator(_base58_key)]
"""32 bytes in base58: an account address or a genesis hash."""
MqttUrl = Annotated[str, url_of("mqtt", "mqtts")]
HttpUrl = Annotated[str, url_of("http", "https")]
WebSocketUrl = Annotated[str, url_of("ws", "wss")]
StoreUrl = Annotated[str, AfterValidator(_store_url)]
HttpUrls = Annotated[tuple[HttpUrl, ...], BeforeValidator(_names)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_names)]
Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], BeforeValidator(_names)]
Roles = Annotated[tuple[Role, ...], BeforeValidator(_names)]
