"""The shipped ACL on a real mosquitto: a gateway is alone with the cloud."""

import queue
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode

from gridtokenx_wire import base58
from gridtokenx_wire.topics import INGEST_FILTER, Channel, topic
from tests.support.mosquitto import shipped_mosquitto
from tests.support.ports import free_port

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("mosquitto")]

ALICE, BOB = (base58.encode_key(bytes([n]) * 32) for n in (1, 2))
USERS = {ALICE: "alice-word", BOB: "bob-word", "cloud": "cloud-word"}
WAIT_S = 90.0


@dataclass
class Peer:
    """One client with what it was told, in order of arrival."""

    client: paho.Client
    answers: queue.Queue[ReasonCode] = field(default_factory=queue.Queue)
    messages: queue.Queue[tuple[str, bytes]] = field(default_factory=queue.Queue)

    def publish(self, to: str, payload: bytes = b"x") -> ReasonCode:
        self.client.publish(to, payload, qos=1)
        return self.answers.get(timeout=WAIT_S)

    def subscribe(self, pattern: str) -> ReasonCode:
        self.client.subscribe(pattern, qos=1)
        return self.answers.get(timeout=WAIT_S)


def connect(port: int, user: str, password: str) -> tuple[Peer, ReasonCode]:
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    peer = Peer(client)
    client.username_pw_set(user, password)
    client.on_connect = lambda _c, _u, _f, reason, _p: peer.answers.put(reason)
    client.on_publish = lambda _c, _u, _m, reason, _p: peer.answers.put(reason)
    client.on_subscribe = lambda _c, _u, _m, reasons, _p: peer.answers.put(reasons[0])
    client.on_message = lambda _c, _u, m: peer.messages.put((m.topic, bytes(m.payload)))
    client.connect("127.0.0.1", port)
    client.loop_start()
    return peer, peer.answers.get(timeout=WAIT_S)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder: Path = tmp_path_factory.mktemp("mosquitto")
    number = free_port()
    with shipped_mosquitto(folder, USERS, number):
        yield number


@pytest.fixture
def peers(port: int) -> Iterator[dict[str, Peer]]:
    found = {}
    for user, password in USERS.items():
        found[user], reason = connect(port, user, password)
        assert not reason.is_failure
    yield found
    for peer in found.values():
        peer.client.disconnect()
        peer.client.loop_stop()


def test_the_cloud_hears_every_gateway_and_answers_each(peers: dict[str, Peer]) -> None:
    cloud, alice = peers["cloud"], peers[ALICE]
    cloud.subscribe(INGEST_FILTER)
    alice.subscribe(topic(ALICE, Channel.RECEIPTS))

    sent = alice.publish(topic(ALICE, Channel.READINGS), b"line")
    answered = cloud.publish(topic(ALICE, Channel.RECEIPTS), b"receipt")

    assert not sent.is_failure
    assert not answered.is_failure
    assert cloud.messages.get(timeout=WAIT_S) == (topic(ALICE, Channel.READINGS), b"line")
    assert alice.messages.get(timeout=WAIT_S) == (topic(ALICE, Channel.RECEIPTS), b"receipt")


@pytest.mark.parametrize("channel", list(Channel))
def test_a_gateway_cannot_publish_below_another_id(
    peers: dict[str, Peer], channel: Channel
) -> None:
    reason = peers[BOB].publish(topic(ALICE, channel))

    assert reason.getName() == "Not authorized"


@pytest.mark.parametrize("channel", [Channel.RECEIPTS, Channel.COMMANDS])
def test_a_gateway_cannot_give_itself_receipts_or_commands(
    peers: dict[str, Peer], channel: Channel
) -> None:
    reason = peers[BOB].publish(topic(BOB, channel))

    assert reason.getName() == "Not authorized"


def test_a_gateway_that_listens_to_everything_hears_only_its_own(peers: dict[str, Peer]) -> None:
    bob, alice, cloud = peers[BOB], peers[ALICE], peers["cloud"]
    for pattern in ("gridtokenx/v1/#", "#", topic(ALICE, Channel.RECEIPTS), INGEST_FILTER):
        bob.subscribe(pattern)

    alice.publish(topic(ALICE, Channel.READINGS), b"secret")
    alice.publish(topic(ALICE, Channel.STATE), b"secret")
    cloud.publish(topic(ALICE, Channel.RECEIPTS), b"secret")
    cloud.publish(topic(BOB, Channel.RECEIPTS), b"mine")

    heard = bob.messages.get(timeout=WAIT_S)
    assert heard == (topic(BOB, Channel.RECEIPTS), b"mine")


def test_the_cloud_cannot_speak_for_a_gateway(peers: dict[str, Peer]) -> None:
    reason = peers["cloud"].publish(topic(ALICE, Channel.READINGS))

    assert reason.getName() == "Not authorized"


@pytest.mark.parametrize(("user", "password"), [(ALICE, "bob-word"), ("carol", "x"), ("", "")])
def test_a_stranger_is_turned_away(port: int, user: str, password: str) -> None:
    peer, reason = connect(port, user, password)

    peer.client.loop_stop()
    assert reason.is_failure
