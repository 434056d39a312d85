"""A line whose bytes are judged, and the name its record is stored under; pure."""

from dataclasses import dataclass, field

from gridtokenx_cloud.ports.ingest import Identity
from gridtokenx_cloud.verify import Fault
from gridtokenx_wire.record import GATEWAY_STREAM, ClockQuality, Record


@dataclass(slots=True)
class OpenedLine:
    """A line whose bytes are judged: a record, or why it is none.

    Attributes:
        gateway_id: From the topic; where that is no gateway's, the topic's own text.
        line: The bytes as they came.
        found: The record, or the fault.
        addressable: Whether a receipt can reach the sender.
        signed_by: Gateway whose former key signed it; None = the topic's own.
        signer: The gateway whose key signed it.
        identity: The record's name; None for a fault.
    """

    gateway_id: str
    line: bytes
    found: Record | Fault
    addressable: bool = True
    signed_by: str | None = None
    signer: str = field(init=False)
    identity: Identity | None = field(init=False)

    def __post_init__(self) -> None:
        """Name the record, once for all who ask."""
        self.signer = self.signed_by or self.gateway_id
        self.identity = None
        if not isinstance(self.found, Fault):
            self.identity = identity_of(self.gateway_id, self.found, self.signer)


def identity_of(gateway_id: str, record: Record, signer: str | None = None) -> Identity:
    """Return the name under which a record that came from this gateway is stored."""
    stamp = record.stamp
    stream = stamp.meter_id
    if stream == GATEWAY_STREAM:
        stream = gateway_stream(gateway_id)
    told_ms = None if stamp.clock is ClockQuality.UNSYNCHRONISED else stamp.wall_ms
    return Identity(signer or gateway_id, (stream, stamp.epoch), stamp.seq, stamp.boot_id, told_ms)


def gateway_stream(gateway_id: str) -> str:
    """Return the name under which a gateway's own records are stored."""
    return f"{GATEWAY_STREAM}:{gateway_id}"
