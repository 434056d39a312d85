"""What looks odd about a reading and is remarked, never a reason to hold it; pure.

What is held is decided by `plausibility`. A remark stands with the stored reading and is counted,
so that a meter or a cable that begins to fail shows before its readings are refused.
"""

from dataclasses import dataclass
from enum import IntFlag

from gridtokenx_cloud.verify import Meter
from gridtokenx_wire.encoding import line_hash
from gridtokenx_wire.record import Quality, SlotRecord

STUCK_WH = 100
"""Measured power that comes to so much in a slot must move a register."""
SPIKE_PERCENT = 280
"""A step's mean power against the measured power at both its ends: 180 % above, the spike
threshold of interval validation as utilities practise it."""
SPIKE_RATED_PERCENT = 25
"""A spike is at least this share of the rated power beyond what was measured."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class LastSlot:
    """The stored slot reading with the highest `seq` of an epoch."""

    seq: int
    line_hash: str
    boot_id: str
    mono_ms: int
    at_ms: int
    import_wh: int
    export_wh: int
    active_power_w: int | None


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
    )


def remarks_on(slot: SlotRecord, last: LastSlot | None, at_ms: int, meter: Meter) -> Remark:
    """Return what is odd about *slot*, which came after *last*.

    Args:
        slot: The reading.
        last: The newest slot stored before it came; None = the first of its epoch.
        at_ms: Its own time, or its arrival while nothing dates it.
        meter: As enrolled.
    """
    found = Remark.NONE
    if slot.flags and Quality.POWER_MISMATCH in slot.flags:
        found = Remark.PHASE_SUM
    if last is None or slot.stamp.seq < last.seq:
        return found
    if slot.prev != last.line_hash:
        found |= Remark.CHAIN_GAP
    passed_ms = _passed_ms(slot, last, at_ms)
    if _is_repeated(slot, last) or _is_stuck(slot, last, passed_ms):
        found |= Remark.STUCK
    if _is_spike(slot, last, passed_ms, meter):
        found |= Remark.SPIKE
    return found


def _passed_ms(slot: SlotRecord, last: LastSlot, at_ms: int) -> int:
    if slot.stamp.boot_id == last.boot_id:
        return max(0, slot.stamp.mono_ms - last.mono_ms)
    return max(0, at_ms - last.at_ms)


def _is_repeated(slot: SlotRecord, last: LastSlot) -> bool:
    return (slot.stamp.boot_id, slot.stamp.mono_ms) == (last.boot_id, last.mono_ms)


def _is_stuck(slot: SlotRecord, last: LastSlot, passed_ms: int) -> bool:
    if (slot.import_wh, slot.export_wh) != (last.import_wh, last.export_wh):
        return False
    power_w = min(abs(slot.live.active_power_w or 0), abs(last.active_power_w or 0))
    return power_w * passed_ms >= STUCK_WH * _MS_PER_H


def _is_spike(slot: SlotRecord, last: LastSlot, passed_ms: int, meter: Meter) -> bool:
    if slot.live.active_power_w is None or last.active_power_w is None or not passed_ms:
        return False
    measured_w = max(0, -slot.live.active_power_w, -last.active_power_w)
    return is_spike(slot.export_wh - last.export_wh, measured_w, passed_ms, meter)


def is_spike(moved_wh: int, measured_w: int, passed_ms: int, meter: Meter) -> bool:
    """Return whether a register moved far more than the exported power explains.

    Args:
        moved_wh: How far.
        measured_w: The higher export at both ends, 0 or more.
        passed_ms: In which time, above 0.
        meter: As enrolled.
    """
    step_wh = moved_wh - meter.resolution_wh
    beyond = step_wh * _MS_PER_H - measured_w * passed_ms
    return (
        step_wh * _MS_PER_H * 100 > measured_w * passed_ms * SPIKE_PERCENT
        and beyond * 100 > meter.rated_power_w * passed_ms * SPIKE_RATED_PERCENT
    )
