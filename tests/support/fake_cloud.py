"""A cloud of one page: keeps each line by its number, and signs receipts for what it has."""

import threading
import time
from collections.abc import Callable
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from gridtokenx_wire.encoding import parse_line, split_lines
from gridtokenx_wire.receipt import Receipt
from gridtokenx_wire.state import decode_state
from gridtokenx_wire.topics import Channel, parse_topic, topic
from tests.support import build

Key = tuple[str, str, int]


class FakeCloud:
    """Attributes: *lines* by (meter, epoch, seq); *conflicts* are numbers used twice."""

    def __init__(self, port: int, username: str, password: str) -> None:
        self.lines: dict[Key, bytes] = {}
        self.conflicts: list[Key] = []
        self.states: list[str] = []
        self.receipts = True
        self._lock = threading.Lock()
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self._client.username_pw_set(username, password)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = 90.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain: {self.states}"
            time.sleep(0.02)

    def known(self) -> set[Key]:
        with self._lock:
            return set(self.lines)

    def count(self, kind: str) -> int:
        with self._lock:
            return sum(parse_line(line).kind == kind for line in self.lines.values())

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: Client, *_: Any) -> None:
        client.subscribe([("gridtokenx/v1/+/readings", 1), ("gridtokenx/v1/+/state", 1)])

    def _on_message(self, client: Client, _data: Any, message: MQTTMessage) -> None:
        gateway_id, channel = parse_topic(message.topic)
        payload = bytes(message.payload)
        if channel is Channel.STATE:
            self.states.append(decode_state(payload).state)
            return
        durable: dict[str, dict[str, tuple[tuple[int, int], ...]]] = {}
        for line in split_lines(payload):
            stamp = parse_line(line).stamp
            key = (stamp.meter_id, stamp.epoch, stamp.seq)
            with self._lock:
                if self.lines.setdefault(key, line) != line:
                    self.conflicts.append(key)
            epochs = durable.setdefault(stamp.meter_id, {})
            epochs[stamp.epoch] = (*epochs.get(stamp.epoch, ()), (stamp.seq, stamp.seq))
        if self.receipts:
            receipt = Receipt(gateway_id=gateway_id, issued_ms=1, durable=durable)
            client.publish(topic(gateway_id, Channel.RECEIPTS), build.sealed(receipt), qos=1)
