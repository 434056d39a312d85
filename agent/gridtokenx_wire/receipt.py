"""What the cloud answers once a commit is durable: the only leave to delete a row."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gridtokenx_wire import base58, canonical
from gridtokenx_wire.errors import MalformedLineError, UnsupportedVersionError
from gridtokenx_wire.record import WIRE_VERSION
from gridtokenx_wire.signing import RECEIPT_DOMAIN, Sign, Verify, open_sealed, seal

MAX_REASON_CHARACTERS = 300

SeqRange = tuple[int, int]
"""First and last `seq`, both included."""
Ranges = tuple[SeqRange, ...]

_HASH = re.compile(r"[0-9a-f]{32}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class LineRejection:
    """A line the cloud stored as refused; sending it again cannot help.

    Attributes:
        line: `line_hash` of the refused bytes.
        code: Stable code, such as `BadSignature`.
        reason: One sentence with the thing, the value and the way out.
    """

    line: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What is durable at the cloud for one gateway.

    Attributes:
        gateway_id: For whom.
        issued_ms: Cloud's wall clock, Unix milliseconds.
        durable: meter_id -> epoch -> ranges of `seq` that are stored, ascending, disjoint.
        rejected: Lines that are stored as rejections.
    """

    gateway_id: str
    issued_ms: int
    durable: Mapping[str, Mapping[str, Ranges]] = field(default_factory=dict)
    rejected: tuple[LineRejection, ...] = ()

    def covers(self, meter_id: str, epoch: str, seq: int) -> bool:
        """Return whether this record is durable at the cloud."""
        ranges = self.durable.get(meter_id, {}).get(epoch, ())
        return any(first <= seq <= last for first, last in ranges)


def encode_receipt(receipt: Receipt, sign: Sign) -> bytes:
    """Return the signed payload of a `receipts` message."""
    value: dict[str, Any] = {
        "v": WIRE_VERSION,
        "gateway_id": receipt.gateway_id,
        "issued_ms": receipt.issued_ms,
        "durable": {
            meter: {epoch: [list(pair) for pair in ranges] for epoch, ranges in epochs.items()}
            for meter, epochs in receipt.durable.items()
        },
        "rejected": [
            {"line": r.line, "code": r.code, "reason": _printable(r.reason)}
            for r in receipt.rejected
        ],
    }
    return seal(canonical.dump(value), RECEIPT_DOMAIN, sign)


def decode_receipt(payload: bytes, cloud_key: bytes, verify: Verify) -> Receipt:
    """Check the cloud's signature and return the receipt.

    Raises:
        BadSignatureError: Not signed by *cloud_key*.
        MalformedLineError: Not a canonical receipt.
        UnsupportedVersionError: A receipt of another version.
    """
    value = canonical.load(open_sealed(payload, RECEIPT_DOMAIN, cloud_key, verify))
    if value.get("v") != WIRE_VERSION:
        raise UnsupportedVersionError(f"receipt version {value.get('v')!r}")
    try:
        base58.decode_key(value["gateway_id"])
        return Receipt(
            gateway_id=value["gateway_id"],
            issued_ms=_whole(value["issued_ms"]),
            durable={
                meter: {epoch: _ranges(pairs) for epoch, pairs in epochs.items()}
                for meter, epochs in value["durable"].items()
            },
            rejected=tuple(_rejection(entry) for entry in value["rejected"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise MalformedLineError(f"not a receipt: {exc}") from exc


def _rejection(entry: dict[str, Any]) -> LineRejection:
    if not _HASH.match(entry["line"]):
        raise ValueError("line is no hash")
    return LineRejection(line=entry["line"], code=str(entry["code"]), reason=str(entry["reason"]))


def _ranges(pairs: list[list[int]]) -> Ranges:
    ranges = tuple((_whole(first), _whole(last)) for first, last in pairs)
    if any(first > last for first, last in ranges):
        raise ValueError("a range runs backwards")
    return ranges


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{str(value)[:40]!r} is no whole number")
    return value


def _printable(text: str) -> str:
    return text.encode("ascii", "replace").decode()[:MAX_REASON_CHARACTERS]
