"""One line per event: JSON for machines, text for people; a known secret never passes."""

import json
import logging
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Literal, TextIO

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_OURS = "gridtokenx_cloud"
_SHORTEST_SECRET = 6
"""A shorter one is not masked, or ordinary words would be."""


def configure_logging(
    level: str,
    line_format: Literal["json", "text"],
    secrets: Iterable[str] = (),
    out: TextIO | None = None,
) -> None:
    """Send every logger's events to *out* (standard error by default).

    Args:
        level: debug, info, warning or error, for what is ours.
        line_format: JSON objects, or aligned text.
        secrets: Texts that are replaced by `***` wherever they turn up.
        out: Where to write.
    """
    handler = logging.StreamHandler(out or sys.stderr)
    handler.setFormatter(_EventFormatter(line_format == "json", secrets))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries narrate each request, URL with access key included; only their trouble counts.
    root.setLevel(max(logging.WARNING, logging.getLevelNamesMapping()[level.upper()]))
    logging.getLogger(_OURS).setLevel(level.upper())


class _EventFormatter(logging.Formatter):
    """The message is the event's name; what was given as `extra` are its fields."""

    def __init__(self, as_json: bool, secrets: Iterable[str]) -> None:
        super().__init__()
        self._as_json = as_json
        found = {form for secret in secrets for form in (secret, json.dumps(secret)[1:-1])}
        # The longest first: a secret may be a part of another.
        self._secrets = sorted((s for s in found if len(s) >= _SHORTEST_SECRET), key=len)[::-1]

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        line = self._json(record, fields) if self._as_json else self._text(record, fields)
        for secret in self._secrets:
            line = line.replace(secret, "***")
        return line

    def _json(self, record: logging.LogRecord, fields: dict[str, object]) -> str:
        head = {
            "time": _moment(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
        }
        return json.dumps(head | fields, default=str, separators=(",", ":"))

    def _text(self, record: logging.LogRecord, fields: dict[str, object]) -> str:
        trace = fields.pop("exception", None)
        pairs = "".join(f" {name}={_word(value)}" for name, value in fields.items())
        line = f"{_moment(record):%H:%M:%S} {record.levelname.lower():7} {_line(record)}{pairs}"
        return f"{line}\n{trace}" if trace else line


def _moment(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _line(record: logging.LogRecord) -> str:
    # A line break in what a stranger sent must not begin a line of its own.
    return record.getMessage().replace("\r", "\\r").replace("\n", "\\n")


def _word(value: object) -> str:
    text = str(value)
    return text if text and text.isprintable() and " " not in text else json.dumps(text)
