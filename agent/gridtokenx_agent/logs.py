"""Log lines for people and for machines."""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

_HOUR_S = 3600.0
_PER_HOUR = 6
_MOST_STORIES = 1000
_SUBJECTS = ("meter_id", "bus", "rule", "task", "command", "event", "device_id")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class TextFormatter(logging.Formatter):
    """`time level event key=value ...`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, and a traceback below it if there is one."""
        fields = "".join(f" {name}={_shown(value)}" for name, value in _fields(record).items())
        line = f"{_time(record)} {record.levelname.lower()} {record.getMessage()}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object per line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        value = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "service": "gtx-agent",
            **_fields(record),
        }
        if record.exc_info:
            value["traceback"] = self.formatException(record.exc_info)
        return json.dumps(value, default=str)


class Quiet(logging.Filter):
    """Lets a story be told six times an hour, and says how often it was left out since.

    A story is a message with what it is about; its numbers and reasons may differ. An SD card
    wears out by what a flapping meter has to say.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now_s = now_s
        self._hours: dict[tuple[object, ...], _Hour] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether *record* is written."""
        story = (record.name, record.msg, *(getattr(record, name, None) for name in _SUBJECTS))
        now_s = self._now_s()
        hour = self._hours.get(story)
        if hour is None or now_s - hour.began_s >= _HOUR_S:
            self._forget(now_s)
            if hour is not None and hour.told > _PER_HOUR:
                record.left_out = hour.told - _PER_HOUR
            hour = self._hours[story] = _Hour(now_s)
        hour.told += 1
        return hour.told <= _PER_HOUR

    def _forget(self, now_s: float) -> None:
        if len(self._hours) >= _MOST_STORIES:
            ended = [s for s, hour in self._hours.items() if now_s - hour.began_s >= _HOUR_S]
            for story in ended or list(self._hours)[:1]:
                del self._hours[story]


@dataclass(slots=True)
class _Hour:
    began_s: float
    told: int = 0


def set_up_logging(level: str, form: str) -> None:
    """Log to stderr; called once, by the program."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    handler.addFilter(Quiet())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _shown(value: object) -> str:
    text = str(value)
    return json.dumps(text) if " " in text or not text else text
