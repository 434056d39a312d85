"""paho's client, where it spends more on a message than everything else on it but the signature.

One method of its inside is overridden and one attribute is read: `constraints.txt` says with which
version that is tested, and a test fails with one that has them no more.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import paho.mqtt.client as mqtt

from gridtokenx_cloud.adapters.mqtt.buffered_socket import BufferedSocket

_KIND_AND_QOS = 0xF6
_PUBLISH_QOS_1 = 0x32
_PUBACK = b"\x40\x02"
_MOST_LENGTH_BYTES = 4


class LeanClient(mqtt.Client):
    """A client over a `BufferedSocket`.

    Attributes:
        buffered: The socket of the connection; None before it.
        on_usual_message: Told (topic, packet id, payload) of each QoS 1 message without
            properties that `take_usual` finds; the others go to `on_message`.
    """

    buffered: BufferedSocket | None = None
    on_usual_message: Callable[[str, int, bytes], None] | None = None

    def _create_socket(self) -> Any:
        self.buffered = BufferedSocket(super()._create_socket())  # type: ignore[arg-type]
        return self.buffered

    def take_usual(self) -> bool:
        """Take the usual messages that are here whole; False when the next packet is none."""
        buffered, told = self.buffered, self.on_usual_message
        # paho is in the middle of a packet unless this is 0.
        if buffered is None or told is None or self._in_packet["command"] != 0:
            return False
        buffered.fill()
        data, place = buffered.ahead()
        begun = place
        while (found := read_usual(data, place)) is not None:
            name, packet_id, payload, place = found
            # Before it is told of: whoever is told may end the connection.
            buffered.skip_to(place)
            told(name, packet_id, payload)
        return place > begun

    def acknowledge(self, packet_id: int, qos: int) -> bool:
        """Acknowledge a message; False when there is no connection any more."""
        if qos == 1 and self.buffered is not None and self.is_connected():
            # Packets are taken whole or not at all, so this one never cuts another in two.
            with suppress(BlockingIOError):
                self.buffered.send(_PUBACK + packet_id.to_bytes(2, "big"))
                return True
        return self.ack(packet_id, qos) == mqtt.MQTT_ERR_SUCCESS


def read_usual(data: bytes, start: int) -> tuple[str, int, bytes, int] | None:
    """Return topic, packet id, payload and end of an MQTT 5 PUBLISH of QoS 1 without properties.

    None where *data* has anything else at *start*: another packet, a malformed one, part of one.
    """
    place = start + 1
    if len(data) < place + 1 or data[start] & _KIND_AND_QOS != _PUBLISH_QOS_1:
        return None
    length, shift = data[place] & 0x7F, 7
    while data[place] & 0x80:
        place += 1
        if place == len(data) or shift == 7 * _MOST_LENGTH_BYTES:
            return None
        length |= (data[place] & 0x7F) << shift
        shift += 7
    place += 1
    end, topic_at = place + length, place + 2
    topic_end = topic_at + int.from_bytes(data[place:topic_at], "big")
    body = topic_end + 3
    if end > len(data) or body > end or data[topic_end + 2] != 0:
        return None
    name = data[topic_at:topic_end]
    if not name.isascii():
        return None
    packet_id = int.from_bytes(data[topic_end : topic_end + 2], "big")
    return name.decode("ascii"), packet_id, data[body:end], end
