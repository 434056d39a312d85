"""Whether a line counts at all: every rule that refuses it, the first hit decides.

Bad data is no exception here: a refusal is a `Fault` value with a stable code and one sentence.
"""

from dataclasses import dataclass
from typing import Literal

from gridtokenx_wire import canonical
from gridtokenx_wire.encoding import MAX_LINE_BYTES, parse_body
from gridtokenx_wire.errors import BadSignatureError, MalformedLineError, WireError
from gridtokenx_wire.receipt import MAX_REASON_CHARACTERS
from gridtokenx_wire.record import GATEWAY_STREAM, Record, SlotRecord
from gridtokenx_wire.signing import RECORD_DOMAIN, Verify, open_sealed, split

Code = Literal[
    "BadTopic",
    "UnknownGateway",
    "GatewayRevoked",
    "BadSignature",
    "NotCanonical",
    "WrongVersion",
    "NegativeAmount",
    "UnknownMeter",
    "MeterNotOfGateway",
    "WrongToken",
    "ConflictingReading",
    "StoreRefused",
    "UnknownEpoch",
    "EpochOverlap",
    "CounterBackwards",
    "AmountTooHigh",
    "PowerExceeded",
    "ReadingTooOld",
    "ReadingInFuture",
    "Spike",
    "Stuck",
    "ChainGap",
    "PhaseSum",
]
"""The codes up to `StoreRefused` reject a line, the others hold a reading."""

EpochPolicy = Literal["first", "any", "none"]

LAST_DATE_MS = 253_402_300_799_999
"""End of the year 9999, the last instant RFC 3339 can write."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a line is refused or a reading held: a stable code and one sentence for people."""

    code: Code
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadingRules:
    """The limits an operator may change while the program runs.

    Attributes:
        max_reading_wh: Highest credit of one slot, Wh.
        reading_max_age_days: By the reading's own corrected time.
        spike_holds, stuck_holds, chain_gap_holds, phase_sum_holds: Whether such a reading is held;
            it is remarked in any case.
        spike_percent: Most mean power of a stretch, of the power measured at both its ends.
        spike_rated_percent: A spike is beyond that by this share of the rated power, for a slot.
        stuck_wh: Measured power that comes to so much must move a register.
        chain_gap_wait_s: So long a missing line may hold what follows it.
    """

    max_reading_wh: int = 100_000
    reading_max_age_days: int = 7
    spike_holds: bool = False
    spike_percent: int = 280
    spike_rated_percent: int = 25
    stuck_holds: bool = True
    stuck_wh: int = 100
    chain_gap_holds: bool = False
    chain_gap_wait_s: int = 86_400
    phase_sum_holds: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """A meter as enrolled, with its owner."""

    meter_id: str
    gateway_id: str
    user_id: str
    wallet: str
    rated_power_w: int
    resolution_wh: int
    epoch_policy: EpochPolicy


def fault(code: Code, reason: str) -> Fault:
    """Return a fault whose sentence any store and any terminal can take."""
    text = reason.encode("ascii", "backslashreplace").decode().replace("\x00", "\\x00")
    return Fault(code, text[:MAX_REASON_CHARACTERS])


def open_line(line: bytes, gateway_id: str, public_key: bytes, verifier: Verify) -> Record | Fault:
    """Check the signature over the bytes as they came, and only then read them."""
    if len(line) > MAX_LINE_BYTES:
        return fault(
            "NotCanonical",
            f"The line has {len(line)} bytes where at most {MAX_LINE_BYTES} are allowed; "
            "send it as the record encoder writes it.",
        )
    try:
        return parse_body(open_sealed(line, RECORD_DOMAIN, public_key, verifier))
    except BadSignatureError:
        return fault(
            "BadSignature",
            f"The signature is not by gateway {gateway_id} over these bytes; "
            "publish only lines signed with that gateway's key below its own topic.",
        )
    except MalformedLineError as exc:
        return _negative(line) or fault(
            "NotCanonical",
            f"The line is not canonical: {exc}; send it as the record encoder writes it.",
        )
    except WireError as exc:
        return fault("WrongVersion", f"The line is of another {exc}; update the older side.")


