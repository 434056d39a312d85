"""What is wrong and what to do about it, in words."""

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from gridtokenx_agent.adapters import broker_probe
from gridtokenx_agent.adapters.broker_probe import broker_checks
from gridtokenx_agent.adapters.buffer_file import open_file
from gridtokenx_agent.adapters.host import lock_holder, port_facts
from gridtokenx_agent.adapters.keyfile import load_key
from gridtokenx_agent.adapters.mqtt import MqttAddress
from gridtokenx_agent.adapters.rtu_framing import frame_of_another, rtu_frame
from gridtokenx_agent.adapters.simulator import Faults
from gridtokenx_agent.adapters.sqlite_buffer import open_buffer
from gridtokenx_agent.clock import DAY_MS
from gridtokenx_agent.diagnosis import (
    Check,
    Level,
    PortFacts,
    ServiceFacts,
    check_certificate,
    check_clock,
    check_disk,
    check_failed_meter,
    check_kept_meter,
    check_port,
    check_read_meter,
    check_receipts,
    check_refused,
    check_service,
)
from gridtokenx_agent.errors import (
    AgentError,
    BusDownError,
    MeterBusyError,
    MeterRefusedError,
    MeterTimeoutError,
)
from gridtokenx_wire.record import ClockQuality
from tests.agent.test_cli import Cli, cli, init_arguments
from tests.agent.test_scan_search import meter
from tests.support import build
from tests.support.served import served

__all__ = ["cli"]

BY_ID = Path("/dev/serial/by-id/usb-FTDI")
GOOD_PORT: dict[str, Any] = {
    "path": BY_ID, "exists": True, "is_port": True, "usable": True, "group": "dialout",
    "stable_name": BY_ID,
}  # fmt: skip
NOW_MS = build.NOON_MS


@pytest.mark.parametrize(
    ("changes", "level", "words"),
    [
        ({}, Level.OK, "may be used"),
        ({"exists": False}, Level.BAD, "plug the adapter in"),
        ({"is_port": False}, Level.BAD, "no serial port"),
        ({"usable": False}, Level.BAD, "usermod -aG dialout"),
        ({"users": ((7, "minicom"),)}, Level.BAD, "minicom (pid 7)"),
        ({"users": ((42, "gtx-agent"),)}, Level.OK, "in use by the agent"),
        ({"path": Path("/dev/ttyUSB0")}, Level.WARN, str(BY_ID)),
        ({"path": Path("/dev/ttyUSB0"), "stable_name": None}, Level.WARN, "udev"),
        ({"path": Path("/dev/ttyAMA0"), "stable_name": None}, Level.OK, "may be used"),
    ],
)
def test_a_port_is_judged(changes: dict[str, Any], level: Level, words: str) -> None:
    check = check_port(PortFacts(**GOOD_PORT | changes), agent_pid=42)

    assert check.level is level
    assert words in f"{check.said} {check.way_out}"


def test_an_agent_of_unknown_pid_may_have_the_port_open() -> None:
    facts = PortFacts(**GOOD_PORT | {"users": ((7, "gtx-agent"),)})

    assert check_port(facts, agent_pid=0).level is Level.OK
    assert check_port(facts, agent_pid=None).level is Level.BAD


@pytest.mark.parametrize(
    ("error", "others", "words"),
    [
        (MeterTimeoutError("x"), False, "A and B"),
        (MeterTimeoutError("x"), True, "the bus works"),
        (MeterTimeoutError("x", "garbage"), False, "baud rate and parity first"),
        (MeterTimeoutError("x", "other_unit"), False, "device id of its own"),
        (MeterTimeoutError("x", "other_answer"), False, "other masters"),
        (MeterRefusedError("exception 2", 2), False, "another model"),
        (MeterBusyError("exception 11", 0x0B), False, "behind the gateway"),
        (MeterBusyError("exception 6", 6), False, "wait"),
        (BusDownError("port is not there"), False, "port is not there"),
    ],
)
def test_each_kind_of_silence_has_its_own_way_out(
    error: AgentError, others: bool, words: str
) -> None:
    check = check_failed_meter("HOUSE-17", "bus, device id 1", error, others=others)

    assert check.level is Level.BAD
    assert check.way_out
    assert words in f"{check.said} {check.way_out}"


def test_a_frame_of_another_meter_is_told_from_noise() -> None:
    answer = rtu_frame(2, bytes((4, 4, 0x43, 0x66, 0x19, 0x9A)))

    assert frame_of_another(b"\x00\xff" + answer, 1)
    assert frame_of_another(rtu_frame(2, b"\x84\x02"), 1)
    assert not frame_of_another(answer, 2)
    assert not frame_of_another(answer[:-1] + b"\x00", 1)
    assert not frame_of_another(b"", 1)


