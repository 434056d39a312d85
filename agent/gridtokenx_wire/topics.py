"""Topic names, built and parsed in one place.

`gridtokenx/v1/{gateway_id}/{channel}`; the gateway id is its Ed25519 public key in base58.
"""

from enum import StrEnum

from gridtokenx_wire import base58
from gridtokenx_wire.errors import BadTopicError, MalformedLineError

ROOT = "gridtokenx/v1"
INGEST_FILTER = f"$share/ingest/{ROOT}/+/readings"
STATE_FILTER = f"{ROOT}/+/state"
RECEIPTS_FILTER = f"{ROOT}/+/receipts"


class Channel(StrEnum):
    """The last level of a topic."""

    READINGS = "readings"
    """Gateway to cloud: 1 to 100 signed lines."""
    STATE = "state"
    """Gateway to cloud, retained: birth and death certificate."""
    RECEIPTS = "receipts"
    """Cloud to gateway: what is stored, what is refused."""
    COMMANDS = "commands"
    """Cloud to gateway."""
    REPLIES = "replies"
    """Gateway to cloud: answers to commands."""


def topic(gateway_id: str, channel: Channel) -> str:
    """Return the topic of one channel of a gateway."""
    return f"{ROOT}/{gateway_id}/{channel.value}"


def parse_topic(text: str) -> tuple[str, Channel]:
    """Return (gateway_id, channel).

    Raises:
        BadTopicError: Not a topic of this contract, wildcards included.
    """
    prefix, _, rest = text.partition(f"{ROOT}/")
    gateway_id, _, last = rest.partition("/")
    try:
        base58.decode_key(gateway_id)
        channel = Channel(last)
    except (MalformedLineError, ValueError) as exc:
        raise BadTopicError(f"{text[:120]!r} is no {ROOT}/{{gateway}}/{{channel}} topic") from exc
    if prefix:
        raise BadTopicError(f"{text[:120]!r} does not begin with {ROOT}/")
    return gateway_id, channel
