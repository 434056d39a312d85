"""Frozen bytes: a change that breaks one of these breaks every gateway in the field."""

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gridtokenx_wire import base58
from gridtokenx_wire.encoding import encode_line, line_hash, parse_line
from gridtokenx_wire.errors import WireError
from gridtokenx_wire.receipt import decode_receipt, encode_receipt
from gridtokenx_wire.record import Record
from gridtokenx_wire.signing import (
    RECORD_DOMAIN,
    open_sealed,
    signer,
    verify_ed25519,
)

VECTORS = Path(__file__).parent / "vectors"


def load(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


def key_of(vectors: Any) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(vectors["seed"]))


def read(line: bytes, public_key: bytes) -> Record:
    open_sealed(line, RECORD_DOMAIN, public_key, verify_ed25519)
    return parse_line(line)


LINES = load("lines.json")
REFUSED = load("refused.json")


@pytest.mark.parametrize("vector", LINES["lines"], ids=lambda v: v["name"])
def test_a_frozen_line_reads_as_its_record_and_is_written_the_same_again(
    vector: dict[str, str],
) -> None:
    key = key_of(LINES)
    line = vector["line"].encode()

    record = parse_line(line)

    assert repr(record) == vector["record"]
    assert encode_line(record, signer(key)) == line
    assert line_hash(line) == vector["hash"]


@pytest.mark.parametrize("vector", LINES["lines"], ids=lambda v: v["name"])
def test_a_frozen_line_carries_its_gateways_signature(vector: dict[str, str]) -> None:
    public_key = base58.decode_key(LINES["gateway_id"])

    body = open_sealed(vector["line"].encode(), RECORD_DOMAIN, public_key, verify_ed25519)

    assert body.endswith(b"}")


@pytest.mark.parametrize("vector", REFUSED["lines"], ids=lambda v: v["name"])
def test_a_line_outside_the_contract_is_refused_by_name(vector: dict[str, str]) -> None:
    public_key = base58.decode_key(REFUSED["gateway_id"])
    line = vector["line"].encode("latin-1")

    with pytest.raises(WireError) as refused:
        read(line, public_key)

    assert refused.value.code == vector["code"]


def test_a_frozen_receipt_reads_and_is_written_the_same_again() -> None:
    vectors = load("receipt.json")
    key = key_of(vectors)
    payload = vectors["payload"].encode()

    receipt = decode_receipt(payload, key.public_key().public_bytes_raw(), verify_ed25519)

    assert repr(receipt) == vectors["receipt"]
    assert encode_receipt(receipt, signer(key)) == payload
