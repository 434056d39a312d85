"""The doctor at a real broker: login, access rules, TLS and its dates."""

import os
import pwd
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gridtokenx_agent.adapters.broker_probe import broker_checks
from gridtokenx_agent.adapters.mqtt import MqttAddress
from gridtokenx_agent.diagnosis import Check, Level
from gridtokenx_wire.topics import Channel, topic
from tests.integration.test_broker_tls import Authority
from tests.support import build
from tests.support.mosquitto import find_mosquitto, shipped_mosquitto, wait_for_port
from tests.support.ports import free_port

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("mosquitto")]

GATEWAY_ID = build.SIGNER.gateway_id
RECEIPTS = topic(GATEWAY_ID, Channel.RECEIPTS)


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    number = free_port()
    with shipped_mosquitto(tmp_path, {GATEWAY_ID: "secret"}, number):
        yield number


def checks(address: MqttAddress) -> dict[str, Check]:
    now_ms = time.time_ns() // 1_000_000
    return {check.name: check for check in broker_checks(address, RECEIPTS, now_ms)}


def address(port: int, password: str) -> MqttAddress:
    return MqttAddress(
        url=f"mqtt://127.0.0.1:{port}",
        client_id=GATEWAY_ID,
        username=GATEWAY_ID,
        password=password,
    )


def test_a_gateway_the_broker_knows_may_log_in_and_read_its_receipts(port: int) -> None:
    found = checks(address(port, "secret"))

    assert {check.level for check in found.values()} == {Level.OK}
    assert list(found) == ["broker name", "broker port", "broker login"]


def test_a_wrong_password_is_told_as_such(port: int) -> None:
    found = checks(address(port, "wrong"))

    assert found["broker login"].level is Level.BAD
    assert "password_file" in found["broker login"].way_out


@contextmanager
def tls_broker(folder: Path) -> Iterator[int]:
    number = free_port()
    broker = find_mosquitto()
    assert broker is not None
    (folder / "tls.conf").write_text(
        f"listener {number} 127.0.0.1\nuser {pwd.getpwuid(os.geteuid()).pw_name}\n"
        f"allow_anonymous true\ncertfile {folder}/server.crt\nkeyfile {folder}/server.key\n"
    )
    with (folder / "tls.log").open("wb") as log:
        process = subprocess.Popen([broker, "-c", str(folder / "tls.conf")], stderr=log)
    try:
        wait_for_port(number, process)
        yield number
    finally:
        process.terminate()
        process.wait(timeout=90)


def test_tls_is_judged_with_the_dates_of_its_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue("server")

    with tls_broker(tmp_path) as number:
        place = f"mqtts://localhost:{number}"
        trusted = checks(MqttAddress(url=place, client_id=GATEWAY_ID, ca_file=tmp_path / "ca.crt"))
        unknown = checks(MqttAddress(url=place, client_id=GATEWAY_ID))

    assert trusted["certificate of the broker"].level is Level.WARN
    assert "runs out on" in trusted["certificate of the broker"].said
    assert trusted["broker TLS"].level is Level.OK
    assert trusted["broker login"].level is Level.OK
    assert unknown["broker TLS"].level is Level.BAD
    assert "ca_file" in unknown["broker TLS"].way_out
    assert "broker login" not in unknown


def test_files_of_tls_that_are_not_there_are_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.issue("server")

    with tls_broker(tmp_path) as number:
        found = checks(
            MqttAddress(
                url=f"mqtts://localhost:{number}", client_id=GATEWAY_ID, ca_file=tmp_path / "no.crt"
            )
        )

    assert found["broker TLS"].level is Level.BAD
    assert "files cannot be used" in found["broker TLS"].said
