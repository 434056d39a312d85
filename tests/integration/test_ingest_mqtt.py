"""Ingest over a real broker with the shipped configuration: receipts, kills, outages."""

import logging
import queue
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from gridtokenx_cloud.adapters.mqtt import MqttIngest
from gridtokenx_cloud.ingest import Message
from gridtokenx_cloud.throttle import TokenBuckets
from gridtokenx_wire.receipt import Receipt, decode_receipt
from gridtokenx_wire.signing import verify_ed25519
from gridtokenx_wire.topics import Channel, topic
from tests.support import build_cloud as build
from tests.support.build_cloud import GATEWAY, METER_ID, OTHER_GATEWAY, Cloud
from tests.support.mosquitto import find_mosquitto, shipped_mosquitto
from tests.support.ports import free_port
from tests.support.stores import sqlite_of

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed"),
]

ROOT = Path(__file__).parents[2]
WAIT_S = 90.0
USERS = {"cloud": "cloud-word", GATEWAY.gateway_id: "gateway-word"}


class GatewayClient:
    """A gateway as the broker sees it."""

    def __init__(self, port: int) -> None:
        self.receipts: queue.Queue[Receipt] = queue.Queue()
        self._subscribed: queue.Queue[None] = queue.Queue()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self.client.username_pw_set(GATEWAY.gateway_id, USERS[GATEWAY.gateway_id])
        self.client.on_message = lambda _client, _data, packet: self.receipts.put(
            decode_receipt(
                bytes(packet.payload),
                build.CLOUD_KEY.public_key().public_bytes_raw(),
                verify_ed25519,
            )
        )
        self.client.on_subscribe = lambda *_: self._subscribed.put(None)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        self.client.subscribe(topic(GATEWAY.gateway_id, Channel.RECEIPTS), qos=1)
        self._subscribed.get(timeout=WAIT_S)

    def publish(self, message: Message) -> None:
        sent = self.client.publish(message.topic, message.payload, qos=1)
        sent.wait_for_publish(WAIT_S)
        assert sent.is_published()

    def receipt(self) -> Receipt:
        return self.receipts.get(timeout=WAIT_S)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@contextmanager
def gateway_client(port: int) -> Iterator[GatewayClient]:
    client = GatewayClient(port)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def running(cloud: Cloud, port: int, word: str = USERS["cloud"]) -> Iterator[MqttIngest]:
    url = f"mqtt://127.0.0.1:{port}"
    ingest = MqttIngest(url, "cloud", word, None, cloud.service, first_delay_s=0.1)
    ingest.start()
    try:
        yield ingest
    finally:
        ingest.stop()


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with build.cloud(tmp_path) as made:
        yield made


@pytest.fixture
def port() -> int:
    return free_port()


def test_a_published_line_is_stored_and_its_receipt_comes_back(
    cloud: Cloud, port: int, tmp_path: Path
) -> None:
    with (
        shipped_mosquitto(tmp_path, USERS, port),
        running(cloud, port) as ingest,
        gateway_client(port) as gateway,
    ):
        wait_until(lambda: ingest.connected)
        gateway.publish(GATEWAY.sends(build.slot(96, 1_000), build.slot(97, 1_400)))
        receipt = gateway.receipt()

    assert receipt.covers(METER_ID, build.EPOCH, 97)
    assert cloud.readings() == [(96, "accepted", 0, None), (97, "accepted", 400, None)]
    assert ingest.counters.acknowledged == 1


def test_a_worker_killed_between_commit_and_acknowledgement_stores_once(
    cloud: Cloud, port: int, tmp_path: Path
) -> None:
    message = GATEWAY.sends(build.slot(96, 1_000), build.slot(97, 1_400))
    with shipped_mosquitto(tmp_path, USERS, port), gateway_client(port) as gateway:
        with worker(cloud, port, "before-ack") as doomed:
            wait_until(lambda: publish_once_taken(gateway, message, doomed))
            died_of = doomed.wait(WAIT_S)
        stored = cloud.readings()
        with worker(cloud, port, "none"):
            gateway_sends_until_receipted(gateway, message)

    assert died_of == -9
    assert stored == cloud.readings()
    assert cloud.readings() == [(96, "accepted", 0, None), (97, "accepted", 400, None)]


def publish_once_taken(
    gateway: GatewayClient, message: Message, doomed: subprocess.Popen[bytes]
) -> bool:
    """Send until somebody dies of it: nobody may be subscribed yet."""
    gateway.publish(message)
    time.sleep(0.1)
    return doomed.poll() is not None


def gateway_sends_until_receipted(gateway: GatewayClient, message: Message) -> None:
    def receipted() -> bool:
        gateway.publish(message)
        try:
            return gateway.receipts.get(timeout=0.3).covers(METER_ID, build.EPOCH, 97)
        except queue.Empty:
            return False

    wait_until(receipted)


def test_a_worker_killed_at_random_moments_loses_and_doubles_nothing(
    cloud: Cloud, port: int, tmp_path: Path
) -> None:
    chance = random.Random(17)
    missing = set(range(1, 301))
    lives_with_work = 0
    with shipped_mosquitto(tmp_path, USERS, port), gateway_client(port) as gateway:
        for life_s in (chance.uniform(0.7, 1.3) for _ in range(6)):
            with worker(cloud, port, "none") as process:
                send_for(life_s, gateway, missing)
                process.kill()
                lives_with_work += bool(missing)
        with worker(cloud, port, "none"):
            wait_until(lambda: send_for(0.3, gateway, missing))

    assert lives_with_work >= 1
    assert cloud.rows("SELECT count(*), sum(credit_wh) FROM meter_readings") == [(300, 299 * 100)]
    assert cloud.rows("SELECT first_seq, last_seq FROM seq_ranges") == [(1, 300)]
    assert cloud.rows("SELECT DISTINCT last_offset FROM event_streams") == [(300,)]