def _negative(line: bytes) -> Fault | None:
    """Tell a register below zero from any other malformed line."""
    try:
        value = canonical.load(split(line)[0])
    except MalformedLineError:
        return None
    for name in ("import_wh", "export_wh"):
        wh = value.get(name)
        if type(wh) is int and wh < 0 and value.get("v") == 1:
            return fault(
                "NegativeAmount",
                f"Register {name} of meter {value.get('meter_id')} is {wh} Wh, below 0; "
                "correct the sign in the meter's profile.",
            )
    return None


def check_gateway(gateway_id: str, status: str | None) -> Fault | None:
    """Return why no line of this gateway is taken."""
    if status is None:
        return fault(
            "UnknownGateway",
            f"Gateway {gateway_id} is not enrolled; run `gtx-cloud gateway add` first.",
        )
    if status != "active":
        return fault(
            "GatewayRevoked",
            f"Gateway {gateway_id} is {status}; enrol the device again under a new key.",
        )
    return None


def check_key_end(gateway_id: str, ends_ms: int | None, now_ms: int) -> Fault | None:
    """Return why a replaced key counts no more; *ends_ms* is None for one nobody replaced."""
    if ends_ms is None or now_ms < ends_ms:
        return None
    return fault(
        "GatewayRevoked",
        f"The key {gateway_id} was replaced and its time is over; send what is left with the new "
        "key, or rotate again with a longer overlap.",
    )


def check_enrolment(
    record: Record, meter: Meter | None, token: str, *, gateway_id: str, may_send: bool
) -> Fault | None:
    """Return why this record does not count here.

    Args:
        record: With its meter's id.
        meter: None when nobody enrolled it.
        token: What this cloud mints.
        gateway_id: Who signed it.
        may_send: Whether that gateway read the meter at that time.
    """
    meter_id = record.stamp.meter_id
    if meter_id == GATEWAY_STREAM:
        return None
    if meter is None:
        return fault(
            "UnknownMeter", f"Meter {meter_id} is not enrolled; run `gtx-cloud meter add` first."
        )
    if not may_send:
        return fault(
            "MeterNotOfGateway",
            f"Meter {meter_id} is read by gateway {meter.gateway_id}, not by {gateway_id} at that "
            "time; see `gtx-cloud meter move` if it was moved.",
        )
    if isinstance(record, SlotRecord) and record.token != token:
        return fault(
            "WrongToken",
            f"The reading of meter {meter_id} counts for token {record.token}, this cloud mints "
            f"{token}; enrol the gateway for the right one.",
        )
    return None


def conflict(record: Record) -> Fault:
    """Return the fault of a second, different line under a `seq` that is already stored."""
    stamp = record.stamp
    return fault(
        "ConflictingReading",
        f"Another line of meter {stamp.meter_id} is already stored as seq {stamp.seq} of epoch "
        f"{stamp.epoch}; look for a copied key or a restored buffer.",
    )


def check_epoch(meter: Meter, epoch: str, status: str | None, *, has_epochs: bool) -> Fault | None:
    """Return why this epoch may not count yet.

    Args:
        meter: With its policy for new epochs.
        epoch: The reading's.
        status: What the registry says of this epoch, None when it never heard of it.
        has_epochs: Whether the meter already has any other epoch.
    """
    if status == "accepted":
        return None
    if status is None and (
        meter.epoch_policy == "any" or (meter.epoch_policy == "first" and not has_epochs)
    ):
        return None
    return fault(
        "UnknownEpoch",
        f"Meter {meter.meter_id} began a new count, epoch {epoch}, that nobody confirmed; run "
        f"`gtx-cloud meter accept-epoch {meter.meter_id} {epoch}` if that is right.",
    )
