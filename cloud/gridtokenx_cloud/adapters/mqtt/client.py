"""paho's client, where it spends more on a message than everything else on it but the signature.

Two methods of its inside are overridden: `constraints.txt` says with which version that is tested,
and a test fails with one that has them no more.
"""

from collections.abc import Callable
from typing import Any

import paho.mqtt.client as mqtt

from gridtokenx_cloud.adapters.mqtt.buffered_socket import BufferedSocket

_QOS_BITS = 0x06
_QOS_1 = 0x02


class LeanClient(mqtt.Client):
    """A client over a `BufferedSocket`.

    Attributes:
        buffered: The socket of the connection; None before it.
        on_usual_message: Told (topic, packet id, payload) of each QoS 1 message without
            properties; the others go to `on_message`.
    """

    buffered: BufferedSocket | None = None
    on_usual_message: Callable[[str, int, bytes], None] | None = None

    def _create_socket(self) -> Any:
        self.buffered = BufferedSocket(super()._create_socket())  # type: ignore[arg-type]
        return self.buffered

    def _handle_publish(self) -> Any:
        found = None
        if self.on_usual_message is not None:
            found = read_usual(self._in_packet["command"], self._in_packet["packet"])
        if found is None or self.on_usual_message is None:
            return super()._handle_publish()
        self.on_usual_message(*found)
        return mqtt.MQTT_ERR_SUCCESS


def read_usual(header: int, packet: bytes | bytearray) -> tuple[str, int, bytes] | None:
    """Return topic, packet id and payload of an MQTT 5 PUBLISH of QoS 1 without properties.

    None for any other packet, a malformed one included.
    """
    topic_end = 2 + int.from_bytes(packet[:2], "big")
    body = topic_end + 3
    if header & _QOS_BITS != _QOS_1 or len(packet) < body or packet[topic_end + 2] != 0:
        return None
    name = bytes(packet[2:topic_end])
    if not name.isascii():
        return None
    packet_id = int.from_bytes(packet[topic_end : topic_end + 2], "big")
    return name.decode("ascii"), packet_id, bytes(packet[body:])