def send_for(seconds: float, gateway: GatewayClient, missing: set[int]) -> bool:
    """Send what has no receipt yet, in any order; return whether every receipt is there."""
    until = time.monotonic() + seconds
    while missing and time.monotonic() < until:
        for seq in random.Random(len(missing)).sample(sorted(missing), min(3, len(missing))):
            gateway.publish(GATEWAY.sends(build.slot(seq, seq * 100)))
        time.sleep(0.01)
        while not gateway.receipts.empty():
            receipt = gateway.receipt()
            missing -= {seq for seq in missing if receipt.covers(METER_ID, build.EPOCH, seq)}
    return not missing


@contextmanager
def worker(cloud: Cloud, port: int, dies: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.support.ingest_worker",
            f"sqlite:///{sqlite_of(cloud.database).path}",
            f"mqtt://127.0.0.1:{port}",
            "cloud",
            USERS["cloud"],
            dies,
        ],
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(WAIT_S)


def test_a_restarted_broker_is_found_again_and_no_stale_packet_is_acknowledged(
    cloud: Cloud, port: int, tmp_path: Path
) -> None:
    with running(cloud, port) as ingest:
        for seq in (96, 97, 98):
            with shipped_mosquitto(tmp_path, USERS, port), gateway_client(port) as gateway:
                wait_until(lambda: ingest.connected)
                gateway.publish(GATEWAY.sends(build.slot(seq, seq * 10)))
                assert gateway.receipt().covers(METER_ID, build.EPOCH, seq)
            wait_until(lambda: not ingest.connected)

    assert [row[0] for row in cloud.readings()] == [96, 97, 98]
    assert ingest.counters.connections == 3


def test_a_wrong_password_is_one_clear_line_and_does_not_end_the_program(
    cloud: Cloud, port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(logging.INFO, "gridtokenx_cloud"),
        shipped_mosquitto(tmp_path, USERS, port),
        running(cloud, port, word="wrong") as ingest,
    ):
        wait_until(lambda: bool(downs(caplog)))
        # It tries again and again, and says no more of it.
        time.sleep(1.5)
        alive = ingest.alive

    said = downs(caplog)
    assert alive
    assert not ingest.connected
    assert len(said) == 1
    assert "check user name and password" in str(said[0].__dict__["reason"])


def downs(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.message == "mqtt_down"]


def test_while_the_store_is_locked_nothing_is_acknowledged_and_then_everything_is(
    cloud: Cloud, port: int, tmp_path: Path
) -> None:
    with (
        shipped_mosquitto(tmp_path, USERS, port),
        running(cloud, port) as ingest,
        gateway_client(port) as gateway,
    ):
        wait_until(lambda: ingest.connected)
        with cloud.database.transaction():
            gateway.publish(GATEWAY.sends(build.slot(96, 1_000)))
            wait_until(lambda: ingest.counters.messages == 1)
            time.sleep(0.3)
            meanwhile = ingest.counters.acknowledged
        receipt = gateway.receipt()

    assert meanwhile == 0
    assert receipt.covers(METER_ID, build.EPOCH, 96)


def test_rubbish_from_a_gateway_is_refused_and_the_stream_goes_on(
    cloud: Cloud, port: int, tmp_path: Path
) -> None:
    with (
        shipped_mosquitto(tmp_path, USERS, port),
        running(cloud, port) as ingest,
        gateway_client(port) as gateway,
    ):
        wait_until(lambda: ingest.connected)
        for payload in (b"", b"\xff\xfe", b"[" * 100_000, b"x\n" * 101):
            gateway.publish(Message(topic(GATEWAY.gateway_id, Channel.READINGS), payload))
        gateway.publish(GATEWAY.sends(build.slot(96, 1_000)))
        wait_until(lambda: bool(cloud.readings()))
        alive = ingest.alive

    assert alive
    assert cloud.rows("SELECT DISTINCT code FROM rejections") == [("NotCanonical",)]


def test_a_flooding_gateway_waits_or_goes_without_receipt_and_slows_no_other(
    port: int, tmp_path: Path
) -> None:
    users = USERS | {OTHER_GATEWAY.gateway_id: "other-word"}
    other = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    other.username_pw_set(OTHER_GATEWAY.gateway_id, "other-word")
    noise = [
        GATEWAY.message(*(b"noise %d" % (100 * n + i) for i in range(100))) for n in range(300)
    ]
    with (
        # The clock of the buckets stands still: nothing flows back until the test says so.
        build.cloud(tmp_path, buckets=TokenBuckets(lines_per_s=1_500, burst=100)) as cloud,
        shipped_mosquitto(tmp_path, users, port),
        running(cloud, port) as ingest,
        gateway_client(port) as flooder,
    ):
        wait_until(lambda: ingest.connected)
        for message in noise:
            flooder.client.publish(message.topic, message.payload, qos=1)
        wait_until(lambda: ingest.counters.shed > 0)

        other.connect("127.0.0.1", port)
        other.loop_start()
        line = OTHER_GATEWAY.sends(build.slot(at=build.stamp(96, meter_id="HOUSE-18")))
        other.publish(line.topic, line.payload, qos=1)
        wait_until(lambda: len(cloud.readings()) == 1)
        refused_meanwhile = cloud.service.totals["rejected"]

        cloud.clock.at_ms += 3_600_000
        wait_until(lambda: cloud.service.totals["rejected"] > refused_meanwhile)
        other.disconnect()
        other.loop_stop()

    assert refused_meanwhile == 100
    assert ingest.counters.put_off >= 200
