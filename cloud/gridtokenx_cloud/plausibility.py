"""Whether a reading is believed: what is held keeps the base, the first hit decides."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from gridtokenx_cloud.ledger import Mark, Placement, Span, Window, elapsed_ms, overlaps, place
from gridtokenx_cloud.remarks import Remark
from gridtokenx_cloud.verify import Fault, Meter, ReadingRules, fault
from gridtokenx_wire.record import SlotRecord

FUTURE_TOLERANCE_MS = 5 * 60_000
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What becomes of a slot reading.

    Attributes:
        status: As stored.
        claim_wh: What the register asks for; only an accepted or late reading gets it.
        span: The epoch's span afterwards; None leaves it as it was.
        fault: Why it is held, else None.
    """

    status: Literal["accepted", "late", "held"]
    claim_wh: int = 0
    span: Span | None = None
    fault: Fault | None = None

    @property
    def credit_wh(self) -> int:
        """Return what is credited now."""
        return 0 if self.status == "held" else self.claim_wh


def mark_of(slot: SlotRecord, reading_id: int, dated_ms: int | None, now_ms: int) -> Mark:
    """Return the place of a slot reading in its epoch; *now_ms* is when the cloud got it."""
    stamp = slot.stamp
    return Mark(
        reading_id=reading_id,
        seq=stamp.seq,
        export_wh=slot.export_wh,
        boot_id=stamp.boot_id,
        mono_ms=stamp.mono_ms,
        not_before_ms=min(stamp.wall_ms, now_ms) if dated_ms is None else dated_ms,
        not_after_ms=now_ms if dated_ms is None else dated_ms,
    )


def validate_reading(
    mark: Mark,
    span: Span | None,
    meter: Meter,
    *,
    interval_s: int,
    dated_ms: int | None,
    now_ms: int,
    rules: ReadingRules,
    odd: Remark = Remark.NONE,
    others: Collection[Window] = (),
) -> Verdict:
    """Decide over a slot reading of a confirmed epoch.

    Args:
        mark: The reading.
        span: What is credited of its epoch so far.
        meter: As enrolled.
        interval_s: Length of its slot.
        dated_ms: Its corrected time, None when nothing dates it.
        now_ms: When the cloud got it.
        rules: The limits in force.
        odd: What is odd about it, measured since the last accepted reading.
        others: What the meter's other epochs cover.
    """
    placement = place(span, mark, meter.resolution_wh)
    if placement is None:
        return Verdict(status="held", fault=_backwards(mark, meter))
    if placement.status == "late" and placement.since is None:
        return Verdict(status="late")
    found = check_overlap(mark, span, meter, others) or (
        _too_high(mark, placement, meter, interval_s, rules)
        or _too_strong(mark, placement, meter)
        or _wrong_time(meter, dated_ms, now_ms, rules)
        or _doubted(odd, mark, placement, meter, rules)
    )
    if found is not None:
        return Verdict(status="held", claim_wh=placement.credit_wh, fault=found)
    return Verdict(status=placement.status, claim_wh=placement.credit_wh, span=placement.span)


def check_overlap(
    mark: Mark, span: Span | None, meter: Meter, others: Collection[Window]
) -> Fault | None:
    """Return why a reading would count energy that another epoch of the meter counts."""
    if not overlaps(span, mark, others):
        return None
    return fault(
        "EpochOverlap",
        f"The reading of meter {meter.meter_id} at seq {mark.seq} is of a time that another epoch "
        "of the meter covers; reject it, and look for a restored or copied gateway.",
    )


def _backwards(mark: Mark, meter: Meter) -> Fault:
    return fault(
        "CounterBackwards",
        f"Register export_wh={mark.export_wh} of meter {meter.meter_id} at seq {mark.seq} runs "
        "against the order of the readings already accepted; reject it, or begin a new epoch if "
        "the meter was exchanged.",
    )


