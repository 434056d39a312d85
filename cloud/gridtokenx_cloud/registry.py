"""What may be enrolled, and what an operator's word does to a held reading; pure."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from gridtokenx_cloud.errors import ValidationError
from gridtokenx_cloud.events import rfc3339
from gridtokenx_cloud.ledger import Mark, Span, Window, place
from gridtokenx_cloud.plausibility import Verdict, check_overlap
from gridtokenx_cloud.ports.admin import Enrolment
from gridtokenx_cloud.verify import Meter
from gridtokenx_wire import base58
from gridtokenx_wire.claim import Claim, decode_claim
from gridtokenx_wire.encoding import METER_ID
from gridtokenx_wire.errors import MalformedLineError, WireError
from gridtokenx_wire.signing import Verify

KeyTest = Callable[[bytes], bool]
"""32 bytes -> whether they are such a key."""

LONGEST_OVERLAP_MS = 90 * 86_400_000
MAX_RATED_POWER_W = 100_000_000
MAX_RESOLUTION_WH = 1_000_000
_USER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")
_NAME = re.compile(r"[ -~]{1,100}\Z")
_EPOCH = re.compile(r"[0-9a-f]{16}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldReading:
    """A reading an operator decides on."""

    reading_id: int
    meter: Meter
    epoch: str
    epoch_status: str
    mark: Mark
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMeter:
    """A meter to enrol."""

    meter_id: str
    rated_power_w: int
    resolution_wh: int


def open_claim(text: str, verifier: Verify) -> Claim:
    """Return what a gateway claims, its signature checked.

    Raises:
        ValidationError: `InvalidClaim`.
    """
    try:
        return decode_claim(text.encode(errors="replace"), verifier)
    except WireError as exc:
        raise ValidationError(
            "InvalidClaim",
            f"The claim cannot be accepted: {exc}; copy the whole line that the gateway printed.",
        ) from exc


def plan_meters(
    claim: Claim, known: Mapping[str, str], wanted: Enrolment, token: str | None
) -> list[NewMeter]:
    """Return the meters of a claim that are to be enrolled.

    Args:
        claim: Its signature holds.
        known: Enrolled meters of the claim, and their gateways.
        wanted: What the operator adds.
        token: What this cloud mints; None = not known here.

    Raises:
        ValidationError: `WrongToken`, `MeterNotOfGateway`, `MissingRatedPower`, or as
            `check_meter`.
    """
    if token is not None and claim.token != token:
        raise ValidationError(
            "WrongToken",
            f"The claim of gateway {claim.gateway_id} is for token {claim.token}, this cloud mints "
            f"{token}; correct `token` in the gateway's configuration.",
        )
    meters = []
    for meter in claim.meters:
        if (owner := known.get(meter.meter_id)) is not None:
            if owner != claim.gateway_id:
                raise ValidationError(
                    "MeterNotOfGateway",
                    f"Meter {meter.meter_id} is read by gateway {owner}; move it with "
                    f"`gtx-cloud meter move`, or give the new meter another id.",
                )
            continue
        rated_power_w = meter.rated_power_w or wanted.rated_power_w
        if rated_power_w is None:
            raise ValidationError(
                "MissingRatedPower",
                f"The claim does not say what meter {meter.meter_id} can feed in; give "
                "--rated-power-w.",
            )
        check_meter(meter.meter_id, rated_power_w, meter.resolution_wh)
        meters.append(
            NewMeter(
                meter_id=meter.meter_id,
                rated_power_w=rated_power_w,
                resolution_wh=meter.resolution_wh,
            )
        )
    return meters


def check_key_overlap(now_ms: int, until_ms: int) -> None:
    """Refuse an overlap of two keys that is over already, or that never ends.

    Raises:
        ValidationError: `InvalidDate`.
    """
    if not now_ms <= until_ms <= now_ms + LONGEST_OVERLAP_MS:
        raise ValidationError(
            "InvalidDate",
            f"The former key would count for {(until_ms - now_ms) // 86_400_000} days where 0 to "
            f"{LONGEST_OVERLAP_MS // 86_400_000} are allowed; give another overlap.",
        )


def check_move(meter_id: str, is_there: bool, since_ms: int, from_ms: int, now_ms: int) -> None:
    """Refuse a move that would change what already counted, or that did not happen yet.

    Args:
        meter_id: For the message.
        is_there: Whether it would be moved to where it is.
        since_ms: When it was moved last.
        from_ms: First moment of the new state.
        now_ms: The cloud's clock.

    Raises:
        ValidationError: `NothingToMove` or `InvalidDate`.
    """
    if is_there:
        raise ValidationError(
            "NothingToMove", f"Meter {meter_id} is there already; see `gtx-cloud meter list`."
        )
    if not since_ms < from_ms <= now_ms:
        raise ValidationError(
            "InvalidDate",
            f"Meter {meter_id} cannot move at {rfc3339(from_ms)}: that is in the future, or not "
            "after its last move; give a moment between them, or leave it out for now.",
        )


def check_user(user_id: str, wallet: str, is_on_curve: KeyTest) -> None:
    """Refuse a user whose tokens could never be spent, or whose id fits no stream name.

    Raises:
        ValidationError: `InvalidUserId` or `InvalidWalletAddress`.
    """
    if not _USER_ID.match(user_id):
        raise ValidationError(
            "InvalidUserId",
            f"User id {user_id[:80]!r} is not 1 to 64 of A-Z a-z 0-9 . _ -; choose another.",
        )
    try:
        key = base58.decode_key(wallet)
    except MalformedLineError as exc:
        raise ValidationError(
            "InvalidWalletAddress", f"The wallet address {exc}; copy it from the owner's wallet."
        ) from exc
    if not is_on_curve(key):
        raise ValidationError(
            "InvalidWalletAddress",
            f"Wallet {wallet} is a program's address, nobody holds a key for it; give the "
            "owner's own wallet, not a token account.",
        )


def check_gateway(gateway_id: str, name: str, is_signing_key: KeyTest) -> None:
    """Refuse a gateway whose id is no key that only it can sign for.

    Raises:
        ValidationError: `InvalidGatewayKey` or `InvalidName`.
    """
    try:
        key = base58.decode_key(gateway_id)
    except MalformedLineError as exc:
        raise ValidationError(
            "InvalidGatewayKey",
            f"The gateway id {exc}; copy it from the output of `gtx-agent init`.",
        ) from exc
    if not is_signing_key(key):
        raise ValidationError(
            "InvalidGatewayKey",
            f"Gateway id {gateway_id} is no Ed25519 key, or one that anyone can sign for; copy "
            "it from the output of `gtx-agent init`.",
        )
    if not _NAME.match(name):
        raise ValidationError(
            "InvalidName", f"Name {name[:80]!r} is not 1 to 100 printable ASCII characters."
        )


def check_meter(meter_id: str, rated_power_w: int, resolution_wh: int) -> None:
    """Refuse a meter outside the contract's bounds.

    Raises:
        ValidationError: `InvalidMeterId`, `InvalidRatedPower` or `InvalidResolution`.
    """
    if not METER_ID.match(meter_id):
        raise ValidationError(
            "InvalidMeterId",
            f"Meter id {meter_id[:80]!r} is not 1 to 64 of A-Z a-z 0-9 . _ -; choose another.",
        )
    if not 1 <= rated_power_w <= MAX_RATED_POWER_W:
        raise ValidationError(
            "InvalidRatedPower",
            f"Rated power {rated_power_w} W is not from 1 to {MAX_RATED_POWER_W}; give the "
            "most the plant can feed in.",
        )
    if not 1 <= resolution_wh <= MAX_RESOLUTION_WH:
        raise ValidationError(
            "InvalidResolution",
            f"Resolution {resolution_wh} Wh is not from 1 to {MAX_RESOLUTION_WH}; see the "
            "meter's profile.",
        )


def check_epoch_name(epoch: str) -> None:
    """Refuse what is no epoch.

    Raises:
        ValidationError: `InvalidEpoch`.
    """
    if not _EPOCH.match(epoch):
        raise ValidationError(
            "InvalidEpoch",
            f"Epoch {epoch[:80]!r} is not 16 hex digits; `gtx-cloud held list` shows it.",
        )


def release(held: HeldReading, span: Span | None, others: Collection[Window] = ()) -> Verdict:
    """Return what a released reading is credited: what the register really moved.

    The operator's word stands above plausibility, but not above the order of the registers.

    Raises:
        ValidationError: `UnknownEpoch`, `EpochOverlap` or `CounterBackwards`.
    """
    if held.epoch_status != "accepted":
        raise ValidationError(
            "UnknownEpoch",
            f"Reading {held.reading_id} is of epoch {held.epoch}, which is not confirmed; run "
            f"`gtx-cloud meter accept-epoch {held.meter.meter_id} {held.epoch}` first.",
        )
    placement = place(span, held.mark, held.meter.resolution_wh)
    if placement is None:
        raise ValidationError(
            "CounterBackwards",
            f"Reading {held.reading_id} of meter {held.meter.meter_id} runs against readings "
            "already accepted, so no credit fits; run `gtx-cloud held reject` instead.",
        )
    if placement.since is not None or span is None:
        doubled = check_overlap(held.mark, span, held.meter, others)
        if doubled is not None:
            raise ValidationError(doubled.code, doubled.reason)
    return Verdict(status=placement.status, claim_wh=placement.credit_wh, span=placement.span)
