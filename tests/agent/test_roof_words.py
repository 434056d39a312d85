"""What an installer reads when something is wrong: the thing, the value and the way out."""

import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gridtokenx_agent.adapters.keyfile import load_key
from gridtokenx_agent.adapters.modbus.port import _reason
from gridtokenx_agent.adapters.simulator import Faults
from gridtokenx_agent.adapters.sqlite_buffer import open_buffer
from gridtokenx_agent.app import mqtt_address, read_settings
from gridtokenx_agent.diagnosis import check_failed_meter
from gridtokenx_agent.errors import MeterTimeoutError
from tests.agent.test_cli import Cli, cli, init_arguments
from tests.agent.test_init import answer, places, written
from tests.agent.test_scan_search import meter
from tests.agent.test_settings import GOOD, faults
from tests.support import build
from tests.support.served import served

__all__ = ["cli"]
PROBE = ("--device-id", "1", "--address", "0")


@pytest.fixture
def held_port() -> Iterator[str]:
    """A serial port that another program has locked, as every careful one does."""
    master, slave = os.openpty()
    fcntl.flock(slave, fcntl.LOCK_EX)
    yield os.ttyname(slave)
    os.close(master)
    os.close(slave)


def test_an_adapter_that_is_not_plugged_in(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli("probe", f"rtu://{tmp_path}/ttyUSB0", *PROBE)

    assert code == 1
    assert err == (
        f"gtx-agent: {tmp_path}/ttyUSB0 cannot be opened: it is not there; plug the adapter in, "
        "`ls -l /dev/serial/by-id` shows its name\n"
    )


def test_a_port_that_another_program_holds(cli: Cli, held_port: str) -> None:
    code, _, err = cli("probe", f"rtu://{held_port}", *PROBE)

    assert (code, err.count("\n")) == (1, 1)
    assert "another program has it open" in err
    assert "systemctl stop gridtokenx-agent" in err


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EACCES, "usermod -aG dialout"), (errno.EIO, "pull it"), (errno.EPERM, "DeviceAllow=")],
)
def test_a_port_that_may_not_or_can_not_be_opened(number: int, words: str) -> None:
    assert words in _reason(OSError(number, os.strerror(number)), "rtu")


def test_a_gateway_that_is_not_there(cli: Cli) -> None:
    code, _, err = cli("probe", "tcp://127.0.0.1:1", *PROBE)

    assert (code, err.count("\n")) == (1, 1)
    assert "check address and port" in err


def test_a_meter_that_is_silent_for_one_function_is_asked_by_the_other(cli: Cli) -> None:
    silent = meter()
    silent.faults = Faults(silent=True)
    with served({1: silent}) as url:
        code, out, err = cli("probe", url, *PROBE)

    assert (code, err) == (1, "")
    assert out.count("silence") == 2
    assert "function 3: " in out
    assert "function 4: " in out


