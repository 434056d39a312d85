"""Several ingest processes on one PostgreSQL: kill -9 of any of them, the broker, the database."""

import queue
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.postgres import PostgresDatabase
from gridtokenx_cloud.errors import StoreBusyError
from gridtokenx_wire.receipt import Receipt, decode_receipt
from gridtokenx_wire.signing import verify_ed25519
from gridtokenx_wire.topics import Channel, topic
from tests.support import build_cloud as build
from tests.support.build_cloud import GATEWAY, METER_ID
from tests.support.mosquitto import find_mosquitto, shipped_mosquitto
from tests.support.ports import free_port
from tests.support.postgres import NOT_INSTALLED, Server, find_postgres, running_postgres
from tests.support.store_rows import told
from tests.support.stores import migrated

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed"),
    pytest.mark.skipif(find_postgres() is None, reason=NOT_INSTALLED),
]

ROOT = Path(__file__).parents[2]
USERS = {"cloud": "cloud-word", GATEWAY.gateway_id: "gateway-word"}
WORKERS = 3
LINES = 2_500


class PatientGateway:
    """Sends each line until its receipt comes, in any order, a few in a message."""

    def __init__(self, port: int, draw: random.Random) -> None:
        self.missing = set(range(1, LINES + 1))
        self.lines = {seq: GATEWAY.line(build.slot(seq, seq * 100)) for seq in self.missing}
        self._draw = draw
        self._receipts: queue.Queue[Receipt] = queue.Queue()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.username_pw_set(GATEWAY.gateway_id, USERS[GATEWAY.gateway_id])
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe(
            topic(GATEWAY.gateway_id, Channel.RECEIPTS), qos=1
        )
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _on_message(self, _client: object, _data: object, packet: mqtt.MQTTMessage) -> None:
        key = build.CLOUD_KEY.public_key().public_bytes_raw()
        self._receipts.put(decode_receipt(bytes(packet.payload), key, verify_ed25519))

    def send_for(self, seconds: float) -> bool:
        """Send what is missing; return whether every receipt is there."""
        until = time.monotonic() + seconds
        while self.missing and time.monotonic() < until:
            some = self._draw.sample(sorted(self.missing), min(4, len(self.missing)))
            message = GATEWAY.message(*(self.lines[seq] for seq in some))
            # Twice: readings of one meter arrive at two workers at the same instant.
            for _ in range(2):
                self._client.publish(message.topic, message.payload, qos=1)
            time.sleep(0.02)
            while not self._receipts.empty():
                receipt = self._receipts.get()
                self.missing -= {
                    seq for seq in self.missing if receipt.covers(METER_ID, build.EPOCH, seq)
                }
        return not self.missing

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Site:
    """Everything that can be killed; what was killed comes back."""

    def __init__(self, stack: ExitStack, folder: Path, server: Server, url: str) -> None:
        self.port = free_port()
        self._stack = stack
        self._folder = folder
        self._server = server
        self._url = url
        self._broker = self._new_broker()
        self._workers = [self._new_worker() for _ in range(WORKERS)]

    def _new_broker(self) -> subprocess.Popen[bytes]:
        return self._stack.enter_context(shipped_mosquitto(self._folder, USERS, self.port))

    def _new_worker(self) -> subprocess.Popen[bytes]:
        return self._stack.enter_context(worker(self._url, self.port))

    def strike(self, victim: str, draw: random.Random) -> None:
        if victim == "database":
            self._server.kill()
            time.sleep(draw.uniform(0, 1))
            self._server.start()
        elif victim == "broker":
            self._broker.kill()
            self._broker.wait()
            self._broker = self._new_broker()
        else:
            struck = draw.randrange(WORKERS)
            self._workers[struck].kill()
            self._workers[struck] = self._new_worker()

    def all_run(self) -> bool:
        return all(process.poll() is None for process in [self._broker, *self._workers])


@contextmanager
def worker(url: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    module = ("-m", "tests.support.ingest_worker")
    place = (url, f"mqtt://127.0.0.1:{port}", "cloud", USERS["cloud"], "none")
    process = subprocess.Popen([sys.executable, *module, *place], cwd=ROOT)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(90)


def enrolled(url: str) -> Database:
    database = migrated(url)
    with build.cloud(database):
        return PostgresDatabase(url)


@pytest.mark.xdist_group("kills")
def test_kills_of_workers_broker_and_database_lose_and_double_no_line(tmp_path: Path) -> None:
    draw = random.Random(20261125)
    with running_postgres() as server, ExitStack() as stack:
        url = server.new_database()
        database = enrolled(url)
        site = Site(stack, tmp_path, server, url)
        gateway = PatientGateway(site.port, draw)
        stack.callback(gateway.close)
        strikes = ["worker", "database", "worker", "broker", "worker", "worker"] * 2
        left = []
        for victim in strikes:
            gateway.send_for(draw.uniform(0.3, 1.2))
            left.append(len(gateway.missing))
            site.strike(victim, draw)
        done = gateway.send_for(300)
        ran = site.all_run()
        stored = rows(database, "SELECT seq, credit_wh, line FROM meter_readings ORDER BY seq")
        numbers = [(stream, offset) for stream, offset, _ in told(database)]
        heads = rows(database, "SELECT stream, last_offset FROM event_streams")
        ranges = rows(database, "SELECT first_seq, last_seq FROM seq_ranges")
        epochs = rows(database, "SELECT baseline_wh, credited_through_wh FROM meter_epochs")
        database.close()

    assert done
    assert ran
    assert sum(lines > 0 for lines in left) >= len(strikes) // 2
    assert [(seq, line) for seq, _, line in stored] == sorted(gateway.lines.items())
    [(baseline_wh, through_wh)] = epochs
    assert through_wh == LINES * 100
    assert sum(credit_wh for _, credit_wh, _ in stored) == through_wh - baseline_wh
    assert ranges == [(1, LINES)]
    for stream, last_offset in heads:
        offsets = sorted(offset for name, offset in numbers if name == stream)
        assert offsets == list(range(1, last_offset + 1))


def rows(database: Database, sql: str) -> list[tuple[Any, ...]]:
    """Return what is there; the first question after a kill finds a dead connection."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            return [tuple(row) for row in database.connection.execute(sql)]
        except StoreBusyError:
            time.sleep(0.1)
    raise AssertionError("the database does not come back")
