"""When a meter is read next; deadlines count on the boot-time clock."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from gridtokenx_agent.clock import STEP_MS, Instant, offset_ms
from gridtokenx_wire.record import ClockQuality


class Kind(IntEnum):
    """What is read; the lower, the more urgent."""

    SLOT = 0
    SAMPLE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one meter waits for.

    Attributes:
        slot_ms: Edge of the slot to read, boot-time clock.
        slot_end_ms: Edge after it: by then a slot without a good answer is missed.
        sample_ms: Next sample; None when the meter has none.
        not_before_ms: No attempt before this, after a failure.
        missed: A slot was missed since the last good one.
        shift_ms: Wall minus boot-time clock the edges were laid by; 0 while nobody knew the time.
        earliest_ms: Half an interval after the slot before: no edge is laid before it.
    """

    interval_s: int
    sample_s: int
    slot_ms: int
    slot_end_ms: int
    sample_ms: int | None
    not_before_ms: int = 0
    missed: bool = False
    shift_ms: int = 0
    earliest_ms: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """Which meter is read at which time."""

    index: int
    kind: Kind
    at_ms: int


def shift_ms(at: Instant, known_ms: int = 0) -> int:
    """Return wall minus boot-time clock; while the wall clock is not believed, what it was."""
    return known_ms if at.clock is ClockQuality.UNSYNCHRONISED else offset_ms(at)


def next_edge_ms(at: Instant, interval_s: int, not_before_ms: int, known_ms: int = 0) -> int:
    """Return the boot time of the first slot edge after *at* and not before *not_before_ms*.

    Edges are multiples of the interval of Unix time; while nobody knows the time, of the
    boot-time clock or of what was known last (*known_ms*, see `shift_ms`).
    """
    return _edge_ms(max(at.mono_ms + 1, not_before_ms), interval_s, shift_ms(at, known_ms))


def first_plan(at: Instant, interval_s: int, sample_s: int) -> Plan:
    """Return the plan of a meter whose agent starts at *at*."""
    edge_ms = next_edge_ms(at, interval_s, 0)
    return Plan(
        interval_s=interval_s,
        sample_s=sample_s,
        slot_ms=edge_ms,
        slot_end_ms=edge_ms + interval_s * 1000,
        sample_ms=at.mono_ms if sample_s else None,
        shift_ms=shift_ms(at),
        earliest_ms=at.mono_ms,
    )


def after_slot(plan: Plan, at: Instant, *, missed: bool = False) -> Plan:
    """Move on to the next slot; a clock set back a little must not give one edge twice."""
    earliest_ms = plan.slot_ms + plan.interval_s * 500
    edge_ms = next_edge_ms(at, plan.interval_s, earliest_ms, plan.shift_ms)
    return replace(_laid(plan, at, edge_ms), earliest_ms=earliest_ms, missed=missed)


def realign(plan: Plan, at: Instant) -> Plan:
    """Lay the next edge anew when the wall clock became true or was set.

    No edge comes twice; one that a jump has passed over is due at once.
    """
    shift = shift_ms(at, plan.shift_ms)
    if abs(shift - plan.shift_ms) <= STEP_MS or plan.slot_ms <= at.mono_ms:
        return plan
    return _laid(plan, at, _edge_ms(plan.earliest_ms, plan.interval_s, shift))


def _edge_ms(from_ms: int, interval_s: int, shift: int) -> int:
    interval_ms = interval_s * 1000
    return -(-(from_ms + shift) // interval_ms) * interval_ms - shift


def _laid(plan: Plan, at: Instant, edge_ms: int) -> Plan:
    return replace(
        plan,
        slot_ms=edge_ms,
        slot_end_ms=edge_ms + plan.interval_s * 1000,
        shift_ms=shift_ms(at, plan.shift_ms),
    )


def after_sample(plan: Plan, at: Instant) -> Plan:
    """Move on to the next sample after *at*; those missed collapse to one."""
    if plan.sample_ms is None:
        return plan
    period_ms = plan.sample_s * 1000
    periods = max(1, -(-(at.mono_ms + 1 - plan.sample_ms) // period_ms))
    return replace(plan, sample_ms=plan.sample_ms + periods * period_ms)


def expire(plan: Plan, at: Instant) -> Plan:
    """Give up slots whose time has passed; the newest one that still runs is kept."""
    if at.mono_ms < plan.slot_end_ms:
        return plan
    edge_ms = next_edge_ms(at, plan.interval_s, 0, plan.shift_ms)
    return replace(_laid(plan, at, edge_ms - plan.interval_s * 1000), missed=True)


def choose(plans: Sequence[Plan], now_ms: int) -> Choice:
    """Return what a bus reads next: slots before samples, the oldest deadline first.

    A sample that is overdue by a second and by its own period counts like a slot, so slots
    that keep failing can't starve it.
    """
    options = [option for index, plan in enumerate(plans) for option in _options(index, plan)]
    ready = [option for option in options if option.at_ms <= now_ms]
    if not ready:
        return min(options, key=lambda option: (option.at_ms, option.kind))
    return min(ready, key=lambda option: (_rank(plans[option.index], option, now_ms), option.at_ms))


def is_late(plan: Plan, at_ms: int) -> bool:
    """Return whether an answer at *at_ms* came more than a tenth of the interval after its edge."""
    return at_ms - plan.slot_ms > plan.interval_s * 100


def _options(index: int, plan: Plan) -> list[Choice]:
    slot = Choice(index, Kind.SLOT, max(plan.slot_ms, plan.not_before_ms))
    if plan.sample_ms is None:
        return [slot]
    return [slot, Choice(index, Kind.SAMPLE, max(plan.sample_ms, plan.not_before_ms))]


def _rank(plan: Plan, option: Choice, now_ms: int) -> Kind:
    overdue_ms = max(1000, plan.sample_s * 1000)
    starved = option.kind is Kind.SAMPLE and now_ms - option.at_ms > overdue_ms
    return Kind.SLOT if starved else option.kind
