"""The machine's clocks, the service manager, and the log."""

import json
import logging
import socket
from pathlib import Path

from gridtokenx_agent.adapters.mqtt import MqttAddress
from gridtokenx_agent.adapters.system import SystemClock, jitter, new_epoch, notify
from gridtokenx_agent.logs import JsonFormatter, TextFormatter


def line(form: logging.Formatter, message: str, **fields: object) -> str:
    record = logging.makeLogRecord(
        {"msg": message, "levelno": logging.WARNING, "levelname": "WARNING", **fields}
    )
    return form.format(record)


def test_the_boot_is_named_without_dashes_and_time_goes_forward() -> None:
    clock = SystemClock()

    first, second = clock.now(), clock.now()

    assert len(first.boot_id) == 32
    assert int(first.boot_id, 16) >= 0
    assert second.mono_ms >= first.mono_ms
    assert first.clock in (0, 2)


async def test_a_time_that_has_passed_is_not_waited_for() -> None:
    clock = SystemClock()
    soon_ms = clock.now().mono_ms + 2

    await clock.sleep_until(soon_ms - 1_000_000)
    await clock.sleep_until(soon_ms)

    assert clock.now().mono_ms >= soon_ms


def test_epochs_differ_and_fit_the_wire() -> None:
    drawn = {new_epoch() for _ in range(100)}

    assert len(drawn) == 100
    assert all(len(epoch) == 16 for epoch in drawn)


def test_a_wait_is_drawn_between_nothing_and_its_bound() -> None:
    assert all(0 <= jitter(3.0) < 3.0 for _ in range(100))


def test_systemd_is_told_and_its_absence_is_no_trouble(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))

        notify(str(tmp_path / "notify"), "READY=1")
        notify(None, "READY=1")

        assert manager.recv(100) == b"READY=1"


def test_fields_of_a_log_line_are_readable_and_parse() -> None:
    text = line(TextFormatter(), "meter does not answer", meter_id="M 1", tries=3)
    parsed = json.loads(line(JsonFormatter(), "meter does not answer", meter_id="M 1", tries=3))

    assert text.endswith('warning meter does not answer meter_id="M 1" tries=3')
    assert (parsed["event"], parsed["meter_id"], parsed["tries"]) == (
        "meter does not answer",
        "M 1",
        3,
    )


def test_a_password_is_never_shown() -> None:
    address = MqttAddress(url="mqtt://x", client_id="c", username="u", password="hidden")

    assert "hidden" not in repr(address)
