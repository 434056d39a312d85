"""A gateway's enrolment claim: one signed line."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_wire import canonical
from gridtokenx_wire.claim import CLAIM_DOMAIN, Claim, ClaimedMeter, decode_claim, encode_claim
from gridtokenx_wire.errors import BadSignatureError, UnsupportedVersionError, WireError
from gridtokenx_wire.signing import RECORD_DOMAIN, seal, verify_ed25519
from tests.support import build

CLAIM = Claim(
    gateway_id=build.SIGNER.gateway_id,
    token=build.TOKEN,
    meters=(
        ClaimedMeter(
            meter_id="HOUSE-17", profile="eastron-sdm630", resolution_wh=1, rated_power_w=11_000
        ),
        ClaimedMeter(meter_id="HOUSE-18", profile="abb-b23", resolution_wh=10),
    ),
)
LINE = encode_claim(CLAIM, build.SIGNER.sign)


def sealed(**changes: Any) -> bytes:
    value = {
        "v": 1,
        "kind": "claim",
        "gateway_id": build.SIGNER.gateway_id,
        "token": build.TOKEN,
        "meters": [{"meter_id": "M", "profile": "p", "resolution_wh": 1}],
    } | changes
    return seal(canonical.dump(value), CLAIM_DOMAIN, build.SIGNER.sign)


def test_a_claim_comes_back_as_it_was_written() -> None:
    assert decode_claim(LINE, verify_ed25519) == CLAIM


def test_a_claim_is_one_line_and_may_be_pasted_with_white_space_around() -> None:
    assert b"\n" not in LINE
    assert decode_claim(b"  " + LINE + b"\r\n", verify_ed25519) == CLAIM


def test_a_claim_for_the_key_of_somebody_else_is_refused() -> None:
    forged = encode_claim(replace(CLAIM, gateway_id=build.CLOUD_KEY_TEXT), build.SIGNER.sign)

    with pytest.raises(BadSignatureError):
        decode_claim(forged, verify_ed25519)


def test_a_changed_meter_breaks_the_signature() -> None:
    with pytest.raises(BadSignatureError):
        decode_claim(LINE.replace(b"11000", b"99000"), verify_ed25519)


def test_a_signature_over_a_record_is_none_over_a_claim() -> None:
    body = LINE[: LINE.index(b',"sig"')] + b"}"

    with pytest.raises(BadSignatureError):
        decode_claim(seal(body, RECORD_DOMAIN, build.SIGNER.sign), verify_ed25519)


def test_a_claim_of_another_version_is_told_apart() -> None:
    with pytest.raises(UnsupportedVersionError):
        decode_claim(sealed(v=2), verify_ed25519)


@pytest.mark.parametrize(
    "changes",
    [
        {"v": True},
        {"kind": "slot"},
        {"extra": 1},
        {"gateway_id": 5},
        {"token": "abc"},
        {"meters": []},
        {"meters": {}},
        {"meters": [5]},
        {"meters": [{"meter_id": "M", "profile": "p"}]},
        {"meters": [{"meter_id": "a b", "profile": "p", "resolution_wh": 1}]},
        {"meters": [{"meter_id": "M", "profile": "", "resolution_wh": 1}]},
        {"meters": [{"meter_id": "M", "profile": "p", "resolution_wh": 0}]},
        {"meters": [{"meter_id": "M", "profile": "p", "resolution_wh": True}]},
        {"meters": [{"meter_id": "M", "profile": "p", "resolution_wh": 1, "rated_power_w": -1}]},
        {"meters": [{"meter_id": "M", "profile": "p", "resolution_wh": 1}] * 2},
    ],
)
def test_what_is_no_claim_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(WireError):
        decode_claim(sealed(**changes), verify_ed25519)


def test_a_claim_too_long_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(WireError, match="at most"):
        decode_claim(b"x" * 70_000, verify_ed25519)


def test_a_field_outside_its_range_is_never_signed() -> None:
    with pytest.raises(WireError):
        encode_claim(replace(CLAIM, meters=()), build.SIGNER.sign)


@given(st.integers(0, len(LINE) - 1), st.binary(max_size=3))
def test_no_change_of_bytes_makes_another_claim(at: int, new: bytes) -> None:
    changed = LINE[:at] + new + LINE[at + 1 :]

    try:
        found = decode_claim(changed, verify_ed25519)
    except WireError:
        return

    assert found == CLAIM
