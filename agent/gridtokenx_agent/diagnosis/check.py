"""What every check says."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: The thing.
        level: Whether somebody must act.
        said: One sentence about it.
        way_out: What to do; empty when all is well.
    """

    name: str
    level: Level
    said: str
    way_out: str = ""


def ago(moment_ms: int | None, now_ms: int) -> str:
    """Return how long ago a moment was, in words."""
    if moment_ms is None:
        return "none"
    seconds = (now_ms - moment_ms) // 1000
    for size, unit in ((86_400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit} ago"
    return f"{max(seconds, 0)} s ago"
