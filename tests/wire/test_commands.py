"""Commands and replies: frozen bytes, and nothing else is one."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_wire.command import (
    MAX_COMMAND_BYTES,
    Command,
    CommandName,
    decode_command,
    decode_reply,
    encode_command,
    encode_reply,
)
from gridtokenx_wire.errors import MalformedLineError, WireError
from gridtokenx_wire.signing import verify_ed25519

VECTORS: Any = json.loads((Path(__file__).parent / "vectors" / "commands.json").read_text())
CLOUD = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(VECTORS["cloud_seed"]))
CLOUD_KEY = CLOUD.public_key().public_bytes_raw()
GATEWAY = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(VECTORS["gateway_seed"]))
GATEWAY_ID: str = VECTORS["gateway_id"]


def named(vector: dict[str, str]) -> str:
    return vector["name"]


@pytest.mark.parametrize("vector", VECTORS["commands"], ids=named)
def test_a_frozen_command_reads_and_is_written_the_same_again(vector: dict[str, str]) -> None:
    payload = vector["payload"].encode()

    command = decode_command(payload, CLOUD_KEY, verify_ed25519)

    assert repr(command) == vector["command"]
    assert encode_command(command, CLOUD.sign) == payload


@pytest.mark.parametrize("vector", VECTORS["replies"], ids=named)
def test_a_frozen_reply_reads_and_is_written_the_same_again(vector: dict[str, str]) -> None:
    payload = vector["payload"].encode()

    reply = decode_reply(payload, GATEWAY_ID, verify_ed25519)

    assert repr(reply) == vector["reply"]
    assert encode_reply(reply, GATEWAY.sign) == payload


@pytest.mark.parametrize("vector", VECTORS["refused_commands"], ids=named)
def test_what_is_no_command_of_the_cloud_is_refused_by_name(vector: dict[str, str]) -> None:
    with pytest.raises(WireError) as refused:
        decode_command(vector["payload"].encode(), CLOUD_KEY, verify_ed25519)

    assert refused.value.code == vector["code"]


@pytest.mark.parametrize("vector", VECTORS["refused_replies"], ids=named)
def test_what_is_no_reply_of_the_gateway_is_refused_by_name(vector: dict[str, str]) -> None:
    with pytest.raises(WireError) as refused:
        decode_reply(vector["payload"].encode(), GATEWAY_ID, verify_ed25519)

    assert refused.value.code == vector["code"]


def test_no_command_writes_to_a_meter() -> None:
    assert set(CommandName) == {"read-now", "scan", "status", "set-config", "restart"}


def test_a_command_longer_than_the_bound_is_not_even_checked() -> None:
    command = decode_command(VECTORS["commands"][3]["payload"].encode(), CLOUD_KEY, verify_ed25519)
    long = Command(
        gateway_id=command.gateway_id,
        nonce=command.nonce,
        issued_ms=command.issued_ms,
        expires_ms=command.expires_ms,
        command=command.command,
        argument="x" * MAX_COMMAND_BYTES,
    )

    with pytest.raises(MalformedLineError, match="at most"):
        encode_command(long, CLOUD.sign)
    with pytest.raises(MalformedLineError, match="at most"):
        decode_command(b"x" * (MAX_COMMAND_BYTES + 1), CLOUD_KEY, verify_ed25519)


@given(
    vector=st.sampled_from(VECTORS["commands"]),
    at=st.integers(min_value=0, max_value=400),
    bits=st.integers(min_value=1, max_value=255),
)
def test_no_single_changed_byte_is_taken(vector: dict[str, str], at: int, bits: int) -> None:
    payload = bytearray(vector["payload"].encode())
    payload[at % len(payload)] ^= bits

    with pytest.raises(WireError):
        decode_command(bytes(payload), CLOUD_KEY, verify_ed25519)


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_without_a_crash(payload: bytes) -> None:
    with pytest.raises(WireError):
        decode_command(payload, CLOUD_KEY, verify_ed25519)
    with pytest.raises(WireError):
        decode_reply(payload, GATEWAY_ID, verify_ed25519)
