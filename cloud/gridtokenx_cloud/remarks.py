"""What looks odd about a reading; pure.

Every oddity stands with the stored reading and is counted, so that a meter or a cable that begins
to fail shows early. Whether one also holds the reading is decided by `plausibility`.
"""

from collections.abc import Callable, Sequence
from enum import IntFlag
from itertools import pairwise
from typing import NamedTuple

from gridtokenx_cloud.verify import Meter, ReadingRules
from gridtokenx_wire.encoding import line_hash
from gridtokenx_wire.record import FIRST_PREV, Quality, SlotRecord

_MS_PER_H = 3_600_000


class Remark(IntFlag):
    """Bits of `meter_readings.remarks`."""

    NONE = 0
    CHAIN_GAP = 1
    """The slot before it in its gateway's chain was not here when it came."""
    STUCK = 2
    """No register moved although power flowed, or the same answer came twice."""
    SPIKE = 4
    """The register moved far more than the measured power explains."""
    PHASE_SUM = 8
    """The gateway found that the phases do not add up to the total."""


class LastSlot(NamedTuple):
    """A stored slot reading that a later one of its epoch is compared with.

    Attributes:
        prev: What it names as the line before it; only needed of those that were not accepted.
    """

    seq: int
    line_hash: str
    boot_id: str
    mono_ms: int
    at_ms: int
    import_wh: int
    export_wh: int
    active_power_w: int | None
    prev: str = FIRST_PREV


Trail = Sequence[LastSlot]
"""The last accepted reading of an epoch and all stored after it, ascending by `seq`."""


def last_slot(slot: SlotRecord, line: bytes, at_ms: int) -> LastSlot:
    """Return what the next reading is compared with."""
    return LastSlot(
        seq=slot.stamp.seq,
        line_hash=line_hash(line),
        boot_id=slot.stamp.boot_id,
        mono_ms=slot.stamp.mono_ms,
        at_ms=at_ms,
        import_wh=slot.import_wh,
        export_wh=slot.export_wh,
        active_power_w=slot.live.active_power_w,
        prev=slot.prev,
    )


def follow(trail: Trail, seen: LastSlot, *, accepted: bool) -> Trail:
    """Return the trail with one reading more; an accepted one begins it anew."""
    earlier = [] if accepted else [one for one in trail if one.seq < seen.seq]
    return [*earlier, seen, *(one for one in trail if one.seq > seen.seq)]


def remarks_on(
    slot: SlotRecord, seen: LastSlot, trail: Trail, meter: Meter, rules: ReadingRules
) -> Remark:
    """Return what is odd about a reading.

    Args:
        slot: The reading.
        seen: The same, as later ones are compared with it.
        trail: What it is compared with; what comes after it is left out. The newest stored one
            alone tells what is new; all since the last accepted one tell what is still so, or
            else what is held would come through with the next reading.
        meter: As enrolled.
        rules: The thresholds in force.
    """
    found = _phase_sum(slot)
    if len(way := _way(seen, trail)) > 1:
        if _has_gap(way):
            found |= Remark.CHAIN_GAP
        if _is_stuck(way, meter, rules, _flowing_w):
            found |= Remark.STUCK
        if _is_spiked(way, slot.interval_s * 1000, meter, rules):
            found |= Remark.SPIKE
    return found


def doubts_on(
    slot: SlotRecord, seen: LastSlot, trail: Trail, meter: Meter, rules: ReadingRules
) -> Remark:
    """Return what is so odd that it may hold a reading, as far as such readings are held.

    Takes what `remarks_on` takes. A register that stands while power is only drawn is right with
    its 0 Wh. Were it held, all the time it stood would count for what the next reading claims.
    """
    found = _phase_sum(slot)
    if len(way := _way(seen, trail)) > 1:
        if rules.chain_gap_holds and _has_gap(way):
            found |= Remark.CHAIN_GAP
        if rules.stuck_holds and _is_stuck(way, meter, rules, _fed_in_w):
            found |= Remark.STUCK
        if rules.spike_holds and _is_spiked(way, slot.interval_s * 1000, meter, rules):
            found |= Remark.SPIKE
    return found


def _phase_sum(slot: SlotRecord) -> Remark:
    if slot.flags and Quality.POWER_MISMATCH in slot.flags:
        return Remark.PHASE_SUM
    return Remark.NONE


def _way(seen: LastSlot, trail: Trail) -> Trail:
    return [*(one for one in trail if one.seq < seen.seq), seen]


def _has_gap(way: Trail) -> bool:
    return any(later.prev != earlier.line_hash for earlier, later in pairwise(way))


def _passed_ms(earlier: LastSlot, later: LastSlot) -> int:
    if earlier.boot_id == later.boot_id:
        return max(0, later.mono_ms - earlier.mono_ms)
    return max(0, later.at_ms - earlier.at_ms)


def _is_stuck(
    way: Trail, meter: Meter, rules: ReadingRules, flow_w: Callable[[LastSlot], int]
) -> bool:
    first, last, newest = way[0], way[-2], way[-1]
    if (newest.boot_id, newest.mono_ms) == (last.boot_id, last.mono_ms):
        return True
    if (newest.import_wh, newest.export_wh) != (first.import_wh, first.export_wh):
        return False
    flowed = sum(
        min(flow_w(earlier), flow_w(later)) * _passed_ms(earlier, later)
        for earlier, later in pairwise(way)
    )
    # Less than two steps of a coarse register may flow before it moves.
    return flowed >= max(rules.stuck_wh, 2 * meter.resolution_wh) * _MS_PER_H


def _flowing_w(one: LastSlot) -> int:
    return abs(one.active_power_w or 0)


def _fed_in_w(one: LastSlot) -> int:
    return max(0, -(one.active_power_w or 0))


def _is_spiked(way: Trail, slot_ms: int, meter: Meter, rules: ReadingRules) -> bool:
    measured = sum(
        _exported_w(earlier, later, slot_ms, meter) * _passed_ms(earlier, later)
        for earlier, later in pairwise(way)
    )
    moved_wh = way[-1].export_wh - way[0].export_wh
    last_ms = max(slot_ms, _passed_ms(way[-2], way[-1]))
    return _is_beyond(moved_wh, measured, last_ms, meter, rules)


def _exported_w(earlier: LastSlot, later: LastSlot, slot_ms: int, meter: Meter) -> int:
    """Return the higher export at both ends; all that can be where nobody measured."""
    one_w, other_w = earlier.active_power_w, later.active_power_w
    if one_w is None or other_w is None or _passed_ms(earlier, later) * 2 > slot_ms * 3:
        return meter.rated_power_w
    return max(0, -one_w, -other_w)


def is_spike(
    moved_wh: int, measured_w: int, passed_ms: int, meter: Meter, rules: ReadingRules
) -> bool:
    """Return whether a register moved far more than the exported power explains.

    Args:
        moved_wh: How far.
        measured_w: The higher export at both ends, 0 or more.
        passed_ms: In which time, above 0.
        meter: As enrolled.
        rules: The thresholds in force.
    """
    return _is_beyond(moved_wh, measured_w * passed_ms, passed_ms, meter, rules)


def _is_beyond(
    moved_wh: int, measured_w_ms: int, slot_ms: int, meter: Meter, rules: ReadingRules
) -> bool:
    step_w_ms = (moved_wh - meter.resolution_wh) * _MS_PER_H
    floor_w_ms = meter.rated_power_w * slot_ms
    return (
        step_w_ms * 100 > measured_w_ms * rules.spike_percent
        and (step_w_ms - measured_w_ms) * 100 > floor_w_ms * rules.spike_rated_percent
    )
