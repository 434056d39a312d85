"""What an MQTT worker counts."""

from dataclasses import dataclass


@dataclass(slots=True)
class MqttCounters:
    """What happened since the start."""

    connections: int = 0
    messages: int = 0
    commits: int = 0
    acknowledged: int = 0
    stale: int = 0
    """Messages whose connection was gone at their commit: not acknowledged, they come again."""
    receipts: int = 0
    receipts_unsent: int = 0
    """Receipts made while disconnected; the gateway sends its lines again and gets another."""
    receipts_refused: int = 0
    """Receipts the broker did not take, as one does whose ACL keeps us off the topic."""
    store_retries: int = 0
    put_off: int = 0
    """Messages of a gateway above its rate, kept until there is room."""
    shed: int = 0
    """Messages of a flood, acknowledged and not stored: without a receipt they come again."""
