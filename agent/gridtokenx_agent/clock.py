"""Two clocks: boot time decides what is next, wall time says when it was."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

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


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelTime:
    """What the kernel says of its wall clock; its largest error grows until a daemon sets it."""

    synchronised: bool
    max_error_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockTrust:
    """Why the wall clock is believed or not.

    Attributes:
        floor_ms: The newest time a true clock has shown here; no true clock shows less.
        true_offset_ms: Wall minus boot-time clock when it was last true in this boot.
        kernel: What the kernel said at the last look.
        confirmed: A time daemon was seen at work since the start.
        doubted: The clock was behind *floor_ms*, and nothing confirmed it since.
    """

    floor_ms: int = 0
    true_offset_ms: int | None = None
    kernel: KernelTime | None = None
    confirmed: bool = False
    doubted: bool = False


def offset_ms(at: Instant) -> int:
    """Return wall minus boot-time clock."""
    return at.wall_ms - at.mono_ms


def remember(stored: Iterable[Instant], boot_id: str) -> ClockTrust:
    """Return what moments of earlier runs say about the clock of this boot."""
    true = [at for at in stored if at.clock is not ClockQuality.UNSYNCHRONISED]
    here = [at for at in true if at.boot_id == boot_id]
    newest = max(here, key=lambda at: at.mono_ms, default=None)
    return ClockTrust(
        floor_ms=max((at.wall_ms for at in true), default=0),
        true_offset_ms=None if newest is None else offset_ms(newest),
    )


def rate(
    trust: ClockTrust, kernel: KernelTime, mono_ms: int, wall_ms: int
) -> tuple[ClockTrust, ClockQuality]:
    """Return what is known now, and how good the wall clock is.

    A clock behind one that was true is not believed, whatever the kernel says, until a time
    daemon is seen at work: a saved clock state may have been restored. Holdover is a clock that
    was true in this boot and runs on; one that was set by hand meanwhile is none.
    """
    confirmed = trust.confirmed or _disciplined(trust.kernel, kernel)
    doubted = not confirmed and (trust.doubted or wall_ms < trust.floor_ms)
    offset = wall_ms - mono_ms
    now = replace(trust, kernel=kernel, confirmed=confirmed, doubted=doubted)
    if kernel.synchronised and not doubted:
        return replace(now, true_offset_ms=offset), ClockQuality.SYNCHRONISED
    runs_on = trust.true_offset_ms is not None and abs(offset - trust.true_offset_ms) <= STEP_MS
    return now, ClockQuality.HOLDOVER if runs_on else ClockQuality.UNSYNCHRONISED


def _disciplined(before: KernelTime | None, now: KernelTime) -> bool:
    """Return whether a time daemon set the clock between two looks."""
    if before is None or not now.synchronised:
        return False
    return not before.synchronised or now.max_error_us < before.max_error_us


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
