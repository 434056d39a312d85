"""From a claim to a gateway that the broker lets in and a reading that is credited."""

import json
import queue
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paho.mqtt.enums import CallbackAPIVersion

from gridtokenx_cloud.__main__ import cli
from gridtokenx_cloud.adapters.mosquitto import new_password, password_line
from gridtokenx_cloud.adapters.mqtt import MqttIngest
from gridtokenx_wire.claim import Claim, ClaimedMeter, encode_claim
from gridtokenx_wire.receipt import decode_receipt
from gridtokenx_wire.signing import signer, verify_ed25519
from gridtokenx_wire.topics import Channel, topic
from tests.support import build_cloud as build
from tests.support.build_cloud import Gateway
from tests.support.cloud_process import wait_until
from tests.support.mosquitto import find_mosquitto, shipped_mosquitto
from tests.support.ports import free_port

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(find_mosquitto() is None, reason="mosquitto is not installed"),
]

NEW = Gateway(Ed25519PrivateKey.from_private_bytes(b"n" * 32))
WAIT_S = 90.0


def connected(port: int, user: str, password: str) -> tuple[mqtt.Client, bool]:
    answers: queue.Queue[bool] = queue.Queue()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.username_pw_set(user, password)
    client.on_connect = lambda _c, _d, _f, reason, _p: answers.put(not reason.is_failure)
    client.connect("127.0.0.1", port)
    client.loop_start()
    return client, answers.get(timeout=WAIT_S)


def test_our_password_lines_are_mosquittos_own(tmp_path: Path) -> None:
    port, words = free_port(), {name: new_password() for name in ("alice", "bob")}
    lines = [password_line(name, word) for name, word in words.items()]

    with shipped_mosquitto(tmp_path, {"cloud": "cloud-word"}, port, lines=lines):
        clients = [
            connected(port, "alice", words["alice"]),
            connected(port, "bob", words["bob"]),
            connected(port, "alice", words["bob"]),
            connected(port, "cloud", "cloud-word"),
        ]
        for client, _ in clients:
            client.disconnect()
            client.loop_stop()

    assert [let_in for _, let_in in clients] == [True, True, False, True]


def test_an_accepted_claim_is_all_a_gateway_needs_for_its_first_credit(tmp_path: Path) -> None:
    meters = (ClaimedMeter(meter_id="HOUSE-40", profile="eastron-sdm630", resolution_wh=1),)
    claim = Claim(gateway_id=NEW.gateway_id, token=build.TOKEN, meters=meters)
    claim_file = tmp_path / "claim.txt"
    claim_file.write_bytes(encode_claim(claim, signer(NEW.key)) + b"\n")
    port, received = free_port(), queue.Queue[bytes]()

    with build.cloud(tmp_path) as cloud:
        store = ("--database-url", f"sqlite:///{tmp_path / 'cloud.db'}")
        chosen = ("--user", "ann", "--rated-power-w", "10000", "--json")
        done = CliRunner().invoke(
            cli, [*store, "gateway", "accept", str(claim_file), *chosen], catch_exceptions=False
        )
        (enrolled,) = json.loads(done.output)
        users, lines = {"cloud": "cloud-word"}, [enrolled["password_line"]]
        with shipped_mosquitto(tmp_path, users, port, lines=lines):
            url = f"mqtt://127.0.0.1:{port}"
            ingest = MqttIngest(url, "cloud", "cloud-word", None, cloud.service)
            ingest.start()
            wait_until(lambda: ingest.connected, "ingest takes messages")
            client, let_in = connected(port, NEW.gateway_id, enrolled["broker_password"])
            client.on_message = lambda _c, _d, packet: received.put(bytes(packet.payload))
            client.subscribe(topic(NEW.gateway_id, Channel.RECEIPTS), qos=1)
            message = NEW.sends(
                *(
                    build.slot(at=build.stamp(seq, meter_id="HOUSE-40"), export_wh=wh)
                    for seq, wh in ((96, 1_000), (97, 1_400))
                )
            )
            client.publish(message.topic, message.payload, qos=1).wait_for_publish(WAIT_S)
            receipt = decode_receipt(
                received.get(timeout=WAIT_S),
                build.CLOUD_KEY.public_key().public_bytes_raw(),
                verify_ed25519,
            )
            client.disconnect()
            client.loop_stop()
            ingest.stop()

        assert let_in
        assert enrolled["meters"] == "HOUSE-40"
        assert receipt.covers("HOUSE-40", build.EPOCH, 97)
        assert cloud.rows("SELECT sum(credit_wh) FROM meter_readings") == [(400,)]
