import io
import json
import logging
from typing import Literal

import pytest

from gridtokenx_cloud.logs import configure_logging

LOGGER = "gridtokenx_cloud.test"


def written(
    line_format: Literal["json", "text"], *secrets: str
) -> tuple[logging.Logger, io.StringIO]:
    out = io.StringIO()
    configure_logging("info", line_format, secrets, out)
    return logging.getLogger(LOGGER), out


def test_an_event_is_one_json_object_with_its_fields_as_keys() -> None:
    log, out = written("json")

    log.warning("batch_sealed", extra={"batch_id": 7, "wh": 1500})

    line = json.loads(out.getvalue())
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "warning",
        "event": "batch_sealed",
        "logger": LOGGER,
        "batch_id": 7,
        "wh": 1500,
    }


def test_text_for_people_has_the_fields_behind_the_event() -> None:
    log, out = written("text")

    log.info("meter_down", extra={"meter_id": "HOUSE-17", "reason": "no answer"})

    assert out.getvalue().endswith(' info    meter_down meter_id=HOUSE-17 reason="no answer"\n')


@pytest.mark.parametrize("line_format", ["json", "text"])
def test_what_a_stranger_sent_cannot_begin_a_line(line_format: Literal["json", "text"]) -> None:
    log, out = written(line_format)

    log.info("bad line\nerror forged", extra={"line": "a\nb"})

    assert out.getvalue().count("\n") == 1


@pytest.mark.parametrize("line_format", ["json", "text"])
def test_a_known_secret_never_passes(line_format: Literal["json", "text"]) -> None:
    log, out = written(line_format, "hunter2", 'with"quote')

    log.info("said hunter2", extra={"a": "x hunter2", "b": {"deep": 'with"quote'}})
    try:
        raise ValueError("hunter2")
    except ValueError:
        log.exception("failed")

    assert "hunter2" not in out.getvalue()
    assert "quote" not in out.getvalue()
    assert "ValueError: ***" in out.getvalue()


def test_events_below_the_level_are_not_written() -> None:
    log, out = written("json")

    log.debug("detail")

    assert out.getvalue() == ""


def test_of_libraries_only_trouble_is_written() -> None:
    _, out = written("json")

    logging.getLogger("some.library").info("POST https://rpc.example/?api-key=1")
    logging.getLogger("some.library").warning("in trouble")

    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["in trouble"]
