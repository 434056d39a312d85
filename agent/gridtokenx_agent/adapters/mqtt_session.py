"""One connection to the broker, over paho-mqtt."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from gridtokenx_agent.errors import BrokerDownError, BrokerRefusedError
from gridtokenx_agent.ports import Acked, Arrived, LinkEvent, Lost, Will

WINDOW_MESSAGES = 20
"""paho's own limit of messages under way, and mosquitto's."""
MESSAGE_BYTES = 16_384
"""Some brokers cut a connection at 20 kB and do not announce it."""
PACKET_HEAD_BYTES = 256
CONNECT_TIMEOUT_S = 10.0
LAST_WORD_S = 2.0
_CREDENTIALS = {"Not authorized", "Bad user name or password", "Bad authentication method"}
_OLD_BROKER = "Unsupported protocol version"


async def to_its_end(work: Callable[[], None]) -> None:
    """Run *work* on a thread, and be cancelled only once it is done.

    A cancelled `to_thread` leaves its thread at work: a connection that nobody closes any more,
    or the end of one beside the beginning of the next.
    """
    job = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(job)
    except asyncio.CancelledError:
        await asyncio.wait([job])
        if not job.cancelled():
            job.exception()  # how it ended is of no interest any more
        raise


class ProtocolRefusedError(BrokerDownError):
    """The broker does not speak this version of MQTT, or hung up before it said anything."""


class MqttSession:
    """`BrokerSession`; paho's thread only fills queues, all decisions are the loop's."""

    def __init__(
        self,
        client: Client,
        will: Will,
        name: str,
        loop: asyncio.AbstractEventLoop,
        notify: Callable[[], None],
    ) -> None:
        self._client = client
        self._will = will
        self._name = name
        self._loop = loop
        self._notify = notify
        self._queue: SimpleQueue[LinkEvent] = SimpleQueue()
        self._greetings: SimpleQueue[ReasonCode] = SimpleQueue()
        self._greeted = asyncio.Event()
        self._window = WINDOW_MESSAGES
        self._max_bytes = MESSAGE_BYTES
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect

    @property
    def window(self) -> int:
        """See `BrokerSession.window`; paho itself does not heed it."""
        return self._window

    @property
    def max_bytes(self) -> int:
        """See `BrokerSession.max_bytes`."""
        return self._max_bytes

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
        await to_its_end(self._close)

    async def welcomed(self) -> None:
        """Wait for the broker's CONNACK.

        Raises:
            ProtocolRefusedError: Another version of MQTT may be welcome.
            BrokerDownError: It did not come.
            BrokerRefusedError: It says no.
        """
        code = await self._greeting()
        if not code.is_failure:
            return
        if str(code) == _OLD_BROKER:
            raise ProtocolRefusedError(f"{self._name} does not speak this version of MQTT")
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
        if self._speaks_5:
            self._client.subscribe([(topic, SubscribeOptions(qos=1)) for topic in topics])
        else:
            self._client.subscribe([(topic, 1) for topic in topics])
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
            raise ProtocolRefusedError(f"{self._name} closed the connection") from None

    @property
    def _speaks_5(self) -> bool:
        return self._client.protocol == MQTTProtocolVersion.MQTTv5

    def _close(self) -> None:
        if self._speaks_5:
            # The broker publishes our will as on a crash: the one death certificate there is.
            self._client.disconnect(
                reasoncode=ReasonCode(PacketTypes.DISCONNECT, "Disconnect with will message")
            )
        else:
            self._say_goodbye()
            self._client.disconnect()
        self._client.loop_stop()

    def _say_goodbye(self) -> None:
        """Publish the will ourselves: a broker of 3.1.1 forgets it at an orderly end."""
        if self._client.is_connected():
            last = self._client.publish(self._will.topic, self._will.payload, qos=1, retain=True)
            with contextlib.suppress(RuntimeError, ValueError):
                last.wait_for_publish(LAST_WORD_S)

    def _on_connect(
        self, _client: Client, _data: Any, _flags: ConnectFlags, code: ReasonCode, more: Any
    ) -> None:
        self._window = min(getattr(more, "ReceiveMaximum", WINDOW_MESSAGES), WINDOW_MESSAGES)
        largest = getattr(more, "MaximumPacketSize", MESSAGE_BYTES + PACKET_HEAD_BYTES)
        self._max_bytes = min(largest - PACKET_HEAD_BYTES, MESSAGE_BYTES)
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