def _too_high(
    mark: Mark, placement: Placement, meter: Meter, interval_s: int, rules: ReadingRules
) -> Fault | None:
    if placement.since is None or placement.credit_wh <= rules.max_reading_wh:
        return None
    slot_ms = interval_s * 1000
    slots = max(1, (elapsed_ms(placement.since, mark) + slot_ms // 2) // slot_ms)
    if placement.credit_wh <= rules.max_reading_wh * slots:
        return None
    return fault(
        "AmountTooHigh",
        f"Meter {meter.meter_id} would be credited {placement.credit_wh} Wh for {slots} slots "
        f"where {rules.max_reading_wh} Wh per slot are allowed; release it if it is right.",
    )


def _too_strong(mark: Mark, placement: Placement, meter: Meter) -> Fault | None:
    if placement.since is None or placement.credit_wh == 0:
        return None
    passed_ms = elapsed_ms(placement.since, mark)
    if not is_too_strong(placement.credit_wh, passed_ms, meter):
        return None
    return fault(
        "PowerExceeded",
        f"Meter {meter.meter_id} would be credited {placement.credit_wh} Wh for "
        f"{passed_ms // 1000} s, more than its {meter.rated_power_w} W can give; release it, or "
        "correct the rated power.",
    )


def is_too_strong(credit_wh: int, passed_ms: int, meter: Meter) -> bool:
    """Return whether a credit is more than the meter's rated power can give in that time."""
    # credit > rated x elapsed x 1.2 + 2 x resolution, both sides times 3,000,000.
    beyond_wh = credit_wh - 2 * meter.resolution_wh
    return beyond_wh * 3_000_000 > meter.rated_power_w * passed_ms


def dates_allowed_ms(now_ms: int, rules: ReadingRules) -> tuple[int, int]:
    """Return the oldest and the newest time a reading may have."""
    return now_ms - rules.reading_max_age_days * _DAY_MS, now_ms + FUTURE_TOLERANCE_MS


def _wrong_time(
    meter: Meter, dated_ms: int | None, now_ms: int, rules: ReadingRules
) -> Fault | None:
    if dated_ms is None:
        return None
    oldest_ms, newest_ms = dates_allowed_ms(now_ms, rules)
    if dated_ms < oldest_ms:
        return fault(
            "ReadingTooOld",
            f"The reading of meter {meter.meter_id} is {(now_ms - dated_ms) // _DAY_MS} days old "
            f"where {rules.reading_max_age_days} are allowed; the next newer one credits its "
            "energy, or release it.",
        )
    if dated_ms > newest_ms:
        return fault(
            "ReadingInFuture",
            f"The reading of meter {meter.meter_id} is {(dated_ms - now_ms) // 1000} s in the "
            f"future where {FUTURE_TOLERANCE_MS // 1000} s are allowed; set the gateway's clock.",
        )
    return None


def _doubted(
    odd: Remark, mark: Mark, placement: Placement, meter: Meter, rules: ReadingRules
) -> Fault | None:
    """Return why an odd reading is held; `odd` is about the reading its credit begins at."""
    if not odd:
        return None
    passed_s = elapsed_ms(placement.since, mark) // 1000 if placement.since else 0
    if Remark.SPIKE in odd and rules.spike_holds:
        return fault(
            "Spike",
            f"Meter {meter.meter_id} would be credited {placement.credit_wh} Wh for {passed_s} s, "
            f"above {rules.spike_percent} % of the power it measured meanwhile; release it if it "
            "is right, else it waits until measured power explains it.",
        )
    if Remark.STUCK in odd and rules.stuck_holds:
        return fault(
            "Stuck",
            f"Register export_wh={mark.export_wh} of meter {meter.meter_id} did not move for "
            f"{passed_s} s although power flowed, or the same answer came twice; look at the "
            "meter, the next reading that moves credits all.",
        )
    if Remark.CHAIN_GAP in odd and rules.chain_gap_holds and passed_s < rules.chain_gap_wait_s:
        return fault(
            "ChainGap",
            f"A line before seq {mark.seq} of meter {meter.meter_id} is missing; once it comes, or "
            f"after {rules.chain_gap_wait_s} s, the next reading credits all, or release it.",
        )
    if Remark.PHASE_SUM in odd and rules.phase_sum_holds:
        return fault(
            "PhaseSum",
            f"The phases of meter {meter.meter_id} do not add up to its total power at seq "
            f"{mark.seq}; check its wiring, the next reading where they do credits all.",
        )
    return None
