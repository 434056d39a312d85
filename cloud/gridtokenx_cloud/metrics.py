"""Figures for Prometheus, as text; pure."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

_PREFIX = "gridtokenx_"
_OUTCOMES = ("accepted", "late", "held", "duplicate")
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@dataclass(frozen=True, slots=True)
class Figure:
    """One number at one moment; a counter only grows.

    Attributes:
        name: Without the common prefix; counters end in `_total`.
        meaning: One phrase for people.
    """

    name: str
    meaning: str
    value: int
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def kind(self) -> Literal["counter", "gauge"]:
        """How Prometheus treats it."""
        return "counter" if self.name.endswith("_total") else "gauge"


def exposition(figures: Iterable[Figure]) -> str:
    """Return the text format, version 0.0.4; figures of one name stand together."""
    lines: list[str] = []
    for name, group in groupby(sorted(figures, key=lambda f: f.name), key=lambda f: f.name):
        members = list(group)
        lines += [
            f"# HELP {_PREFIX}{name} {members[0].meaning}",
            f"# TYPE {_PREFIX}{name} {members[0].kind}",
            *(f"{_PREFIX}{name}{_labels(one.labels)} {one.value}" for one in members),
        ]
    return "\n".join(lines) + "\n"


def process_figures(
    version: str, troubles: Mapping[str, str | None], restarts: Mapping[str, int]
) -> Iterator[Figure]:
    """Yield what one process knows of its roles.

    Args:
        version: Of this program.
        troubles: Role -> why it can do no work now.
        restarts: Role -> how often it was started again.
    """
    yield Figure("build_info", "Version of the program", 1, {"version": version})
    for role, trouble in troubles.items():
        labels = {"service": role}
        yield Figure("service_up", "1 while the service can work", int(trouble is None), labels)
        yield Figure(
            "service_restarts_total",
            "How often the service was started again",
            restarts.get(role, 0),
            labels,
        )


def ingest_figures(totals: Mapping[str, int]) -> Iterator[Figure]:
    """Yield what became of readings since the start.

    Args:
        totals: Outcomes, `rejected:<code>` and `remark:<name>`, with their numbers.
    """
    for name, number in totals.items():
        kind, _, detail = name.partition(":")
        if kind == "remark":
            meaning = "Stored readings that look odd"
            yield Figure("reading_remarks_total", meaning, number, {"remark": detail})
        elif detail or kind in _OUTCOMES:
            labels = {"outcome": kind, "reason": detail}
            meaning = "Lines by what became of them"
            yield Figure("meter_readings_processed_total", meaning, number, labels)


def access_figures(surface: str, refused: Mapping[str, int]) -> Iterator[Figure]:
    """Yield who was kept out since the start.

    Args:
        surface: http or websocket.
        refused: `wrong_secret`, `guesses` or `requests`, with their numbers.
    """
    labels = {"surface": surface}
    wrong = refused.get("wrong_secret", 0) + refused.get("guesses", 0)
    yield Figure("auth_failures_total", "Wrong tokens and tickets", wrong, labels)
    for reason in ("requests", "guesses"):
        meaning = "Who asked or guessed too often and was told to wait"
        number = refused.get(reason, 0)
        yield Figure("rate_limited_total", meaning, number, labels | {"reason": reason})


def connection_figures(roles: Iterable[str]) -> Iterator[Figure]:
    """Yield how many connections follow the live events, by the role of who is behind each."""
    for role, number in Counter(roles).items():
        meaning = "Connections to the live events"
        yield Figure("websocket_connections_active", meaning, number, {"role": role})


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{k}="{v.translate(_ESCAPES)}"' for k, v in labels.items()) + "}"