def test_a_meter_without_energy_is_bad_and_one_with_an_odd_value_a_warning() -> None:
    assert check_read_meter("M", "import_energy has no value", "", implausible=False).level is (
        Level.BAD
    )
    assert check_read_meter("M", "", "1 Wh", implausible=True).level is Level.WARN
    assert check_read_meter("M", "", "1 Wh", implausible=False).level is Level.OK


@pytest.mark.parametrize(
    ("state", "last_ms", "level"),
    [
        ("ok", NOW_MS - 900_000, Level.OK),
        ("ok", NOW_MS - 7_200_000, Level.BAD),
        ("ok", None, Level.WARN),
        ("down", NOW_MS - 60_000, Level.BAD),
    ],
)
def test_a_meter_of_the_running_agent_is_judged_by_its_last_slot(
    state: str, last_ms: int | None, level: Level
) -> None:
    assert check_kept_meter("M", state, last_ms, 900, NOW_MS).level is level


def test_a_clock_nobody_vouches_for_is_a_warning_with_what_it_says() -> None:
    at = build.instant(clock=ClockQuality.UNSYNCHRONISED, wall_ms=37_000)

    check = check_clock(at)

    assert check.level is Level.WARN
    assert "1970-01-01" in check.said
    assert check_clock(build.instant()).level is Level.OK


@pytest.mark.parametrize(
    ("free_mb", "writable", "level"),
    [(1000, True, Level.OK), (100, True, Level.WARN), (10, True, Level.BAD), (None, True, "bad")],
)
def test_a_disk_is_judged_by_what_the_buffer_may_still_need(
    free_mb: int | None, writable: bool, level: Level
) -> None:
    free = None if free_mb is None else free_mb * 1024 * 1024

    assert check_disk(Path("/var"), free, 0, 256, writable=writable).level == level


def test_a_disk_that_turned_read_only_is_bad() -> None:
    assert check_disk(Path("/var"), 10**12, 0, 256, writable=False).level is Level.BAD


@pytest.mark.parametrize(
    ("last_ms", "waiting", "level"),
    [
        (NOW_MS - 60_000, 3, Level.OK),
        (NOW_MS - 7_200_000, 3, Level.BAD),
        (NOW_MS - 7_200_000, 0, Level.OK),
        (None, 3, Level.WARN),
    ],
)
def test_receipts_are_late_only_while_something_waits(
    last_ms: int | None, waiting: int, level: Level
) -> None:
    assert check_receipts(last_ms, waiting, NOW_MS, running=True).level is level


@pytest.mark.parametrize(
    ("after_ms", "level"),
    [(90 * DAY_MS, Level.OK), (3 * DAY_MS, Level.WARN), (-1, Level.BAD)],
)
def test_a_certificate_is_told_of_before_it_runs_out(after_ms: int, level: Level) -> None:
    assert check_certificate("the broker", 0, NOW_MS + after_ms, NOW_MS).level is level


def test_a_certificate_of_the_future_means_that_the_clock_is_wrong() -> None:
    check = check_certificate("the broker", NOW_MS, NOW_MS + DAY_MS, 37_000)

    assert check.level is Level.BAD
    assert "clock" in check.way_out


@pytest.mark.parametrize(
    ("facts", "pid", "level"),
    [
        (None, 42, Level.OK),
        (ServiceFacts(state="active", result="success", restarts=3), 42, Level.OK),
        (None, None, Level.WARN),
        (ServiceFacts(state="inactive", result="success", restarts=0), None, Level.WARN),
        (ServiceFacts(state="failed", result="exit-code", restarts=0), None, Level.BAD),
    ],
)
def test_whether_the_agent_runs(facts: ServiceFacts | None, pid: int | None, level: Level) -> None:
    assert check_service(facts, pid).level is level


def test_refused_lines_are_told_with_the_last_reason() -> None:
    assert check_refused(0, "").level is Level.OK
    assert "BadSignature" in check_refused(2, "BadSignature: because").said


def test_the_holder_of_the_buffer_is_found_without_touching_the_lock(tmp_path: Path) -> None:
    opened = open_file(tmp_path / "buffer.db", "gateway", 4, 0)
    lock = tmp_path / "buffer.db.lock"

    held = lock_holder(lock)
    opened.database.close()
    opened.lock.close()

    assert held in (os.getpid(), 0)
    assert lock_holder(lock) is None
    assert lock_holder(tmp_path / "nothing") is None


def test_a_port_that_is_a_file_or_missing_is_seen_as_such(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    assert not port_facts(tmp_path / "file").is_port
    assert not port_facts(tmp_path / "nothing").exists


def checks_of(out: str) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in json.loads(out)["checks"]}


