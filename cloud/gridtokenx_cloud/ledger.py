"""What a meter's registers are worth: pure arithmetic over (meter, epoch) and over `seq`.

Credited Wh of an epoch = highest accepted register - lowest accepted register, whatever the order
in which the readings arrive; a lost, late or repeated reading costs resolution, never energy.
"""

from bisect import bisect_right
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, NamedTuple

from gridtokenx_wire.receipt import Ranges


class Mark(NamedTuple):
    """An accepted reading at one end of what is credited.

    Attributes:
        reading_id: Its row in the store.
        seq: Its place within (meter, epoch).
        export_wh: Its register, Wh.
        boot_id: Boot of the gateway that read it.
        mono_ms: Boot-time clock of that boot at the reading.
        not_before_ms, not_after_ms: Bounds of its true time; equal where the reading is dated.
    """

    reading_id: int
    seq: int
    export_wh: int
    boot_id: str
    mono_ms: int
    not_before_ms: int
    not_after_ms: int


class Span(NamedTuple):
    """What is credited of one epoch; both ends move outwards only.

    Attributes:
        first: Accepted reading with the lowest `seq`.
        newest: Accepted reading with the highest `seq`.
        baseline_wh: Register from which on energy is credited.
        credited_through_wh: Register up to which energy is credited.
    """

    first: Mark
    newest: Mark
    baseline_wh: int
    credited_through_wh: int


Window = tuple[int, int]
"""Time of the first and of the newest credited reading of an epoch, Unix ms."""


def window(span: Span) -> Window:
    """Return the time that an epoch covers."""
    first_ms, newest_ms = span.first.not_after_ms, span.newest.not_after_ms
    return first_ms, max(first_ms, newest_ms)


def overlaps(span: Span | None, mark: Mark, others: Collection[Window]) -> bool:
    """Return whether an epoch with *mark* in it would cover time that another one covers.

    A meter has one register at a time: what two epochs credit for the same time is one energy.
    """
    if not others:
        return False
    low, high = (mark.not_after_ms,) * 2 if span is None else window(span)
    low, high = min(low, mark.not_after_ms), max(high, mark.not_after_ms)
    return any(
        (low < last and first < high) or (low, high) == (first, last) for first, last in others
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a reading goes.

    Attributes:
        status: `late` when a reading with a higher `seq` was accepted before.
        credit_wh: What it adds, in whole steps of the meter's resolution.
        span: The epoch's span with this reading in it.
        since: The accepted reading its credit is measured from; None for credit 0 by rule.
    """

    status: Literal["accepted", "late"]
    credit_wh: int
    span: Span
    since: Mark | None


def place(span: Span | None, mark: Mark, resolution_wh: int) -> Placement | None:
    """Return where *mark* goes, or None when the registers disagree with the order of `seq`.

    Args:
        span: What is credited of this epoch, None before its first accepted reading.
        mark: The reading; its `seq` is not in the span yet.
        resolution_wh: Nothing below it is credited; the rest waits for the next reading.
    """
    if span is None:
        base = mark.export_wh
        opened = Span(first=mark, newest=mark, baseline_wh=base, credited_through_wh=base)
        return Placement(status="accepted", credit_wh=0, span=opened, since=None)
    if mark.seq > span.newest.seq:
        return _after(span, mark, resolution_wh)
    if mark.seq < span.first.seq:
        return _before(span, mark, resolution_wh)
    if span.first.export_wh <= mark.export_wh <= span.newest.export_wh:
        return Placement(status="late", credit_wh=0, span=span, since=None)
    return None


def _after(span: Span, mark: Mark, resolution_wh: int) -> Placement | None:
    if mark.export_wh < span.newest.export_wh:
        return None
    credit_wh = _whole_steps(mark.export_wh - span.credited_through_wh, resolution_wh)
    through_wh = span.credited_through_wh + credit_wh
    grown = Span(
        first=span.first,
        newest=mark,
        baseline_wh=span.baseline_wh,
        credited_through_wh=through_wh,
    )
    return Placement(status="accepted", credit_wh=credit_wh, span=grown, since=span.newest)


def _before(span: Span, mark: Mark, resolution_wh: int) -> Placement | None:
    if mark.export_wh > span.first.export_wh:
        return None
    credit_wh = _whole_steps(span.baseline_wh - mark.export_wh, resolution_wh)
    grown = Span(
        first=mark,
        newest=span.newest,
        baseline_wh=span.baseline_wh - credit_wh,
        credited_through_wh=span.credited_through_wh,
    )
    return Placement(status="late", credit_wh=credit_wh, span=grown, since=span.first)


def _whole_steps(wh: int, resolution_wh: int) -> int:
    return wh // resolution_wh * resolution_wh


def elapsed_ms(one: Mark, other: Mark) -> int:
    """Return the least time between two readings: by the boot-time clock, else by the wall clock.

    Never negative: where the clocks disagree with the order, no time has passed.
    """
    early, late = (one, other) if one.seq < other.seq else (other, one)
    if early.boot_id == late.boot_id:
        return max(0, late.mono_ms - early.mono_ms)
    return max(0, late.not_before_ms - early.not_after_ms)


def covers(ranges: Ranges, seq: int) -> bool:
    """Return whether *seq* is in one of the ascending, disjoint *ranges*."""
    at = bisect_right(ranges, seq, key=_first)
    return at > 0 and seq <= ranges[at - 1][1]


def add_seq(ranges: Ranges, seq: int) -> Ranges:
    """Return *ranges* with *seq* in them: ascending, disjoint and never touching."""
    if covers(ranges, seq):
        return ranges
    at = bisect_right(ranges, seq, key=_first)
    first = last = seq
    low = high = at
    if at > 0 and ranges[at - 1][1] == seq - 1:
        low, first = at - 1, ranges[at - 1][0]
    if at < len(ranges) and ranges[at][0] == seq + 1:
        high, last = at + 1, ranges[at][1]
    return (*ranges[:low], (first, last), *ranges[high:])


def _first(pair: tuple[int, int]) -> int:
    return pair[0]
