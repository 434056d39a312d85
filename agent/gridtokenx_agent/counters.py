"""What a meter's energy counters may do, and what is kept of them between two readings."""

from dataclasses import dataclass, replace
from enum import StrEnum

from gridtokenx_agent.clock import DAY_MS, Instant, elapsed_ms
from gridtokenx_wire.record import FIRST_PREV

UNKNOWN_GAP_MS = 400 * DAY_MS
"""Assumed where no clock knows how long the agent was away: garbage is still far beyond it."""
_MS_PER_HOUR = 3_600_000


class Doubt(StrEnum):
    """Why a reading is not believed at once; the names appear in events and status."""

    BACKWARDS = "RegisterBackwards"
    LEAP = "StepTooLarge"


class EpochReason(StrEnum):
    """Why a new epoch began."""

    FIRST_CONTACT = "FirstContact"
    COUNTER_RESET = "CounterReset"
    METER_EXCHANGED = "MeterExchanged"
    PROFILE_CHANGED = "ProfileChanged"


@dataclass(frozen=True, slots=True)
class Register:
    """One counter: what it shows, and the Wh of all the times it started again at zero."""

    raw_wh: int
    turned_wh: int = 0

    @property
    def total_wh(self) -> int:
        """Energy since the epoch's counter stood at zero."""
        return self.raw_wh + self.turned_wh


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter:
    """The last good reading of a meter's counters, and when it was."""

    import_: Register
    export: Register
    at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterState:
    """What must survive a power cut, committed together with the rows it explains.

    Attributes:
        seq: Last `seq` used in this epoch.
        prev: Hash of the last slot line of this epoch.
        identity: What the identity register said; empty while unknown.
        unit: Last reported state of the meter: ok, down, or unknown.
        slot_wall_ms: Wall clock of the last slot.
        counter: Last good reading; None before the first one of the epoch.
    """

    meter_id: str
    epoch: str
    profile: str = ""
    identity: str = ""
    seq: int = 0
    prev: str = FIRST_PREV
    unit: str = "unknown"
    slot_wall_ms: int | None = None
    counter: Counter | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is physically possible; without a rated power nobody can say.

    Attributes:
        rated_power_w: Largest power the meter can see.
        resolution_wh: Smallest step of the counters.
        modulus_wh: The counters start again at zero here, if the profile knows.
    """

    rated_power_w: int | None = None
    resolution_wh: int = 1
    modulus_wh: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RawReading:
    """Both energy registers as they were read, whole Wh."""

    import_wh: int
    export_wh: int
    at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A reading to record.

    Attributes:
        counter: The new base.
        doubt: Why a first answer was thrown away, if one was.
    """

    counter: Counter
    doubt: Doubt | None = None


@dataclass(frozen=True, slots=True)
class Doubted:
    """A reading to repeat before it is believed."""

    doubt: Doubt


@dataclass(frozen=True, slots=True)
class Rejected:
    """Nothing to record; the base stays where it is."""

    doubt: Doubt


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarted:
    """The counter began anew: a new epoch, and no difference across it."""

    counter: Counter
    doubt: Doubt


def largest_step_wh(limits: Limits, elapsed: int | None) -> int | None:
    """Return the most Wh a counter can gain in *elapsed* ms, None when nobody knows.

    A fifth above the rated power, and two counter steps, since both ends are rounded.
    """
    if limits.rated_power_w is None:
        return None
    gap_ms = UNKNOWN_GAP_MS if elapsed is None else elapsed
    return -(-limits.rated_power_w * gap_ms * 12 // (10 * _MS_PER_HOUR)) + 2 * limits.resolution_wh


def judge(last: Counter | None, reading: RawReading, limits: Limits) -> Accepted | Doubted:
    """Believe a reading that could have followed *last*; doubt any other."""
    if last is None:
        return Accepted(counter=_fresh(reading))
    most_wh = largest_step_wh(limits, elapsed_ms(last.at, reading.at))
    doubts = (
        _doubt(last.import_, reading.import_wh, most_wh),
        _doubt(last.export, reading.export_wh, most_wh),
    )
    doubt = doubts[0] or doubts[1]
    if doubt is not None:
        return Doubted(doubt)
    return Accepted(
        counter=Counter(
            import_=replace(last.import_, raw_wh=reading.import_wh),
            export=replace(last.export, raw_wh=reading.export_wh),
            at=reading.at,
        )
    )


def settle(
    last: Counter, doubt: Doubt, answers: tuple[RawReading, RawReading, RawReading], limits: Limits
) -> Accepted | Rejected | Restarted:
    """Decide about a doubted answer and the two repeats of it.

    The doubt vanished: the last repeat counts. It stayed, three times the same story: the
    counter turned over where that can be proven, or began anew. Anything else is noise.
    """
    second, third = (judge(last, answer, limits) for answer in answers[1:])
    if isinstance(second, Accepted) and isinstance(third, Accepted):
        return replace(third, doubt=doubt)
    doubted = isinstance(second, Doubted) and isinstance(third, Doubted)
    if not doubted or not _steady(answers, limits):
        return Rejected(doubt)
    turned = _turned(last, answers[-1], limits)
    if turned is not None:
        return Accepted(counter=turned)
    return Restarted(counter=_fresh(answers[-1]), doubt=doubt)


def _fresh(reading: RawReading) -> Counter:
    return Counter(
        import_=Register(reading.import_wh), export=Register(reading.export_wh), at=reading.at
    )


def _doubt(last: Register, raw_wh: int, most_wh: int | None) -> Doubt | None:
    if raw_wh < last.raw_wh:
        return Doubt.BACKWARDS
    if most_wh is not None and raw_wh - last.raw_wh > most_wh:
        return Doubt.LEAP
    return None


def _steady(answers: tuple[RawReading, RawReading, RawReading], limits: Limits) -> bool:
    first, second, third = answers
    return isinstance(judge(_fresh(first), second, limits), Accepted) and isinstance(
        judge(_fresh(second), third, limits), Accepted
    )


def _turned(last: Counter, reading: RawReading, limits: Limits) -> Counter | None:
    """Return the counter after a turn-over, None unless one is declared and provable.

    Without a rated power or a known time a reset looks just the same, and would be credited.
    """
    elapsed = elapsed_ms(last.at, reading.at)
    most_wh = largest_step_wh(limits, elapsed)
    if limits.modulus_wh is None or most_wh is None or elapsed is None:
        return None
    import_ = _turn(last.import_, reading.import_wh, limits.modulus_wh, most_wh)
    export = _turn(last.export, reading.export_wh, limits.modulus_wh, most_wh)
    if import_ is None or export is None:
        return None
    return Counter(import_=import_, export=export, at=reading.at)


def _turn(last: Register, raw_wh: int, modulus_wh: int, most_wh: int) -> Register | None:
    turns = 1 if raw_wh < last.raw_wh else 0
    turned = Register(raw_wh, last.turned_wh + turns * modulus_wh)
    return turned if turned.total_wh - last.total_wh <= most_wh else None
