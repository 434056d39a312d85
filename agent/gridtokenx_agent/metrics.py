"""What the agent counts, in the text format of Prometheus."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from gridtokenx_agent.observed import Tally
from gridtokenx_agent.traffic import UplinkCounts

PREFIX = "gridtokenx_agent_"
UNIT_STATES = ("ok", "suspect", "down")
_UPLINK_HELP = {
    "connected": "1 while the broker has this gateway's session",
    "connections": "Sessions with the broker",
    "lines": "Lines given to the broker",
    "acknowledged": "Lines the broker took",
    "refused": "Lines the broker refused",
    "receipts": "Receipts signed by the cloud",
    "receipts_ignored": "Receipts of somebody else, or no receipts at all",
    "forgotten": "Lines that a receipt let the buffer forget",
    "dead": "Lines the cloud refused",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferDepth:
    """What waits: rows by kind, and when the oldest was written (None = nothing waits)."""

    rows: Mapping[str, int]
    oldest_wall_ms: int | None
    dead: int
    file_bytes: int


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric with its samples: labels -> value."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    samples: Mapping[tuple[tuple[str, str], ...], int]


def render(figures: Iterable[Figure]) -> str:
    """Return the text a scraper reads.

    Source: Prometheus exposition formats, text format 0.0.4.
    """
    lines: list[str] = []
    for figure in figures:
        name = PREFIX + figure.name + ("_total" if figure.kind == "counter" else "")
        lines += [f"# HELP {name} {figure.help}", f"# TYPE {name} {figure.kind}"]
        for labels, value in sorted(figure.samples.items()):
            shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
            lines.append(f"{name}{{{shown}}} {value}" if shown else f"{name} {value}")
    return "\n".join(lines) + "\n"


def tally_figures(tally: Tally) -> Iterator[Figure]:
    """Yield what meters and buses did."""
    yield _pairs("readings", "Committed records", tally.records, ("meter_id", "kind"))
    yield _pairs("rejects", "Values refused by a rule", tally.rejects, ("meter_id", "rule"))
    yield _pairs(
        "bus_transactions",
        "Reads of a bus by outcome; MeterTimeout = no true answer",
        tally.transactions,
        ("bus", "outcome"),
    )
    yield Figure(
        "bus_busy_ms",
        "counter",
        "Time a bus was busy, milliseconds",
        {(("bus", bus),): spent for bus, spent in tally.bus_ms.items()},
    )
    yield Figure(
        "meter_state",
        "gauge",
        "1 for the state a meter is in",
        {
            (("meter_id", meter_id), ("state", name)): int(name == state)
            for meter_id, state in tally.units.items()
            for name in UNIT_STATES
        },
    )
    yield _one("commit_failures", "counter", "Commits the disk did not take", tally.commit_failures)


def uplink_figures(counts: UplinkCounts) -> Iterator[Figure]:
    """Yield what the uplink did."""
    for name, value in asdict(counts).items():
        kind: Literal["counter", "gauge"] = "gauge" if name == "connected" else "counter"
        yield _one(f"uplink_{name}", kind, _UPLINK_HELP[name], value)


def buffer_figures(depth: BufferDepth, now_wall_ms: int) -> Iterator[Figure]:
    """Yield what waits in the buffer."""
    yield Figure(
        "buffer_rows",
        "gauge",
        "Lines that wait for a receipt",
        {(("kind", kind),): count for kind, count in depth.rows.items()},
    )
    age_ms = 0 if depth.oldest_wall_ms is None else max(0, now_wall_ms - depth.oldest_wall_ms)
    yield _one("buffer_oldest_age_seconds", "gauge", "Age of the oldest of them", age_ms // 1000)
    yield _one("buffer_dead_rows", "gauge", "Lines the cloud refused, kept", depth.dead)
    yield _one("buffer_file_bytes", "gauge", "Size of the buffer's file", depth.file_bytes)


def process_figures(
    software: str, clock_quality: int, restarts: Mapping[str, int], stuck: Iterable[str]
) -> Iterator[Figure]:
    """Yield how the agent itself is."""
    yield Figure("info", "gauge", "The program", {(("version", software),): 1})
    yield _one(
        "clock_quality", "gauge", "0 unsynchronised, 1 holdover, 2 synchronised", clock_quality
    )
    yield Figure(
        "task_restarts",
        "counter",
        "Tasks that ended and were started again",
        {(("task", name),): count for name, count in restarts.items()},
    )
    yield Figure(
        "stuck",
        "gauge",
        "Loops without progress; while there is one the watchdog is not fed",
        {(("loop", name),): 1 for name in stuck},
    )


def command_figures(counts: Mapping[str, int]) -> Iterator[Figure]:
    """Yield what became of the cloud's commands."""
    yield Figure(
        "commands",
        "counter",
        "Messages of the commands topic by what became of them",
        {(("outcome", name),): count for name, count in counts.items()},
    )


def _one(name: str, kind: Literal["counter", "gauge"], text: str, value: int) -> Figure:
    return Figure(name, kind, text, {(): value})


def _pairs(
    name: str, text: str, counts: Mapping[tuple[str, str], int], labels: tuple[str, str]
) -> Figure:
    return Figure(
        name,
        "counter",
        text,
        {tuple(zip(labels, key, strict=True)): count for key, count in counts.items()},
    )


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
