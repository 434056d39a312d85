"""What the cloud may ask of a gateway, and what the gateway answers; both signed.

There is no command that writes to a meter, and none may be added: a gateway only reads.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, get_args

from gridtokenx_wire import base58, canonical
from gridtokenx_wire.encoding import MAX_COUNT
from gridtokenx_wire.errors import MalformedLineError, UnsupportedVersionError
from gridtokenx_wire.record import WIRE_VERSION
from gridtokenx_wire.signing import COMMAND_DOMAIN, REPLY_DOMAIN, Sign, Verify, open_sealed, seal

MAX_COMMAND_BYTES = 65_536
MAX_REPLY_BYTES = 131_072
MAX_VALID_MS = 3_600_000
"""Longest time between a command's issue and its end."""
MAX_DETAIL_CHARACTERS = 500
_MAX_DEPTH = 8

_NONCE = re.compile(r"[0-9a-f]{32}\Z")
_COMMAND_KEYS = {"v", "gateway_id", "nonce", "issued_ms", "expires_ms", "command", "argument"}
_REPLY_KEYS = {"v", "gateway_id", "nonce", "issued_ms", "outcome", "detail", "result"}

Outcome = Literal["done", "refused", "failed"]
"""done; refused = nothing was tried; failed = it was tried and did not come about."""


class CommandName(StrEnum):
    """Everything the cloud can ask."""

    READ_NOW = "read-now"
    """Read each meter once; nothing is recorded."""
    SCAN = "scan"
    """Look for meters on one bus; the argument is the bus URL of the configuration.

    After a space may stand device ids, `7` or `11-40`; without them 1 to 10 are asked.
    """
    STATUS = "status"
    SET_CONFIG = "set-config"
    """The argument is the whole configuration file."""
    RESTART = "restart"


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command for one gateway.

    Attributes:
        nonce: 32 hex digits that no other command ever has.
        issued_ms: Cloud's wall clock, Unix milliseconds; greater in each later command.
        expires_ms: From then on it is refused.
        argument: Text whose meaning the command's name gives; empty where there is none.
    """

    gateway_id: str
    nonce: str
    issued_ms: int
    expires_ms: int
    command: CommandName
    argument: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer to one command.

    Attributes:
        nonce: The command's.
        issued_ms: Gateway's wall clock, which may be wrong.
        detail: One sentence for people.
        result: Integers, texts, lists and objects of them.
    """

    gateway_id: str
    nonce: str
    issued_ms: int
    outcome: Outcome
    detail: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)


def encode_command(command: Command, sign: Sign) -> bytes:
    """Return the signed payload of a `commands` message.

    Raises:
        MalformedLineError: A field is outside its range, or the command is too long.
    """
    body = canonical.dump(
        {
            "v": WIRE_VERSION,
            "gateway_id": command.gateway_id,
            "nonce": command.nonce,
            "issued_ms": command.issued_ms,
            "expires_ms": command.expires_ms,
            "command": command.command.value,
            "argument": command.argument,
        }
    )
    _command(body)
    return _bounded(seal(body, COMMAND_DOMAIN, sign), MAX_COMMAND_BYTES)


def decode_command(payload: bytes, cloud_key: bytes, verify: Verify) -> Command:
    """Check the cloud's signature and return the command.

    Raises:
        BadSignatureError: Not signed by *cloud_key* as a command.
        MalformedLineError: Not a canonical command.
        UnsupportedVersionError: A command of another version.
    """
    _bounded(payload, MAX_COMMAND_BYTES)
    return _command(open_sealed(payload, COMMAND_DOMAIN, cloud_key, verify))


def encode_reply(reply: Reply, sign: Sign) -> bytes:
    """Return the signed payload of a `replies` message.

    Raises:
        MalformedLineError: The result holds something else than integers and texts, or too much.
    """
    body = canonical.dump(
        {
            "v": WIRE_VERSION,
            "gateway_id": reply.gateway_id,
            "nonce": reply.nonce,
            "issued_ms": reply.issued_ms,
            "outcome": reply.outcome,
            "detail": reply.detail[:MAX_DETAIL_CHARACTERS],
            "result": dict(reply.result),
        }
    )
    _reply(body)
    return _bounded(seal(body, REPLY_DOMAIN, sign), MAX_REPLY_BYTES)


