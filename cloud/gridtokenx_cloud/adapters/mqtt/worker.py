"""Readings from the broker through the service, receipts back to it."""

import logging
import queue
import random
import socket
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from gridtokenx_cloud.adapters.mqtt.connection import Broker, Connection, Delivery
from gridtokenx_cloud.adapters.mqtt.counters import MqttCounters
from gridtokenx_cloud.errors import TransientError
from gridtokenx_cloud.ingest import IngestService, Outcome
from gridtokenx_cloud.opened import OpenedLine
from gridtokenx_wire.topics import RECEIPTS_FILTER

MAX_BATCH_LINES = 500
MAX_BATCH_WAIT_S = 0.05
"""A batch that is not full goes to the store after this, or as soon as nothing more has come."""
MAX_WAITING_MESSAGES = 2_000
"""Own bound: mosquitto 2.0.11 does not keep to the receive maximum."""
MAX_PUT_OFF = 200
"""Messages of floods that wait here; more would take the others' place in the receive maximum."""

_LINES_AT_ONCE = 50
"""Verified before the network and the store are looked at again."""
_POLL_S = 0.2
# After each answer of the database the thread that commits waits until the one that verifies lets
# go of the interpreter, by default after 5 ms, many times a commit. Measured on PostgreSQL with 15
# lines a message: 87 instead of 146 us a line by the wall, for the same processor time.
_SWITCH_S = 0.0002
_FIRST_STORE_DELAY_S = 0.1
_LAST_STORE_DELAY_S = 5.0
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Batch:
    """What goes into one commit."""

    deliveries: list[Delivery] = field(default_factory=list)
    lines: list[OpenedLine] = field(default_factory=list)
    began_s: float = 0.0


