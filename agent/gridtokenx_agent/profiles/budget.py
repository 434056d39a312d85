"""How busy a bus will be, before anything is connected to it."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from gridtokenx_agent.profiles.blocks import plan_blocks
from gridtokenx_agent.profiles.model import MeterProfile

MOST_BUSY_PERCENT: Final = 70
"""The rest is needed for repeats, for dead meters and for what others do on the bus."""
LATENCY_S: Final = 0.02
"""What a meter usually takes before it answers."""
_REQUEST_CHARACTERS: Final = 8
_ANSWER_CHARACTERS: Final = 5
_BITS_PER_CHARACTER: Final = 11
_SILENCE_CHARACTERS: Final = 3.5
_SHORTEST_SILENCE_S: Final = 0.00175


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Points of one meter that are read again and again."""

    profile: MeterProfile
    points: Collection[str]
    period_s: int


def bus_busy_percent(loads: Iterable[Load], baudrate: int | None) -> int:
    """Return how many percent of the time a bus is in use, rounded up.

    Args:
        loads: What is read from it.
        baudrate: Of the serial line; None for Modbus TCP, where only latency counts.
    """
    busy = sum(
        _transaction_s(block.count, load.profile.min_gap_ms / 1000, baudrate) / load.period_s
        for load in loads
        for block in plan_blocks(load.profile, load.points)
    )
    return -int(-busy * 100 // 1)


def busy_fault(percent: int, meters: int, baudrate: int | None) -> str | None:
    """Return why a bus that busy is refused, None when it is not."""
    if percent <= MOST_BUSY_PERCENT:
        return None
    line = f" at {baudrate} baud" if baudrate else ""
    return (
        f"{meters} meters{line} would keep it {percent} % busy, {MOST_BUSY_PERCENT} % is the "
        "limit; give longer interval_s and sample_s, a higher baudrate, or a second bus"
    )


def _transaction_s(registers: int, min_gap_s: float, baudrate: int | None) -> float:
    if baudrate is None:
        return LATENCY_S
    character_s = _BITS_PER_CHARACTER / baudrate
    silence_s = max(_SILENCE_CHARACTERS * character_s, _SHORTEST_SILENCE_S, min_gap_s)
    characters = _REQUEST_CHARACTERS + _ANSWER_CHARACTERS + 2 * registers
    return characters * character_s + silence_s + LATENCY_S
