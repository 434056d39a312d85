"""paho's client, where it spends more on a message than everything else on it but the signature.

One method of its inside is overridden, one is called and one attribute is read: `constraints.txt`
says with which version that is tested, and a test fails with one that has them no more.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as mqtt

from gridtokenx_cloud.adapters.mqtt.buffered_socket import BufferedSocket
from gridtokenx_cloud.adapters.mqtt.packets import (
    is_usual,
    read_acknowledgement,
    read_message,
    write_acknowledgement,
    write_message,
)

MAX_UNCONFIRMED = 1_000
"""Own messages on their way at once, where the broker does not ask for fewer."""
MAX_WAITING = 20_000
"""Own messages that wait for their turn; a broker that confirms none must not fill the memory."""
MAX_AT_ONCE = 1_000
"""Packets taken before anything else is looked at: a broker may send faster than they are taken."""


class LeanClient(mqtt.Client):
    """A client over a `BufferedSocket`, for one connection.

    Attributes:
        buffered: The socket of the connection; None before it.
        on_usual_message: Told (topic, packet id, payload) of each QoS 1 message without
            properties that `take_usual` finds; the others go to `on_message`.
        on_refused: Told of each message of `send` that the broker did not take.
    """

    buffered: BufferedSocket | None = None
    on_usual_message: Callable[[str, int, bytes], None] | None = None
    on_refused: Callable[[], None] | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._most_unconfirmed = MAX_UNCONFIRMED
        self._unconfirmed: set[int] = set()
        self._waiting: deque[tuple[str, bytes]] = deque()

    def _create_socket(self) -> Any:
        self.buffered = BufferedSocket(super()._create_socket())  # type: ignore[arg-type]
        return self.buffered

    def allow_unconfirmed(self, most: int) -> None:
        """Keep to the broker's receive maximum."""
        self._most_unconfirmed = min(MAX_UNCONFIRMED, most)

    @property
    def unconfirmed(self) -> int:
        """How many messages of `send` the broker has not confirmed."""
        return len(self._unconfirmed) + len(self._waiting)

    def take_usual(self, most: int = MAX_AT_ONCE) -> int:
        """Take the usual packets that are here, up to *most*; 0 when the next packet is none."""
        # paho is in the middle of a packet unless this is 0.
        if self.buffered is None or self._in_packet["command"] != 0:
            return 0
        taken = 0
        while taken < most and self._take_one(self.buffered):
            taken += 1
        return taken

    def _take_one(self, buffered: BufferedSocket) -> bool:
        data, place = buffered.ahead()
        while (found := read_message(data, place)) is None:
            if (answer := read_acknowledgement(data, place)) is not None:
                buffered.skip_to(answer[2])
                self._confirm(*answer[:2])
                return True
            if not (place == len(data) or is_usual(data, place)) or not buffered.fill():
                return False
            data, place = buffered.ahead()
        name, packet_id, payload, end = found
        # Before it is told of: whoever is told may end the connection.
        buffered.skip_to(end)
        if self.on_usual_message is not None:
            self.on_usual_message(name, packet_id, payload)
        return True

    def acknowledge(self, packet_id: int, qos: int) -> bool:
        """Acknowledge a message; False when there is no connection any more."""
        # A packet that is taken whole never cuts one of paho's in two.
        if qos == 1 and self.is_connected() and self._put(write_acknowledgement(packet_id)):
            return True
        return self.ack(packet_id, qos) == mqtt.MQTT_ERR_SUCCESS

    def send(self, topic: str, payload: bytes) -> bool:
        """Send a message with QoS 1; False when it can't be taken now.

        It is sent once: on a connection that is never resumed nothing is sent again.
        """
        if len(self._waiting) >= MAX_WAITING or not self.is_connected():
            return False
        self._waiting.append((topic, payload))
        self.send_waiting()
        return True

    def send_waiting(self) -> None:
        """Send what waits for its turn, as far as the broker and the network take it."""
        while self._waiting and len(self._unconfirmed) < self._most_unconfirmed:
            packet_id = self._mid_generate()
            if packet_id in self._unconfirmed:
                continue
            topic, payload = self._waiting[0]
            if not self._put(write_message(topic, packet_id, payload)):
                return
            self._waiting.popleft()
            self._unconfirmed.add(packet_id)

    def _put(self, packet: bytes) -> bool:
        """Give a packet to the socket, which takes it whole or, when it is full, not at all."""
        if self.buffered is None:
            return False
        try:
            self.buffered.send(packet)
        except OSError:
            # Full; or lost, which the next read says too, and then paho tells everybody.
            return False
        return True

    def _confirm(self, packet_id: int, taken: bool) -> None:
        self._unconfirmed.discard(packet_id)
        if not taken and self.on_refused is not None:
            self.on_refused()
        self.send_waiting()
