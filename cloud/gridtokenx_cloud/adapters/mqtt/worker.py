"""Readings from the broker through the service, receipts back to it."""

import logging
import queue
import random
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from gridtokenx_cloud.adapters.mqtt.connection import Broker, Connection, Delivery
from gridtokenx_cloud.errors import TransientError
from gridtokenx_cloud.ingest import IngestService, Outcome

MAX_BATCH_LINES = 500
MAX_WAITING_MESSAGES = 1_000
"""Own bound: mosquitto 2.0.11 does not keep to the receive maximum."""
MAX_PUT_OFF = 200
"""Messages of floods that wait here; more would take the others' place in the receive maximum."""

_POLL_S = 0.2
_FIRST_STORE_DELAY_S = 0.1
_LAST_STORE_DELAY_S = 5.0
_log = logging.getLogger(__name__)


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
    store_retries: int = 0
    put_off: int = 0
    """Messages of a gateway above its rate, kept until there is room."""
    shed: int = 0
    """Messages of a flood, acknowledged and not stored: without a receipt they come again."""


class MqttIngest:
    """Feeds an `IngestService` from a shared subscription until it is stopped.

    Two threads: one keeps a connection, one verifies and commits. A message is acknowledged after
    the commit that holds it, its receipt follows.
    """

    def __init__(
        self,
        url: str,
        username: str | None,
        password: str | None,
        ca_file: Path | None,
        service: IngestService,
        *,
        cert_file: Path | None = None,
        key_file: Path | None = None,
        first_delay_s: float = 1.0,
        last_delay_s: float = 120.0,
    ) -> None:
        self.counters = MqttCounters()
        self._broker = Broker(url, username, password, ca_file, cert_file, key_file)
        self._service = service
        self._delays_s = (first_delay_s, last_delay_s)
        self._inbox: queue.Queue[Delivery] = queue.Queue(MAX_WAITING_MESSAGES)
        self._put_off: deque[Delivery] = deque()
        self._stopping = threading.Event()
        self._connection: Connection | None = None
        self._trouble: str | None = None
        self._threads = (
            threading.Thread(target=self._stay_connected, name="ingest-mqtt", daemon=True),
            threading.Thread(target=self._work, name="ingest-worker", daemon=True),
        )

    @property
    def connected(self) -> bool:
        """Whether the broker has confirmed the subscription and the connection stands."""
        connection = self._connection
        return connection is not None and connection.ready

    @property
    def alive(self) -> bool:
        """Whether both threads run; a dead one is a defect and needs a restart."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def waiting(self) -> int:
        """Messages taken from the broker and not yet committed."""
        return self._inbox.qsize()

    def start(self) -> None:
        """Begin to connect and to take messages; returns at once."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 20.0) -> None:
        """Take nothing new, finish and receipt what is here, and leave the broker."""
        self._stopping.set()
        connection = self._connection
        if connection is not None:
            connection.unsubscribe()
        network, worker = self._threads
        worker.join(timeout_s)
        if connection is not None:
            connection.leave()
        network.join(timeout_s)

    def _stay_connected(self) -> None:
        delay_s, last_delay_s = self._delays_s
        while not self._stopping.is_set():
            connection = self._connection = Connection(self._broker, self._enqueue, self._report)
            if connection.run():
                delay_s = self._delays_s[0]
            # Jitter: after an outage not every worker and gateway may come in the same second.
            self._stopping.wait(random.uniform(delay_s / 2, delay_s))  # noqa: S311 - no secret
            delay_s = min(delay_s * 2, last_delay_s)

    def _enqueue(self, delivery: Delivery) -> None:
        """Wait for room when the store is slower than the broker; TCP then slows the broker."""
        while not self._stopping.is_set():
            try:
                self._inbox.put(delivery, timeout=_POLL_S)
            except queue.Full:
                continue
            self.counters.messages += 1
            return

    def _report(self, trouble: str | None) -> None:
        """Log once when the connection breaks, or breaks in another way, and once when it heals."""
        if trouble is None:
            self.counters.connections += 1
            _log.info("mqtt_connected", extra={"broker": _shown(self._broker.url)})
        elif trouble != self._trouble and not self._stopping.is_set():
            _log.error("mqtt_down", extra={"broker": _shown(self._broker.url), "reason": trouble})
        self._trouble = trouble

    def _work(self) -> None:
        while (batch := self._collect()) is not None:
            if batch:
                self._settle(batch)

    def _collect(self) -> list[Delivery] | None:
        """Return what has arrived, up to the bound of one commit; None at the end."""
        batch = self._take_put_off()
        lines = sum(_line_count(delivery) for delivery in batch)
        wait_s = 0.0 if batch else _POLL_S
        # Bounded by what is looked at: a flood that is put off must not keep others uncommitted.
        for _ in range(MAX_BATCH_LINES):
            if lines >= MAX_BATCH_LINES:
                break
            try:
                delivery = self._inbox.get(timeout=wait_s) if wait_s else self._inbox.get_nowait()
            except queue.Empty:
                if not batch and self._stopping.is_set():
                    return None
                break
            wait_s = 0.0
            if self._may_pass(delivery):
                batch.append(delivery)
                lines += _line_count(delivery)
        return batch

    def _may_pass(self, delivery: Delivery) -> bool:
        """Let a gateway above its rate wait behind the others, and a flood go without a receipt."""
        if not self._service.wait_ms(delivery.message):
            return True
        if len(self._put_off) < MAX_PUT_OFF:
            self.counters.put_off += 1
            self._put_off.append(delivery)
        else:
            self.counters.shed += 1
            delivery.connection.acknowledge(delivery.packet_id, delivery.qos)
        return False

    def _take_put_off(self) -> list[Delivery]:
        """Return what was put off and has room now, in order."""
        batch: list[Delivery] = []
        for _ in range(len(self._put_off)):
            delivery = self._put_off.popleft()
            if self._service.wait_ms(delivery.message):
                self._put_off.append(delivery)
            else:
                batch.append(delivery)
        return batch

    def _settle(self, batch: list[Delivery]) -> None:
        outcome = self._process(batch)
        if outcome is None:
            return
        self.counters.commits += 1
        for delivery in batch:
            if delivery.connection.acknowledge(delivery.packet_id, delivery.qos):
                self.counters.acknowledged += 1
            else:
                self.counters.stale += 1
        self._send_receipts(outcome.receipts)

    def _process(self, batch: list[Delivery]) -> Outcome | None:
        """Commit; while the store is down wait, with nothing acknowledged. None at the end."""
        delay_s = _FIRST_STORE_DELAY_S
        while True:
            try:
                return self._service.process([delivery.message for delivery in batch])
            except TransientError as exc:
                if delay_s == _FIRST_STORE_DELAY_S:
                    _log.error("ingest_store_down", extra={"reason": str(exc)})
                self.counters.store_retries += 1
                if self._stopping.wait(delay_s):
                    return None
                delay_s = min(delay_s * 2, _LAST_STORE_DELAY_S)

    def _send_receipts(self, receipts: list[tuple[str, bytes]]) -> None:
        connection = self._connection
        for gateway_id, payload in receipts:
            if connection is not None and connection.publish(gateway_id, payload):
                self.counters.receipts += 1
            else:
                self.counters.receipts_unsent += 1


def _line_count(delivery: Delivery) -> int:
    return delivery.message.payload.count(b"\n") + 1


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or ''}".rstrip(":")
