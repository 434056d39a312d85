"""Two clocks: boot time decides what is next, wall time says when it was."""

from dataclasses import dataclass

from gridtokenx_wire.record import ClockQuality

STEP_MS = 1000
"""A wall clock that moved this much against the boot-time clock was set, not disciplined."""
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Instant:
    """One moment on both clocks; see `gridtokenx_wire.record.Stamp` for the fields."""

    boot_id: str
    mono_ms: int
    wall_ms: int
    clock: ClockQuality


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockWatch:
    """What was last told about the wall clock: its offset to boot time, and whether it was true."""

    offset_ms: int
    synchronised: bool


def offset_ms(at: Instant) -> int:
    """Return wall minus boot-time clock."""
    return at.wall_ms - at.mono_ms


def watch_clock(told: ClockWatch | None, at: Instant) -> tuple[ClockWatch | None, bool]:
    """Return what is known now, and whether a clock record must tell it.

    It is told when the clock is first seen synchronised in this run, and when a synchronised
    clock was set: then the readings of this boot must be dated anew.
    """
    if at.clock is not ClockQuality.SYNCHRONISED:
        return told, False
    now = ClockWatch(offset_ms=offset_ms(at), synchronised=True)
    if told is None:
        return now, True
    moved = abs(now.offset_ms - told.offset_ms) > STEP_MS
    return (now, True) if moved else (told, False)


def elapsed_ms(since: Instant, until: Instant) -> int | None:
    """Return the time between two moments, or None when no clock can tell.

    Within a boot the boot-time clock counts, whatever the wall clock did meanwhile; across
    boots only two true wall clocks do.
    """
    if since.boot_id == until.boot_id:
        return max(0, until.mono_ms - since.mono_ms)
    if ClockQuality.UNSYNCHRONISED in (since.clock, until.clock):
        return None
    gap_ms = until.wall_ms - since.wall_ms
    # A true clock does not run backwards, so one of the two was not true.
    return gap_ms if gap_ms >= 0 else None