def test_doctor_names_the_meter_and_the_broker_that_are_wrong(cli: Cli, tmp_path: Path) -> None:
    with served({1: meter("eastron-sdm630", Faults(exception=2))}) as url:
        cli(*init_arguments(tmp_path, bus_url=url, mqtt_url="mqtt://127.0.0.1:1"))
        code, out, _ = cli("doctor", "--config", str(tmp_path / "agent.toml"), "--json")

    checks = checks_of(out)
    assert code == 1
    assert not json.loads(out)["ok"]
    assert checks["configuration"]["level"] == "ok"
    assert "refuses the registers" in checks["meter HOUSE-17"]["said"]
    assert checks["broker port"]["level"] == "bad"
    assert "broker login" not in checks


def test_doctor_in_words_has_a_way_out_below_what_is_wrong(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    with served({1: meter("eastron-sdm630")}) as url:
        cli(*init_arguments(tmp_path, bus_url=url, mqtt_url="mqtt://no-such.host"))
        _, out, _ = cli("doctor", "--config", str(tmp_path / "agent.toml"))

    assert "ok    meter HOUSE-17: answers: import 1234567 Wh" in out
    assert "bad   broker name: no-such.host is unknown here" in out
    assert "      -> check mqtt.url" in out


def test_a_wrong_configuration_is_bad_and_the_machine_is_still_looked_at(
    cli: Cli, tmp_path: Path
) -> None:
    path = tmp_path / "agent.toml"
    path.write_text("[mqtt]\nurl = 'x'\n")

    code, out, _ = cli("doctor", "--config", str(path), "--json")

    names = [check["name"] for check in json.loads(out)["checks"]]
    assert code == 1
    assert names.count("configuration") == 5
    assert names[-1] == "clock"


async def _running(path: Path, gateway_id: str) -> Any:
    buffer = open_buffer(path, gateway_id, 4, 900, 0)
    await build.fill(buffer, "HOUSE-17", ["event", "slot"])
    return buffer


def test_while_the_agent_runs_its_bus_is_left_alone(cli: Cli, tmp_path: Path) -> None:
    with served({1: meter("eastron-sdm630", Faults(silent=True))}) as url:
        cli(*init_arguments(tmp_path, bus_url=url, mqtt_url="mqtt://127.0.0.1:1"))
        gateway_id = load_key(tmp_path / "gateway.key").gateway_id
        buffer = asyncio.run(_running(tmp_path / "buffer.db", gateway_id))
        out = cli("doctor", "--config", str(tmp_path / "agent.toml"), "--json")[1]
        buffer.close()

    checks = checks_of(out)
    assert checks["agent"]["level"] == "ok"
    assert "slot" in checks["meter HOUSE-17"]["said"]
    assert "2 lines wait" in checks["receipts"]["said"]


@contextmanager
def refusing_broker(connack: bytes, suback_code: int) -> Iterator[int]:
    """A broker of two answers, for what mosquitto never says."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _address = server.accept()
            with peer:
                peer.recv(1024)
                peer.sendall(connack)
                subscribe = peer.recv(1024)
                if subscribe:
                    peer.sendall(b"\x90\x04" + subscribe[2:4] + bytes((0, suback_code)))
                    peer.recv(1024)

        thread = Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join(10)


def visited(connack: bytes, suback_code: int) -> dict[str, Check]:
    with refusing_broker(connack, suback_code) as port:
        address = MqttAddress(url=f"mqtt://127.0.0.1:{port}", client_id="gateway")
        return {check.name: check for check in broker_checks(address, "a/b", NOW_MS)}


def test_a_topic_the_brokers_rules_forbid_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_probe, "_port", lambda *_: Check("broker port", Level.OK, ""))

    found = visited(b"\x20\x03\x00\x00\x00", 0x87)

    assert found["broker access"].level is Level.BAD
    assert "a/b (Not authorized)" in found["broker access"].said


def test_a_gateway_the_broker_does_not_know_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(broker_probe, "_port", lambda *_: Check("broker port", Level.OK, ""))

    found = visited(b"\x20\x03\x00\x86\x00", 0)

    assert found["broker login"].level is Level.BAD
    assert "Bad user name or password" in found["broker login"].said


def test_a_command_without_leave_to_read_is_one_line_that_says_sudo(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli(*init_arguments(tmp_path))
    refused = PermissionError(13, "Permission denied", "/var/lib/gridtokenx/buffer.db")

    def refuse(_path: Path) -> None:
        raise refused

    monkeypatch.setattr("gridtokenx_agent.adapters.buffer_status.read_status", refuse)
    code, out, err = cli("status", "--config", str(tmp_path / "agent.toml"))

    assert (code, out) == (1, "")
    assert err == "gtx-agent: /var/lib/gridtokenx/buffer.db: Permission denied; run it with sudo\n"
