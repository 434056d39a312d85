"""What a gateway says about itself when it asks to be enrolled, signed with its own key.

The signature proves that whoever wrote the claim holds the key whose public half is the gateway
id. It proves nothing about the meters: whoever accepts the claim decides who owns them.
"""

from dataclasses import dataclass
from typing import Any

from gridtokenx_wire import base58, canonical
from gridtokenx_wire.encoding import METER_ID
from gridtokenx_wire.errors import MalformedLineError, UnsupportedVersionError
from gridtokenx_wire.record import WIRE_VERSION
from gridtokenx_wire.signing import Sign, Verify, open_sealed, seal, split

CLAIM_DOMAIN = b"gridtokenx/v1/claim\n"
MAX_CLAIM_BYTES = 65_536
MAX_METERS = 500
MAX_PROFILE_CHARACTERS = 200
_MAX_RESOLUTION_WH = 1_000_000
_MAX_RATED_POWER_W = 10_000_000_000
_KEYS = {"v", "kind", "gateway_id", "token", "meters"}
_METER_KEYS = {"meter_id", "profile", "resolution_wh"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedMeter:
    """One meter the gateway reads.

    Attributes:
        profile: Name of its profile, for people.
        resolution_wh: Smallest step of its counters.
        rated_power_w: Largest power it can see; None when nobody said.
    """

    meter_id: str
    profile: str
    resolution_wh: int
    rated_power_w: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A gateway, the token its readings count for, and its meters."""

    gateway_id: str
    token: str
    meters: tuple[ClaimedMeter, ...]


def encode_claim(claim: Claim, sign: Sign) -> bytes:
    """Return the signed claim: one line of ASCII.

    Raises:
        MalformedLineError: A field is outside its range.
    """
    body = canonical.dump(
        {
            "v": WIRE_VERSION,
            "kind": "claim",
            "gateway_id": claim.gateway_id,
            "token": claim.token,
            "meters": [_meter_value(meter) for meter in claim.meters],
        }
    )
    _parse(body)
    return seal(body, CLAIM_DOMAIN, sign)


def decode_claim(text: bytes, verify: Verify) -> Claim:
    """Check the signature by the key the claim names, and return the claim.

    Args:
        text: The line; white space around it is tolerated, people paste it.
        verify: The cloud's must refuse small-order keys.

    Raises:
        BadSignatureError: Not signed by the gateway it names.
        MalformedLineError: Not a canonical claim.
        UnsupportedVersionError: A claim of another version.
    """
    text = text.strip()
    if len(text) > MAX_CLAIM_BYTES:
        raise MalformedLineError(f"{len(text)} bytes; a claim has at most {MAX_CLAIM_BYTES}")
    body, _ = split(text)
    claim = _parse(body)
    open_sealed(text, CLAIM_DOMAIN, base58.decode_key(claim.gateway_id), verify)
    return claim


def _meter_value(meter: ClaimedMeter) -> dict[str, Any]:
    value: dict[str, Any] = {
        "meter_id": meter.meter_id,
        "profile": meter.profile,
        "resolution_wh": meter.resolution_wh,
    }
    return value if meter.rated_power_w is None else value | {"rated_power_w": meter.rated_power_w}


def _parse(body: bytes) -> Claim:
    value = canonical.load(body)
    version = value.get("v")
    if type(version) is int and version != WIRE_VERSION:
        raise UnsupportedVersionError(f"claim version {version}; this program knows {WIRE_VERSION}")
    if set(value) != _KEYS or type(version) is not int or value["kind"] != "claim":
        raise MalformedLineError("not a claim: other keys than " + ", ".join(sorted(_KEYS)))
    meters = value["meters"]
    if not isinstance(meters, list) or not 1 <= len(meters) <= MAX_METERS:
        raise MalformedLineError(f"meters must be a list of 1 to {MAX_METERS}")
    claim = Claim(
        gateway_id=_key(value, "gateway_id"),
        token=_key(value, "token"),
        meters=tuple(_meter(entry) for entry in meters),
    )
    if len({meter.meter_id for meter in claim.meters}) != len(meters):
        raise MalformedLineError("a meter_id is there twice")
    return claim


def _meter(value: Any) -> ClaimedMeter:
    if not isinstance(value, dict) or set(value) - {"rated_power_w"} != _METER_KEYS:
        raise MalformedLineError("a meter has meter_id, profile, resolution_wh, rated_power_w")
    meter_id, profile = value["meter_id"], value["profile"]
    if not isinstance(meter_id, str) or not METER_ID.match(meter_id):
        raise MalformedLineError(f"meter_id {str(meter_id)[:80]!r} is none")
    if not isinstance(profile, str) or not 1 <= len(profile) <= MAX_PROFILE_CHARACTERS:
        raise MalformedLineError(f"profile must have 1 to {MAX_PROFILE_CHARACTERS} characters")
    return ClaimedMeter(
        meter_id=meter_id,
        profile=profile,
        resolution_wh=_whole(value, "resolution_wh", _MAX_RESOLUTION_WH),
        rated_power_w=(
            _whole(value, "rated_power_w", _MAX_RATED_POWER_W) if "rated_power_w" in value else None
        ),
    )


def _key(value: dict[str, Any], name: str) -> str:
    text = value[name]
    if not isinstance(text, str):
        raise MalformedLineError(f"{name} is no text")
    base58.decode_key(text)
    return text


def _whole(value: dict[str, Any], name: str, high: int) -> int:
    number = value[name]
    if type(number) is not int or not 1 <= number <= high:
        raise MalformedLineError(f"{name}={str(number)[:40]} is no integer from 1 to {high}")
    return number
