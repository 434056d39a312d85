"""One connection to the broker; the one module that knows paho.

Each connection is a paho client of its own: an acknowledgement or a receipt meant for a lost
connection ends there, and can never meet a packet id of the next one.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from gridtokenx_cloud.ingest import Message
from gridtokenx_wire.topics import INGEST_FILTER, Channel, topic

_RECEIVE_MAXIMUM = 500
_KEEPALIVE_S = 30
_LAST_RECEIPT_S = 2.0


@dataclass(frozen=True, slots=True)
class Broker:
    """Where to connect, and as whom."""

    url: str
    username: str | None = None
    password: str | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
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
    ) -> None:
        self.ready = False
        self.took_messages = False
        self._broker = broker
        self._deliver = deliver
        self._report = report
        self._ended = threading.Event()
        self._last_receipt: mqtt.MQTTMessageInfo | None = None
        self._client: mqtt.Client

    def _new_client(self) -> mqtt.Client:
        client = mqtt.Client(
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
        client.on_disconnect = self._on_disconnect
        return client

    def run(self) -> bool:
        """Connect and return at the connection's end; True when it ever took messages."""
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
            return False
        self._client.loop_start()
        self._ended.wait()
        self._client.disconnect()
        self._client.loop_stop()
        return self.took_messages

    def acknowledge(self, packet_id: int, qos: int) -> bool:
        """Acknowledge a message of this connection; False when the connection is gone."""
        return self.ready and self._client.ack(packet_id, qos) == mqtt.MQTT_ERR_SUCCESS

    def publish(self, gateway_id: str, payload: bytes) -> bool:
        """Send a receipt; False when disconnected, as paho would keep it for another time."""
        if not self.ready or not self._client.is_connected():
            return False
        receipt = self._client.publish(topic(gateway_id, Channel.RECEIPTS), payload, qos=1)
        if receipt.rc != mqtt.MQTT_ERR_SUCCESS:
            return False
        self._last_receipt = receipt
        return True

    def unsubscribe(self) -> None:
        """Ask for no more messages; what is on its way still comes."""
        if self.ready:
            self._client.unsubscribe(INGEST_FILTER)

    def leave(self) -> None:
        """Wait a little for the last receipt to arrive, and disconnect."""
        if self.ready and self._last_receipt is not None:
            self._last_receipt.wait_for_publish(_LAST_RECEIPT_S)
        self._ended.set()

    # Callbacks run in paho's thread and only pass on what they got: an exception here would end
    # that thread while the client still calls itself connected.

    def _on_connect(
        self, client: mqtt.Client, _data: Any, _flags: Any, code: ReasonCode, _properties: Any
    ) -> None:
        if code.is_failure:
            self._report(f"refused: {code}; check user name and password of the MQTT URL")
            self._ended.set()
            return
        client.subscribe(INGEST_FILTER, qos=1)

    def _on_subscribe(
        self, _client: mqtt.Client, _data: Any, _mid: int, codes: list[ReasonCode], _properties: Any
    ) -> None:
        refused = [code for code in codes if code.is_failure]
        if refused:
            self._report(f"no leave to subscribe to {INGEST_FILTER}: {refused[0]}; see the ACL")
            self._ended.set()
            return
        self.ready = self.took_messages = True
        self._report(None)

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
        self._ended.set()


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
