"""Whether a meter answers: OK, SUSPECT, DOWN; and whether the agent's own loops move."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

LONGEST_PAUSE_MS = 60_000
_DOWN_AFTER_FAILURES = 2
_PROBE_PATIENCE_MS = 5_000


class UnitState(StrEnum):
    """State of one meter on its bus."""

    OK = "ok"
    SUSPECT = "suspect"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What is known about a meter's answers.

    Attributes:
        answered_ms: Boot time of the last answer, or of the start.
        failures: Failed cycles since then.
        period_ms: How often the meter is asked.
    """

    answered_ms: int
    period_ms: int
    state: UnitState = UnitState.OK
    failures: int = 0


def state_at_start(kept: str) -> UnitState:
    """Return the state of a meter nobody has asked yet, by what was last recorded of it.

    One that did not answer, or never has, waits until those that did were read: a dead one costs
    its bus a second or more.
    """
    return {"ok": UnitState.OK, "down": UnitState.DOWN}.get(kept, UnitState.SUSPECT)


def answered(unit: Unit, now_ms: int) -> Unit:
    """Return the unit after a good answer."""
    return replace(unit, state=UnitState.OK, failures=0, answered_ms=now_ms)


def failed(unit: Unit, now_ms: int) -> Unit:
    """Return the unit after a failed cycle.

    DOWN takes two failures and more than two periods of silence: one alone would call a meter
    dead for a collision, or for being asked seldom.
    """
    failures = unit.failures + 1
    silent = now_ms - unit.answered_ms > 2 * unit.period_ms
    down = unit.state is UnitState.DOWN or (failures >= _DOWN_AFTER_FAILURES and silent)
    return replace(unit, failures=failures, state=UnitState.DOWN if down else UnitState.SUSPECT)


def pause_ms(failures: int) -> int:
    """Return the rest after so many failures: none after the first, then 1, 2, 4 ... 60 s."""
    if failures <= 1:
        return 0
    return min(1000 << min(failures - 2, 16), LONGEST_PAUSE_MS)


def probe_gap_ms(cost_ms: int) -> int:
    """Return how long a bus probes no dead meter after a probe that cost *cost_ms*.

    Dead meters together get a tenth of the bus.
    """
    return 9 * cost_ms


def probe_at_ms(open_ms: int, now_ms: int, next_live_ms: int, cost_ms: int) -> int:
    """Return when a dead meter is probed, so that no live one waits for it.

    Where the live meters leave no gap that long, it is probed at the beginning of a gap all the
    same, after a little patience.

    Args:
        open_ms: Not before this.
        now_ms: This moment.
        next_live_ms: When the next live meter is due.
        cost_ms: What the last failed attempt cost.
    """
    fits = max(open_ms, now_ms) + cost_ms < next_live_ms
    if fits or (now_ms < next_live_ms and now_ms - open_ms > _PROBE_PATIENCE_MS):
        return open_ms
    return max(open_ms, next_live_ms + 1)


def stuck(beats: Mapping[str, int], limits_ms: Mapping[str, int], now_ms: int) -> tuple[str, ...]:
    """Return the loops that made no progress within their limit."""
    return tuple(name for name, limit in limits_ms.items() if now_ms - beats.get(name, 0) > limit)
