"""What the ingest bench is made of: signed lines, a broker with a backlog, and who takes it.

Takers are processes of their own on a core of their own. They subscribe, are stopped (SIGSTOP)
while the whole backlog is published, and then let go, so that nobody publishes while they work.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as mqtt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from demo.processes import free_port
from gridtokenx_cloud.adapters.mqtt import MqttIngest
from gridtokenx_cloud.adapters.store.database import Database, open_database
from gridtokenx_cloud.adapters.store.ingest import SqlIngestStore
from gridtokenx_cloud.adapters.system import SystemClock
from gridtokenx_cloud.adapters.verifier import verify
from gridtokenx_cloud.ingest import IngestService, Message
from gridtokenx_cloud.verify import ReadingRules
from gridtokenx_wire.encoding import line_hash
from gridtokenx_wire.record import FIRST_PREV
from gridtokenx_wire.signing import signer
from gridtokenx_wire.topics import INGEST_FILTER
from tests.support import build_cloud as build
from tests.support.mosquitto import find_mosquitto, wait_for_port

GATEWAYS = 100
CORES = sorted(os.sched_getaffinity(0))
TAKER_CORES = CORES[:2]
OTHER_CORE = CORES[-1]
"""Broker, database server and whoever watches."""
PLAIN_BATCH = 500
GATEWAY_KEYS = [
    build.Gateway(Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big")))
    for number in range(1, GATEWAYS + 1)
]


def messages(slots: int, lines_per_message: int) -> Iterator[Message]:
    """Yield every gateway's slots, chained, the gateways in turn."""
    last = [FIRST_PREV] * GATEWAYS
    for first in range(1, slots + 1, lines_per_message):
        for number, gateway in enumerate(GATEWAY_KEYS):
            lines = []
            for seq in range(first, first + lines_per_message):
                at = build.stamp(seq, meter_id=f"M-{number}")
                slot = build.slot(at=at, export_wh=seq * 100)._replace(prev=last[number])
                lines.append(gateway.line(slot))
                last[number] = line_hash(lines[-1])
            yield gateway.message(*lines)


def enrol(database: Database) -> None:
    """Enrol the gateways, a meter and an owner each."""
    with database.transaction() as tx:
        for number, gateway in enumerate(GATEWAY_KEYS):
            owner, meter = f"user-{number}", f"M-{number}"
            tx.execute("INSERT INTO users VALUES (?, ?, 0)", (owner, f"wallet-{number}"))
            tx.execute(
                "INSERT INTO gateways VALUES (?, 'bench', 'active', 0)", (gateway.gateway_id,)
            )
            tx.execute(
                "INSERT INTO meters VALUES (?, ?, ?, 10000, 1, 'first', 0)",
                (meter, gateway.gateway_id, owner),
            )


def service_on(database: Database) -> IngestService:
    """Return the service as it runs, but for the age of readings."""
    return IngestService(
        SqlIngestStore(database),
        verify,
        signer(build.CLOUD_KEY),
        lambda: ReadingRules(reading_max_age_days=36_500),
        build.TOKEN,
        SystemClock(),
    )


@contextmanager
def broker(folder: Path) -> Iterator[tuple[int, int]]:
    """Run a mosquitto that lets everybody in and forgets nothing; yield its port and its pid."""
    port = free_port()
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n"
        "max_queued_messages 0\nmax_inflight_messages 1000\npersistence false\nuser root\n"
    )
    with subprocess.Popen(
        [find_mosquitto() or "mosquitto", "-c", str(config)], stderr=subprocess.DEVNULL
    ) as process:
        wait_for_port(port, process)
        try:
            yield port, process.pid
        finally:
            process.terminate()


def publish(port: int, backlog: list[Message]) -> None:
    """Publish all of it and return when the broker has it."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.max_inflight_messages_set(1_000)
    client.connect("127.0.0.1", port)
    client.loop_start()
    sent = [client.publish(message.topic, message.payload, qos=1) for message in backlog]
    for one in sent:
        one.wait_for_publish(60)
    client.disconnect()
    client.loop_stop()


@contextmanager
def taker(what: str, url: str, port: int, core: int) -> Iterator[subprocess.Popen[str]]:
    """Start a taker that has subscribed and is stopped."""
    command = [sys.executable, "-m", "bench.ingest_rig", what, url, str(port), str(core)]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            process.send_signal(signal.SIGSTOP)
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()


def cpu_s(pid: int) -> float:
    """Return the processor time of a process and of all it started, until now."""
    folder = Path("/proc") / str(pid)
    stat = (folder / "stat").read_text().rpartition(")")[2].split()
    own = sum(map(int, stat[11:15])) / os.sysconf("SC_CLK_TCK")
    started = (folder / "task" / str(pid) / "children").read_text().split()
    return own + sum(cpu_s(int(child)) for child in started)


def work(url: str, port: int) -> None:
    """Be a worker of the cloud until SIGTERM."""
    ingest = MqttIngest(
        f"mqtt://127.0.0.1:{port}", None, None, None, service_on(open_database(url))
    )
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))
    ingest.start()
    while not ingest.connected:
        time.sleep(0.01)
    print("ready", flush=True)
    while not ended:
        time.sleep(0.1)
    ingest.stop()


class Plain:
    """What one would write in an hour: paho, json, executemany; no check, no credit, no receipt."""

    def __init__(self, url: str, port: int) -> None:
        self._database = open_database(url)
        self._database.connection.execute(
            "CREATE TABLE plain (meter_id TEXT, epoch TEXT, seq BIGINT, export_wh BIGINT,"
            " line TEXT, PRIMARY KEY (meter_id, epoch, seq))"
        )
        self._rows: list[tuple[object, ...]] = []
        self._mids: list[int] = []
        self._client = mqtt.Client(
            CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5, manual_ack=True
        )
        self._client.on_message = self._take
        self._client.on_connect = lambda client, *_: client.subscribe(INGEST_FILTER, qos=1)
        self._client.on_subscribe = lambda *_: print("ready", flush=True)
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.ReceiveMaximum = 1_000
        self._client.connect("127.0.0.1", port, properties=properties)

    def run(self) -> None:
        """Take messages for ever; the last ones of a batch that is not full wait."""
        self._client.loop_forever()

    def _take(self, _client: mqtt.Client, _data: object, packet: mqtt.MQTTMessage) -> None:
        for line in packet.payload.split(b"\n"):
            value = json.loads(line)
            names = ("meter_id", "epoch", "seq", "export_wh")
            self._rows.append((*(value[name] for name in names), line.decode()))
        self._mids.append(packet.mid)
        if len(self._rows) >= PLAIN_BATCH:
            self._commit()

    def _commit(self) -> None:
        with self._database.transaction() as tx:
            tx.executemany(
                "INSERT INTO plain (meter_id, epoch, seq, export_wh, line) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (meter_id, epoch, seq) DO NOTHING",
                self._rows,
            )
        for mid in self._mids:
            self._client.ack(mid, 1)
        self._rows.clear()
        self._mids.clear()


def main(what: str, url: str, port: str, core: str) -> None:
    """Be a taker on one core."""
    os.sched_setaffinity(0, {int(core)})
    if what == "plain":
        Plain(url, int(port)).run()
    else:
        work(url, int(port))


if __name__ == "__main__":
    main(*sys.argv[1:])