class MqttIngest:
    """Feeds an `IngestService` from a shared subscription until it is stopped.

    Two threads: one talks to the broker and verifies, the other one commits; so the next batch is
    verified while the database works on the last one. A message is acknowledged after the commit
    that holds it, its receipt follows.
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
        self._inbox: deque[Delivery] = deque()
        self._put_off: deque[Delivery] = deque()
        self._batch = _Batch()
        self._to_store: queue.SimpleQueue[_Batch | None] = queue.SimpleQueue()
        self._stored: queue.SimpleQueue[tuple[_Batch, Outcome | None]] = queue.SimpleQueue()
        self._storing = 0
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._stopping = threading.Event()
        self._connection: Connection | None = None
        self._trouble: str | None = None
        self._threads = (
            threading.Thread(target=self._stay_connected, name="ingest-mqtt", daemon=True),
            threading.Thread(target=self._store, name="ingest-store", daemon=True),
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
        """Messages taken from the broker and not yet handed to the store."""
        return len(self._inbox) + len(self._put_off) + len(self._batch.deliveries)

    def start(self) -> None:
        """Begin to connect and to take messages; returns at once."""
        sys.setswitchinterval(_SWITCH_S)
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 20.0) -> None:
        """Take nothing new, finish and receipt what is here, and leave the broker."""
        self._stopping.set()
        self._wake()
        network, store = self._threads
        network.join(timeout_s)
        self._to_store.put(None)
        store.join(timeout_s)
        if not (network.is_alive() or store.is_alive()):
            self._woken.close()
            self._waker.close()

    # In the thread that talks to the broker.

    def _stay_connected(self) -> None:
        delay_s, last_delay_s = self._delays_s
        while not self._stopping.is_set():
            connection = self._connection = Connection(
                self._broker, self._receive, self._report, self._heed_refusal
            )
            if connection.open():
                self._serve(connection)
                connection.close()
            if connection.took_messages:
                delay_s = self._delays_s[0]
            # Jitter: after an outage not every worker and gateway may come in the same second.
            self._stopping.wait(random.uniform(delay_s / 2, delay_s))  # noqa: S311 - no secret
            delay_s = min(delay_s * 2, last_delay_s)

    def _serve(self, connection: Connection) -> None:
        """Work on what comes until the connection ends, or everything is done at a stop."""
        while not connection.ended:
            reading = len(self._inbox) < MAX_WAITING_MESSAGES
            took = connection.step(self._patience_s(), self._woken, reading=reading)
            self._heed_wake()
            self._answer()
            self._verify()
            self._hand_over(quiet=not took)
            if self._stopping.is_set():
                connection.unsubscribe()
                if not (took or self._storing or self._inbox or self._batch.deliveries):
                    connection.leave(self._woken)

    def _patience_s(self) -> float:
        """Return how long to wait for the network: not while there is something to do."""
        if self._storing == 0:
            return 0.0 if self._inbox or self._batch.deliveries else _POLL_S
        return 0.0 if self._inbox and len(self._batch.lines) < MAX_BATCH_LINES else _POLL_S

    def _wake(self) -> None:
        try:
            self._waker.send(b"\0")
        except BlockingIOError:
            return  # it is not awake yet from the last ones

    def _heed_wake(self) -> None:
        try:
            self._woken.recv(4096)
        except BlockingIOError:
            return

    def _receive(self, delivery: Delivery) -> None:
        self.counters.messages += 1
        self._inbox.append(delivery)

    def _report(self, trouble: str | None) -> None:
        """Log once when the connection breaks, or breaks in another way, and once when it heals."""
        if trouble is None:
            self.counters.connections += 1
            _log.info("mqtt_connected", extra={"broker": _shown(self._broker.url)})
        elif trouble != self._trouble and not self._stopping.is_set():
            _log.error("mqtt_down", extra={"broker": _shown(self._broker.url), "reason": trouble})
        self._trouble = trouble

    def _heed_refusal(self) -> None:
        """Count a receipt that the broker refused, and say so once."""
        if self.counters.receipts_refused == 0:
            reason = f"no leave to write to {RECEIPTS_FILTER}; see the ACL"
            _log.error("receipt_refused", extra={"reason": reason})
        self.counters.receipts_refused += 1

    def _verify(self) -> None:
        """Check some lines of what has come, up to the bound of one commit."""
        self._take_put_off()
        enough = min(len(self._batch.lines) + _LINES_AT_ONCE, MAX_BATCH_LINES)
        # Bounded by what is looked at: a flood that is put off must not keep others uncommitted.
        for _ in range(min(len(self._inbox), MAX_BATCH_LINES)):
            if len(self._batch.lines) >= enough:
                break
            delivery = self._inbox.popleft()
            if self._may_pass(delivery):
                self._take(delivery)

    def _take(self, delivery: Delivery) -> None:
        batch = self._batch
        if not batch.deliveries:
            batch.began_s = time.monotonic()
        batch.deliveries.append(delivery)
        batch.lines += self._service.open(delivery.message)

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

    def _take_put_off(self) -> None:
        """Take what was put off and has room now, in order."""
        for _ in range(len(self._put_off)):
            if len(self._batch.lines) >= MAX_BATCH_LINES:
                break
            delivery = self._put_off.popleft()
            if self._service.wait_ms(delivery.message):
                self._put_off.append(delivery)
            else:
                self._take(delivery)

    def _hand_over(self, *, quiet: bool) -> None:
        """Give the batch to the store when that has room, and more of it would come too late."""
        batch = self._batch
        full = len(batch.lines) >= MAX_BATCH_LINES
        # A full one may wait behind the one that is being stored, so that the store never waits.
        if not batch.deliveries or self._storing >= (2 if full else 1):
            return
        old = time.monotonic() - batch.began_s >= MAX_BATCH_WAIT_S
        if full or old or (quiet and not self._inbox):
            self._batch = _Batch()
            self._storing += 1
            self._to_store.put(batch)

    def _answer(self) -> None:
        """Acknowledge and receipt what is committed by now."""
        while not self._stored.empty():
            batch, outcome = self._stored.get()
            self._storing -= 1
            if outcome is None:
                continue
            self.counters.commits += 1
            for delivery in batch.deliveries:
                if delivery.connection.acknowledge(delivery.packet_id, delivery.qos):
                    self.counters.acknowledged += 1
                else:
                    self.counters.stale += 1
            self._send_receipts(outcome.receipts)

    def _send_receipts(self, receipts: list[tuple[str, bytes]]) -> None:
        connection = self._connection
        for gateway_id, payload in receipts:
            if connection is not None and connection.publish(gateway_id, payload):
                self.counters.receipts += 1
            else:
                self.counters.receipts_unsent += 1

    # In the thread that commits.

    def _store(self) -> None:
        while (batch := self._to_store.get()) is not None:
            outcome = self._commit(batch)
            self._stored.put((batch, outcome))
            self._wake()

    def _commit(self, batch: _Batch) -> Outcome | None:
        """Commit; while the store is down wait, with nothing acknowledged. None at the end."""
        delay_s = _FIRST_STORE_DELAY_S
        while True:
            try:
                return self._service.settle(batch.lines)
            except TransientError as exc:
                if delay_s == _FIRST_STORE_DELAY_S:
                    _log.error("ingest_store_down", extra={"reason": str(exc)})
                self.counters.store_retries += 1
                if self._stopping.wait(delay_s):
                    return None
                delay_s = min(delay_s * 2, _LAST_STORE_DELAY_S)


def _shown(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port or ''}".rstrip(":")