def test_a_configuration_that_is_for_the_service_alone(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli(*init_arguments(tmp_path))

    read_text = Path.read_text

    def refuse(path: Path, encoding: str | None = None) -> str:
        if path.name == "agent.toml":
            raise PermissionError(13, "Permission denied")
        return read_text(path, encoding)

    monkeypatch.setattr(Path, "read_text", refuse)
    code, _, err = cli("check-config", "--config", str(tmp_path / "agent.toml"))

    assert code == 2
    assert err.endswith("agent.toml is not for this user to read; run it with sudo\n")


def test_bytes_that_make_no_frame_may_come_from_two_meters_with_one_id() -> None:
    check = check_failed_meter("M", "bus", MeterTimeoutError("x", "garbage"), others=False)

    assert "no other meter has this device id" in check.way_out


@pytest.mark.parametrize("device_id", [0, 248, 255])
def test_a_device_id_that_no_meter_on_a_serial_bus_has(tmp_path: Path, device_id: int) -> None:
    text = GOOD.replace("tcp://127.0.0.1:502", "rtu:///dev/ttyUSB0")

    (fault,) = faults(tmp_path, text.replace("device_id = 1", f"device_id = {device_id}"))

    assert f"meter HOUSE-17: device_id = {device_id}" in fault
    assert "give 1 to 247" in fault


def test_one_port_under_two_names(tmp_path: Path) -> None:
    (tmp_path / "ttyUSB0").touch()
    (tmp_path / "usb-FTDI").symlink_to(tmp_path / "ttyUSB0")
    other = GOOD[GOOD.index("[[bus]]") :].replace("HOUSE-17", "HOUSE-18")
    text = GOOD.replace("tcp://127.0.0.1:502", f"rtu://{tmp_path}/ttyUSB0")
    text += other.replace("tcp://127.0.0.1:502", f"rtu://{tmp_path}/usb-FTDI?baudrate=19200")

    (fault,) = faults(tmp_path, text)

    assert "usb-FTDI?baudrate=19200 is the same place as" in fault
    assert "put its meters below that one" in fault


def test_what_was_given_as_an_option_is_not_asked_again(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, "ROOF")
    code, _, err = cli(
        "init", *places(tmp_path), "--mqtt-url", "mqtt://127.0.0.1:1",
        "--cloud-key", build.CLOUD_KEY_TEXT, "--token", build.TOKEN,
        "--bus-url", "tcp://127.0.0.1:1", "--profile", "abb-b23", "--device-id", "7",
        "--rated-power-w", "11000",
    )  # fmt: skip

    (entry,) = written(tmp_path)["bus"][0]["meter"]
    assert code == 0, err
    assert (entry["meter_id"], entry["device_id"], entry["rated_power_w"]) == ("ROOF", 7, 11_000)


def test_the_only_meter_a_search_finds_has_the_name_that_was_given(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served({4: meter()}) as url:
        answer(monkeypatch, "mqtt://127.0.0.1:1", "", build.CLOUD_KEY_TEXT, build.TOKEN, "")
        code, _, err = cli(
            "init", *places(tmp_path), "--bus-url", url, "--meter-id", "ROOF",
            "--rated-power-w", "11000",
        )  # fmt: skip

    (entry,) = written(tmp_path)["bus"][0]["meter"]
    assert code == 0, err
    assert (entry["meter_id"], entry["device_id"], entry["rated_power_w"]) == ("ROOF", 4, 11_000)


def test_a_disk_that_fills_while_something_is_written(cli: Cli, tmp_path: Path) -> None:
    cli(*init_arguments(tmp_path))
    key = load_key(tmp_path / "gateway.key")
    open_buffer(tmp_path / "buffer.db", key.gateway_id, 16, 900, 0).close()
    config = str(tmp_path / "agent.toml")

    code, _, err = cli("export", "--config", config, "--output", "/dev/full")

    assert code == 1
    assert err.endswith("No space left on device; check the disk\n")


def test_files_that_were_edited_on_windows(cli: Cli, tmp_path: Path) -> None:
    cli(*init_arguments(tmp_path, password_file=str(tmp_path / "password")))
    config = tmp_path / "agent.toml"
    mark = "\ufeff"
    config.write_text(mark + config.read_text().replace("\n", "\r\n"), newline="")
    (tmp_path / "password").write_text(f"{mark}secret\r\n", newline="")

    settings = read_settings(config)

    assert mqtt_address(settings.mqtt, "gateway").password == "secret"


@pytest.mark.parametrize("host", ["broker..example", "x" * 64 + ".example"])
def test_a_broker_that_no_name_server_can_be_asked_for(tmp_path: Path, host: str) -> None:
    (fault,) = faults(tmp_path, GOOD.replace("mqtt://127.0.0.1", f"mqtt://{host}"))

    assert fault.startswith(f"mqtt.url = 'mqtt://{host}:1883': no URL")


def test_a_port_that_is_not_there_is_not_searched_with_sixteen_settings(
    cli: Cli, tmp_path: Path
) -> None:
    code, out, err = cli("scan", "--port", str(tmp_path / "ttyUSB0"))

    assert (code, err) == (1, "")
    assert out.startswith(f"note: port {tmp_path}/ttyUSB0 is not there; plug the adapter in")


def test_a_configuration_that_is_not_there_cannot_be_edited(cli: Cli, tmp_path: Path) -> None:
    _, out, _ = cli("doctor", "--config", str(tmp_path / "none.toml"))

    assert "does not exist; write it with `gtx-agent init`\n" in out
    assert "edit the file" not in out


def test_places_are_written_so_that_they_hold_wherever_the_agent_starts(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cli(*init_arguments(tmp_path, buffer="b.db", key_file="k", ca_file="ca.crt"))

    found = written(tmp_path)
    assert found["buffer"]["path"] == str(tmp_path / "b.db")
    assert found["gateway"]["key_file"] == str(tmp_path / "k")
    assert found["mqtt"]["ca_file"] == str(tmp_path / "ca.crt")


def test_a_meter_that_takes_its_time_is_read_and_not_called_dead(cli: Cli, tmp_path: Path) -> None:
    slow = meter("eastron-sdm630")
    slow.faults = Faults(delay_ms=900)
    with served({1: slow}) as url:
        cli(*init_arguments(tmp_path, bus_url=url))
        code, out, _ = cli("read", "--config", str(tmp_path / "agent.toml"))

    assert (code, out.split(",")[0]) == (0, "HOUSE-17: import 1234567 Wh")
