"""One connection to the broker; the one module beside `client` that knows paho.

Each connection is a paho client of its own: an acknowledgement or a receipt meant for a lost
connection ends there, and can never meet a packet id of the next one. One thread calls everything
here, and paho calls back in that thread.
"""

import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from gridtokenx_cloud.adapters.mqtt.buffered_socket import BufferedSocket
from gridtokenx_cloud.adapters.mqtt.client import MAX_AT_ONCE, MAX_UNCONFIRMED, LeanClient
from gridtokenx_cloud.ingest import Message
from gridtokenx_wire.topics import INGEST_FILTER, Channel, topic

_RECEIVE_MAXIMUM = 1_000
"""Twice a commit's: while one batch is stored the next one is verified."""
_KEEPALIVE_S = 30
_LAST_RECEIPT_S = 2.0
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Broker:
    """Where to connect, and as whom."""

    url: str
    username: str | None = None
    password: str | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


class Delivery(NamedTuple):
    """A message with the only connection on which it can be acknowledged."""

    connection: "Connection"
    packet_id: int
    qos: int
    message: Message


class Connection:
    """One connection to the broker, from connect to the end; never used again."""

    def __init__(
        self,
        broker: Broker,
        deliver: Callable[[Delivery], None],
        report: Callable[[str | None], None],
        refused: Callable[[], None] = lambda: None,
    ) -> None:
        self.ready = False
        self.ended = False
        self.took_messages = False
        self._broker = broker
        self._deliver = deliver
        self._report = report
        self._refused = refused
        self._leaving = False
        self._client: LeanClient

    def _new_client(self) -> LeanClient:
        client = LeanClient(
            CallbackAPIVersion.VERSION2,
            client_id="",
            protocol=mqtt.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        if self._broker.username is not None:
            client.username_pw_set(self._broker.username, self._broker.password)
        if urlsplit(self._broker.url).scheme == "mqtts":
            broker = self._broker
            client.tls_set(_text(broker.ca_file), _text(broker.cert_file), _text(broker.key_file))
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_usual_message = self._on_usual_message
        client.on_refused = self._refused
        client.on_disconnect = self._on_disconnect
        # With this set paho leaves writing to whoever runs the loop: to `step`.
        client.on_socket_register_write = lambda *_: None
        return client

    def open(self) -> bool:
        """Connect; False when that failed, and is reported."""
        parts = urlsplit(self._broker.url)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = _RECEIVE_MAXIMUM
        # Receipts make up for what a short session forgets; a long one would keep messages back
        # from the other workers.
        properties.SessionExpiryInterval = 0
        try:
            self._client = self._new_client()
            self._client.connect(
                parts.hostname or "",
                parts.port or (8883 if parts.scheme == "mqtts" else 1883),
                keepalive=_KEEPALIVE_S,
                clean_start=True,
                properties=properties,
            )
        except OSError as exc:
            self._report(f"cannot connect: {exc}")
            self.ended = True
        return not self.ended

    def step(self, timeout_s: float, wake: socket, *, reading: bool = True) -> bool:
        """Send what waits, take what has come, and keep the connection alive.

        Args:
            timeout_s: How long to wait for something to do.
            wake: Another socket that ends the wait.
            reading: False = leave what comes to the network, which slows the broker down.

        Returns:
            Whether anything was taken from the network.
        """
        buffered = self._client.buffered
        if self.ended or buffered is None:
            return False
        self._send(buffered)
        if self.ended:
            return False
        patience_ms = 0 if reading and buffered.pending() else round(timeout_s * 1000)
        poller = select.poll()
        poller.register(wake, select.POLLIN)
        poller.register(buffered, _interest(buffered, reading=reading))
        happened = dict(poller.poll(patience_ms)).get(buffered.fileno(), 0)
        took = bool(happened & ~select.POLLOUT) or (reading and buffered.pending() > 0)
        if took:
            self._take(buffered)
        self._client.loop_misc()
        return took

    def _take(self, buffered: BufferedSocket) -> None:
        """Take packets that are here, the usual ones the short way; a bounded number of them."""
        left = MAX_AT_ONCE
        while left > 0 and not self.ended:
            taken = self._client.take_usual(left)
            if not taken:
                self._client.loop_read()
            left -= taken or 1
            if not buffered.pending():
                return

    def _send(self, buffered: BufferedSocket) -> None:
        self._client.send_waiting()
        if self._client.want_write():
            self._client.loop_write()
        try:
            buffered.flush()
        except OSError:
            # The next read says so too, and then paho tells everybody.
            return

    def acknowledge(self, packet_id: int, qos: int) -> bool:
        """Acknowledge a message of this connection; False when the connection is gone."""
        return self.ready and self._client.acknowledge(packet_id, qos)

    def publish(self, gateway_id: str, payload: bytes) -> bool:
        """Send a receipt; False when disconnected, as paho would keep it for another time."""
        if not self.ready or not self._client.is_connected():
            return False
        return self._client.send(topic(gateway_id, Channel.RECEIPTS), payload)

    def unsubscribe(self) -> None:
        """Ask for no more messages, once; what is on its way still comes."""
        if self.ready and not self._leaving:
            self._leaving = True
            self._client.unsubscribe(INGEST_FILTER)

    def leave(self, wake: socket) -> None:
        """Wait a little for the last receipts to arrive, and disconnect."""
        deadline_s = time.monotonic() + _LAST_RECEIPT_S
        while not self.ended and self._client.unconfirmed:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                break
            self.step(min(left_s, _LOOK_S), wake)
        self.close()

    def close(self) -> None:
        """Disconnect, if that is left to do."""
        self.ended = True
        self.ready = False
        if self._client.socket() is not None:
            self._client.disconnect()
            self._client.loop_write()

    # Callbacks only pass on what they got: they run in the middle of paho's own work.

    def _on_connect(
        self, client: mqtt.Client, _data: Any, _flags: Any, code: ReasonCode, properties: Any
    ) -> None:
        if code.is_failure:
            self._report(f"refused: {code}; check user name and password of the MQTT URL")
            self.ended = True
            return
        self._client.allow_unconfirmed(getattr(properties, "ReceiveMaximum", MAX_UNCONFIRMED))
        client.subscribe(INGEST_FILTER, qos=1)

    def _on_subscribe(
        self, _client: mqtt.Client, _data: Any, _mid: int, codes: list[ReasonCode], _properties: Any
    ) -> None:
        refused = [code for code in codes if code.is_failure]
        if refused:
            self._report(f"no leave to subscribe to {INGEST_FILTER}: {refused[0]}; see the ACL")
            self.ended = True
            return
        self.ready = self.took_messages = True
        self._report(None)

    def _on_usual_message(self, name: str, packet_id: int, payload: bytes) -> None:
        self._deliver(Delivery(self, packet_id, 1, Message(name, payload)))

    def _on_message(self, _client: mqtt.Client, _data: Any, packet: mqtt.MQTTMessage) -> None:
        try:
            name = packet.topic
        except UnicodeDecodeError:
            name = "(not UTF-8)"
        message = Message(name, bytes(packet.payload))
        self._deliver(Delivery(self, packet.mid, packet.qos, message))

    def _on_disconnect(
        self, _client: mqtt.Client, _data: Any, _flags: Any, code: ReasonCode, _properties: Any
    ) -> None:
        if self.ready:
            self._report(f"connection lost: {code}")
        self.ready = False
        self.ended = True


def _interest(buffered: BufferedSocket, *, reading: bool) -> int:
    """Return what to wait for; that the connection is lost is heard of in any case."""
    return (select.POLLIN if reading else 0) | (select.POLLOUT if buffered.unsent else 0)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
