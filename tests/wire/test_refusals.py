"""What neither side believes although the signature is right: signed nonsense is nonsense."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gridtokenx_wire import base58, canonical
from gridtokenx_wire.encoding import MAX_LINES, join_lines, parse_line
from gridtokenx_wire.errors import MalformedLineError, UnsupportedVersionError
from gridtokenx_wire.receipt import decode_receipt
from gridtokenx_wire.signing import (
    RECEIPT_DOMAIN,
    RECORD_DOMAIN,
    seal,
    signer,
    split,
    verify_ed25519,
)
from gridtokenx_wire.state import decode_state

KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
GATEWAY_ID = base58.encode_key(PUBLIC)
RECEIPT: dict[str, Any] = {
    "v": 1,
    "gateway_id": GATEWAY_ID,
    "issued_ms": 1,
    "durable": {"HOUSE-17": {"00c0ffee00c0ffee": [[1, 4]]}},
    "rejected": [{"line": "0" * 32, "code": "UnknownMeter", "reason": "who is it?"}],
}


def refusal_of(receipt: dict[str, Any]) -> str:
    payload = seal(canonical.dump(receipt), RECEIPT_DOMAIN, signer(KEY))
    with pytest.raises(MalformedLineError) as refused:
        decode_receipt(payload, PUBLIC, verify_ed25519)
    return str(refused.value)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"gateway_id": "no key"}, "base58"),
        ({"gateway_id": 7}, "not a receipt"),
        ({"issued_ms": -1}, "'-1' is no whole number"),
        ({"issued_ms": "1"}, "'1' is no whole number"),
        ({"issued_ms": True}, "canonical|no whole number"),
        ({"durable": []}, "not a receipt"),
        ({"durable": {"HOUSE-17": {"00c0ffee00c0ffee": [[4, 1]]}}}, "runs backwards"),
        ({"durable": {"HOUSE-17": {"00c0ffee00c0ffee": [[1]]}}}, "not a receipt"),
        ({"durable": {"HOUSE-17": [1]}}, "not a receipt"),
        ({"rejected": [{"line": "short", "code": "x", "reason": "y"}]}, "line is no hash"),
        ({"rejected": [{"code": "x"}]}, "not a receipt"),
    ],
)
def test_a_receipt_that_says_what_cannot_be_deletes_nothing(
    changed: dict[str, Any], says: str
) -> None:
    assert any(part in refusal_of(RECEIPT | changed) for part in says.split("|"))


def test_a_receipt_of_another_version_is_told_apart_from_a_broken_one() -> None:
    payload = seal(canonical.dump(RECEIPT | {"v": 2}), RECEIPT_DOMAIN, signer(KEY))

    with pytest.raises(UnsupportedVersionError, match="receipt version 2"):
        decode_receipt(payload, PUBLIC, verify_ed25519)


@pytest.mark.parametrize(
    "changed",
    [
        {"v": 2},
        {"state": "asleep"},
        {"since_ms": "1"},
        {"mood": "good"},
    ],
)
def test_a_state_that_is_no_state_is_refused(changed: dict[str, Any]) -> None:
    state = {"v": 1, "state": "online", "boot_id": "b", "since_ms": 1, "software": "s"}

    with pytest.raises(MalformedLineError):
        decode_state(canonical.dump(state | changed))
    assert decode_state(canonical.dump(state)).since_ms == 1


@pytest.mark.parametrize("lines", [0, MAX_LINES + 1])
def test_a_message_has_a_line_and_not_too_many(lines: int) -> None:
    with pytest.raises(MalformedLineError, match=f"{lines} lines"):
        join_lines([b"line"] * lines)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"[1]", "not a JSON object"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":1.5}', "1.5"),
        (b'{"b":1,"a":1}', "not in canonical form"),
        (b'{"a":1,"a":1}', "not in canonical form"),
        (b'{"a": 1}', "not in canonical form"),
        (b'{"a":', "not JSON"),
        (b'{"a":"\xc3\xa9"}', "byte 6 is not ASCII"),
        (b'{"a":' + b"[" * 100_000, "not JSON"),
        (b'{"a":' + b"9" * 5_000 + b"}", "not JSON"),
    ],
)
def test_only_one_spelling_of_a_json_object_is_read(body: bytes, says: str) -> None:
    with pytest.raises(MalformedLineError, match=says):
        canonical.load(body)


@pytest.mark.parametrize(
    ("changed", "says"),
    [({"token": 7}, "token is no text"), ({"meter_id": "_gateway"}, "no energy registers")],
)
def test_a_slot_without_a_token_or_without_a_meter_is_refused(
    changed: dict[str, Any], says: str
) -> None:
    slot = {
        "v": 1,
        "kind": "slot",
        "meter_id": "HOUSE-17",
        "epoch": "0" * 16,
        "seq": 1,
        "boot_id": "0" * 32,
        "mono_ms": 1,
        "wall_ms": 1,
        "clock": 2,
        "interval_s": 900,
        "import_wh": 1,
        "export_wh": 1,
        "token": GATEWAY_ID,
        "prev": "0" * 32,
        "flags": 0,
    }
    good = seal(canonical.dump(slot), RECORD_DOMAIN, signer(KEY))
    bad = seal(canonical.dump(slot | changed), RECORD_DOMAIN, signer(KEY))

    assert parse_line(good).stamp.seq == 1
    with pytest.raises(MalformedLineError, match=says):
        parse_line(bad)


def test_half_a_character_is_refused_and_a_whole_one_in_two_halves_is_read() -> None:
    with pytest.raises(MalformedLineError, match="half a character"):
        canonical.load(rb'{"a":"\ud83d"}')

    assert canonical.load(rb'{"a":"\ud83d\ude00"}') == {"a": "\U0001f600"}


def test_a_signature_has_one_spelling() -> None:
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    tails = {
        bytes([last]): b'{"a":1,"sig":"' + b"A" * 85 + bytes([last]) + b'"}' for last in alphabet
    }

    found = {last: _refusal(text) for last, text in tails.items()}

    # 64 bytes end in the first two of a character's six bits.
    assert {last for last, why in found.items() if why is None} == {b"A", b"Q", b"g", b"w"}
    assert set(found.values()) == {None, "the signature is not in its shortest spelling"}


@pytest.mark.parametrize("odd", [b"+", b"/", b"=", b"\n", b" ", b"\x00", b"\xff"])
@pytest.mark.parametrize("place", [0, 40, 85])
def test_a_signature_of_other_characters_is_refused(odd: bytes, place: int) -> None:
    spelled = b"A" * place + odd + b"A" * (85 - place)

    assert _refusal(b'{"a":1,"sig":"' + spelled + b'"}') == "the signature is not base64url"


def _refusal(text: bytes) -> str | None:
    """Return why there is no signature at the end, None where there is one."""
    try:
        split(text)
    except MalformedLineError as exc:
        return str(exc)
    return None
