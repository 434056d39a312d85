"""The broker, over paho-mqtt with MQTT 5: in 3.1.1 a refused PUBLISH looks like success."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import urlsplit

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from gridtokenx_agent.errors import BrokerDownError, BrokerRefusedError
from gridtokenx_agent.ports import Acked, Arrived, LinkEvent, Lost, Will

KEEPALIVE_S = 30
WINDOW_MESSAGES = 20
"""paho's own limit of messages under way, and mosquitto's."""
CONNECT_TIMEOUT_S = 10.0
_CREDENTIALS = {"Not authorized", "Bad user name or password", "Bad authentication method"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttAddress:
    """Where the broker is, and who we are there."""

    url: str
    client_id: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


class MqttLink:
    """`BrokerLink`; a new paho client for each session, so nothing of an old one can survive."""

    def __init__(self, address: MqttAddress, notify: Callable[[], None]) -> None:
        self._address = address
        self._notify = notify

    @property
    def name(self) -> str:
        """See `BrokerLink.name`."""
        user = f" as {self._address.username}" if self._address.username else ""
        return f"{self._address.url}{user}"

    async def connect(self, subscriptions: Sequence[str], will: Will) -> "MqttSession":
        """See `BrokerLink.connect`."""
        client = self._client(will)
        session = MqttSession(client, self.name, asyncio.get_running_loop(), self._notify)
        try:
            await asyncio.to_thread(self._dial, client)
            await session.welcomed()
            await session.subscribe(subscriptions)
        except BaseException:
            await session.close()
            raise
        return session

    def _client(self, will: Will) -> Client:
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._address.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.will_set(will.topic, will.payload, qos=1, retain=True)
        if self._address.username:
            client.username_pw_set(self._address.username, self._address.password)
        if self._address.url.startswith("mqtts:"):
            client.tls_set_context(self._tls())
        return client

    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._address.ca_file)
            if self._address.cert_file:
                context.load_cert_chain(self._address.cert_file, self._address.key_file)
        except OSError as exc:
            raise BrokerRefusedError(
                f"{self.name}: cannot use the TLS files ({exc}); check mqtt.ca_file, cert_file "
                "and key_file"
            ) from exc
        return context

    def _dial(self, client: Client) -> None:
        parts = urlsplit(self._address.url)
        port = parts.port or (8883 if parts.scheme == "mqtts" else 1883)
        try:
            client.connect(parts.hostname or "", port, KEEPALIVE_S, clean_start=True)
        except ssl.SSLCertVerificationError as exc:
            raise BrokerRefusedError(
                f"{self.name}: its certificate is not trusted ({exc.verify_message}); check "
                "mqtt.ca_file and the host name"
            ) from exc
        except OSError as exc:
            raise BrokerDownError(f"{self.name} cannot be reached: {exc}") from exc
        client.loop_start()


class MqttSession:
    """`BrokerSession`; paho's thread only fills queues, all decisions are the loop's."""

    def __init__(
        self,
        client: Client,
        name: str,
        loop: asyncio.AbstractEventLoop,
        notify: Callable[[], None],
    ) -> None:
        self._client = client
        self._name = name
        self._loop = loop
        self._notify = notify
        self._queue: SimpleQueue[LinkEvent] = SimpleQueue()
        self._greetings: SimpleQueue[ReasonCode] = SimpleQueue()
        self._greeted = asyncio.Event()
        self._window = WINDOW_MESSAGES
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect

    @property
    def window(self) -> int:
        """See `BrokerSession.window`; paho itself does not heed it."""
        return self._window

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """See `BrokerSession.publish`."""
        # paho keeps what it is given while offline and sends it later: a doubled message.
        if not self._client.is_connected():
            raise BrokerDownError(f"{self._name} is not connected")
        info = self._client.publish(topic, payload, qos=1, retain=retain)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise BrokerDownError(f"{self._name} took no message: {info.rc.name}")
        return info.mid

    def events(self) -> list[LinkEvent]:
        """See `BrokerSession.events`."""
        events: list[LinkEvent] = []
        with contextlib.suppress(Empty):
            while True:
                events.append(self._queue.get_nowait())
        return events

    async def close(self) -> None:
        """See `BrokerSession.close`."""
        await asyncio.to_thread(self._close)

    async def welcomed(self) -> None:
        """Wait for the broker's CONNACK.

        Raises:
            BrokerDownError: It did not come.
            BrokerRefusedError: It says no.
        """
        code = await self._greeting()
        if not code.is_failure:
            return
        if str(code) in _CREDENTIALS:
            raise BrokerRefusedError(
                f"{self._name}: {code}; check mqtt.username and mqtt.password_file, and that the "
                "broker knows this gateway"
            )
        raise BrokerDownError(f"{self._name} refuses the connection: {code}")

    async def subscribe(self, topics: Sequence[str]) -> None:
        """Subscribe and wait for the answer.

        Raises:
            BrokerDownError: No answer.
            BrokerRefusedError: The broker's access rules forbid it.
        """
        self._greeted.clear()
        self._client.subscribe([(topic, SubscribeOptions(qos=1)) for topic in topics])
        code = await self._greeting()
        if code.is_failure:
            raise BrokerRefusedError(
                f"{self._name}: may not subscribe to {', '.join(topics)} ({code}); check the "
                "broker's access rules for this gateway"
            )

    async def _greeting(self) -> ReasonCode:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._greeted.wait()
        except TimeoutError:
            raise BrokerDownError(
                f"{self._name} did not answer within {CONNECT_TIMEOUT_S:g} s"
            ) from None
        try:
            return self._greetings.get_nowait()
        except Empty:
            raise BrokerDownError(f"{self._name} closed the connection") from None

    def _close(self) -> None:
        # The broker publishes our will as on a crash: the one death certificate there is.
        self._client.disconnect(
            reasoncode=ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message")
        )
        self._client.loop_stop()

    def _on_connect(
        self, _client: Client, _data: Any, _flags: ConnectFlags, code: ReasonCode, more: Any
    ) -> None:
        self._window = min(getattr(more, "ReceiveMaximum", WINDOW_MESSAGES), WINDOW_MESSAGES)
        self._greetings.put(code)
        self._call(self._greeted.set)

    def _on_subscribe(
        self, _client: Client, _data: Any, _mid: int, codes: list[ReasonCode], _more: Any
    ) -> None:
        self._greetings.put(max(codes, key=lambda code: code.value))
        self._call(self._greeted.set)

    # paho holds a lock while it calls the next three: they only put, and never wait.
    def _on_publish(
        self, _client: Client, _data: Any, mid: int, code: ReasonCode, _more: Any
    ) -> None:
        self._put(Acked(mid, str(code) if code.is_failure else None))

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        self._put(Arrived(message.topic, bytes(message.payload)))

    def _on_disconnect(
        self, _client: Client, _data: Any, _flags: DisconnectFlags, code: ReasonCode, _more: Any
    ) -> None:
        self._put(Lost(str(code)))
        self._call(self._greeted.set)

    def _put(self, event: LinkEvent) -> None:
        self._queue.put(event)
        self._call(self._notify)

    def _call(self, function: Callable[[], None]) -> None:
        # The loop may be closed when the last packets come in; then nobody waits for them.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function)
