"""One question to one gateway over the broker, and the wait for its answer."""

import queue
import ssl
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from gridtokenx_cloud.adapters.mqtt.connection import Broker
from gridtokenx_cloud.errors import BrokerDownError, ConfigError
from gridtokenx_wire.topics import Channel, topic

_KEEPALIVE_S = 30
_CONNECT_S = 10.0
T = TypeVar("T")
_News = tuple[str, bytes]


def ask_gateway(
    broker: Broker,
    gateway_id: str,
    command: bytes,
    timeout_s: float,
    read: Callable[[bytes], T | None],
) -> T | None:
    """Send *command* and return the first reply that *read* takes; None = none came in time.

    Raises:
        BrokerDownError: The broker cannot be reached, or lets us not send or listen.
        ConfigError: A certificate file cannot be used.
    """
    errand = _Errand(broker, gateway_id)
    try:
        errand.connect()
        errand.send(command)
        return errand.wait_for(read, timeout_s)
    finally:
        errand.close()


class _Errand:
    """paho's thread only fills the queue."""

    def __init__(self, broker: Broker, gateway_id: str) -> None:
        self._broker = broker
        self._commands = topic(gateway_id, Channel.COMMANDS)
        self._replies = topic(gateway_id, Channel.REPLIES)
        self._news: queue.SimpleQueue[_News] = queue.SimpleQueue()
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id="",
            protocol=mqtt.MQTTv5,
            reconnect_on_failure=False,
        )
        if broker.username is not None:
            client.username_pw_set(broker.username, broker.password)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_disconnect = lambda *_: self._news.put(("lost", b""))
        self._client = client

    def connect(self) -> None:
        """Connect and listen, before anything is asked."""
        parts = urlsplit(self._broker.url)
        secure = parts.scheme == "mqtts"
        try:
            if secure:
                self._client.tls_set_context(_tls(self._broker))
            port = parts.port or (8883 if secure else 1883)
            self._client.connect(parts.hostname or "", port, _KEEPALIVE_S, clean_start=True)
        except OSError as exc:
            raise BrokerDownError(f"broker {self._broker.url} cannot be reached: {exc}") from exc
        self._client.loop_start()
        self._expect("ready")

    def send(self, command: bytes) -> None:
        """Publish the command; not retained, or a gateway would find it long after."""
        self._client.publish(self._commands, command, qos=1)
        self._expect("sent")

    def wait_for(self, read: Callable[[bytes], T | None], timeout_s: float) -> T | None:
        """Return the first reply that is meant."""
        deadline_s = time.monotonic() + timeout_s
        while (left_s := deadline_s - time.monotonic()) > 0:
            try:
                what, payload = self._news.get(timeout=left_s)
            except queue.Empty:
                return None
            if what == "lost":
                raise BrokerDownError(f"broker {self._broker.url} closed the connection")
            if what == "reply" and (taken := read(payload)) is not None:
                return taken
        return None

    def close(self) -> None:
        """Leave the broker."""
        self._client.disconnect()
        self._client.loop_stop()

    def _expect(self, wanted: str) -> None:
        kept: list[_News] = []
        try:
            while True:
                what, payload = self._news.get(timeout=_CONNECT_S)
                if what == wanted:
                    break
                if what == "reply":
                    kept.append((what, payload))
                    continue
                reason = payload.decode() or "it closed the connection"
                raise BrokerDownError(f"broker {self._broker.url}: {reason}")
        except queue.Empty:
            raise BrokerDownError(
                f"broker {self._broker.url} did not answer within {_CONNECT_S:g} s"
            ) from None
        for news in kept:
            self._news.put(news)

    def _on_connect(
        self, client: mqtt.Client, _data: Any, _flags: Any, code: ReasonCode, _more: Any
    ) -> None:
        if code.is_failure:
            self._news.put(("no", f"{code}; check user name and password".encode()))
        else:
            client.subscribe(self._replies, qos=1)

    def _on_subscribe(
        self, _client: mqtt.Client, _data: Any, _mid: int, codes: list[ReasonCode], _more: Any
    ) -> None:
        if codes[0].is_failure:
            self._news.put(("no", f"may not read {self._replies}: {codes[0]}".encode()))
        else:
            self._news.put(("ready", b""))

    def _on_publish(
        self, _client: mqtt.Client, _data: Any, _mid: int, code: ReasonCode, _more: Any
    ) -> None:
        if code.is_failure:
            self._news.put(("no", f"may not write to {self._commands}: {code}".encode()))
        else:
            self._news.put(("sent", b""))

    def _on_message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        self._news.put(("reply", bytes(message.payload)))


def _tls(broker: Broker) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=broker.ca_file)
        if broker.cert_file is not None:
            context.load_cert_chain(broker.cert_file, broker.key_file)
    except OSError as exc:
        raise ConfigError((f"the TLS files of GTX_CLOUD_MQTT_* cannot be used: {exc}",)) from exc
    return context
