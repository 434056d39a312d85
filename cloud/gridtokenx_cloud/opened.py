"""A line whose bytes are judged, and the name its record is stored under; pure."""

from dataclasses import dataclass

from gridtokenx_cloud.ports.ingest import Identity
from gridtokenx_cloud.verify import Fault
from gridtokenx_wire.record import GATEWAY_STREAM, Record


@dataclass(frozen=True, slots=True)
class OpenedLine:
    """A line whose bytes are judged: a record, or why it is none.

    Attributes:
        gateway_id: From the topic; where that is no gateway's, the topic's own text.
        line: The bytes as they came.
        found: The record, or the fault.
        addressable: Whether a receipt can reach the sender.
    """

    gateway_id: str
    line: bytes
    found: Record | Fault
    addressable: bool = True


def identity_of(gateway_id: str, record: Record) -> Identity:
    """Return the name under which a record of this gateway is stored."""
    stamp = record.stamp
    stream = stamp.meter_id
    if stream == GATEWAY_STREAM:
        stream = gateway_stream(gateway_id)
    return Identity(gateway_id, stream, stamp.epoch, stamp.seq, stamp.boot_id)


def gateway_stream(gateway_id: str) -> str:
    """Return the name under which a gateway's own records are stored."""
    return f"{GATEWAY_STREAM}:{gateway_id}"
