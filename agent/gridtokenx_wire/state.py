"""Birth and death certificates, retained on a gateway's `state` topic.

They tell an operator who is there; nothing is credited or refused because of them.
"""

from dataclasses import dataclass
from typing import Literal

from gridtokenx_wire import canonical
from gridtokenx_wire.errors import MalformedLineError
from gridtokenx_wire.record import WIRE_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayState:
    """Attributes: *boot_id* of the session that speaks; *since_ms* wall clock at its birth."""

    state: Literal["online", "offline"]
    boot_id: str
    since_ms: int
    software: str


def encode_state(state: GatewayState) -> bytes:
    """Return the payload of a `state` message."""
    return canonical.dump(
        {
            "v": WIRE_VERSION,
            "state": state.state,
            "boot_id": state.boot_id,
            "since_ms": state.since_ms,
            "software": state.software,
        }
    )


def decode_state(payload: bytes) -> GatewayState:
    """Parse a `state` payload.

    Raises:
        MalformedLineError: Not a canonical state of version 1.
    """
    value = canonical.load(payload)
    if set(value) != {"v", "state", "boot_id", "since_ms", "software"} or value["v"] != 1:
        raise MalformedLineError("not a gateway state of version 1")
    if value["state"] not in ("online", "offline") or type(value["since_ms"]) is not int:
        raise MalformedLineError("state must be online or offline, since_ms an integer")
    return GatewayState(
        state=value["state"],
        boot_id=str(value["boot_id"]),
        since_ms=value["since_ms"],
        software=str(value["software"]),
    )