def decode_reply(payload: bytes, gateway_id: str, verify: Verify) -> Reply:
    """Check that *gateway_id* signed the reply, and return it.

    Raises:
        BadSignatureError: Not signed by that gateway as a reply.
        MalformedLineError: Not a canonical reply of that gateway.
        UnsupportedVersionError: A reply of another version.
    """
    _bounded(payload, MAX_REPLY_BYTES)
    reply = _reply(open_sealed(payload, REPLY_DOMAIN, base58.decode_key(gateway_id), verify))
    if reply.gateway_id != gateway_id:
        raise MalformedLineError(f"the reply names gateway {reply.gateway_id}, not {gateway_id}")
    return reply


def _command(body: bytes) -> Command:
    value = _object(body, _COMMAND_KEYS, "command")
    command = Command(
        gateway_id=_gateway(value),
        nonce=_nonce(value),
        issued_ms=_moment(value, "issued_ms"),
        expires_ms=_moment(value, "expires_ms"),
        command=_name(value["command"]),
        argument=_text(value, "argument"),
    )
    if not 0 < command.expires_ms - command.issued_ms <= MAX_VALID_MS:
        raise MalformedLineError(
            f"a command is valid for 1 to {MAX_VALID_MS} ms, not from {command.issued_ms} to "
            f"{command.expires_ms}"
        )
    return command


def _reply(body: bytes) -> Reply:
    value = _object(body, _REPLY_KEYS, "reply")
    outcome = value["outcome"]
    if outcome not in get_args(Outcome):
        raise MalformedLineError(f"outcome {str(outcome)[:40]!r} is unknown")
    if not isinstance(value["result"], dict):
        raise MalformedLineError("result is no object")
    _check_plain(value["result"], 0)
    return Reply(
        gateway_id=_gateway(value),
        nonce=_nonce(value),
        issued_ms=_moment(value, "issued_ms"),
        outcome=outcome,
        detail=_text(value, "detail"),
        result=value["result"],
    )


def _object(body: bytes, keys: set[str], what: str) -> dict[str, Any]:
    value = canonical.load(body)
    version = value.get("v")
    if type(version) is int and version != WIRE_VERSION:
        raise UnsupportedVersionError(f"{what} version {version}")
    if type(version) is not int or set(value) != keys:
        raise MalformedLineError(f"not a {what}: its keys are not {', '.join(sorted(keys))}")
    return value


def _gateway(value: dict[str, Any]) -> str:
    gateway_id = _text(value, "gateway_id")
    base58.decode_key(gateway_id)
    return gateway_id


def _nonce(value: dict[str, Any]) -> str:
    nonce = _text(value, "nonce")
    if not _NONCE.match(nonce):
        raise MalformedLineError(f"nonce {nonce[:40]!r} is not 32 hex digits")
    return nonce


def _name(value: Any) -> CommandName:
    try:
        return CommandName(value)
    except ValueError as exc:
        known = ", ".join(CommandName)
        raise MalformedLineError(f"command {str(value)[:40]!r} is none of {known}") from exc


def _moment(value: dict[str, Any], name: str) -> int:
    number = value[name]
    if type(number) is not int or not 0 <= number <= MAX_COUNT:
        raise MalformedLineError(f"{name}={str(number)[:40]} is no time in milliseconds")
    return number


def _text(value: dict[str, Any], name: str) -> str:
    text = value[name]
    if not isinstance(text, str):
        raise MalformedLineError(f"{name} is no text")
    return text


def _check_plain(value: Any, depth: int) -> None:
    """Refuse what the contract's canonical form does not know: true, null, deep nests."""
    if depth > _MAX_DEPTH:
        raise MalformedLineError(f"result is nested deeper than {_MAX_DEPTH}")
    if isinstance(value, dict):
        for inner in value.values():
            _check_plain(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _check_plain(inner, depth + 1)
    elif type(value) not in (int, str):
        raise MalformedLineError(f"{str(value)[:40]!r} is neither integer nor text")


def _bounded(payload: bytes, limit: int) -> bytes:
    if len(payload) > limit:
        raise MalformedLineError(f"{len(payload)} bytes; at most {limit} are taken")
    return payload
