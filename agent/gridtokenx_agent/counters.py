"""What a meter's energy counters may do, and what is kept of them between two readings."""

from dataclasses import dataclass, replace
from enum import StrEnum

from gridtokenx_agent.clock import DAY_MS, Instant, elapsed_ms
from gridtokenx_wire.record import FIRST_PREV

UNKNOWN_GAP_MS = 400 * DAY_MS
"""The longest absence that is believed where no clock knows it: garbage is still far beyond it."""
LIKELY_GAP_MS = DAY_MS
"""Assumed first where no clock knows it: what needs a longer absence is asked three times."""
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
        step_percent: Largest believed power, in percent of the rated one.
        zero_patience_ms: So long a counter that fell to exactly zero counts as asleep. A counter
            that was set to zero shows it by counting on, and until then there is nothing to lose.
    """

    rated_power_w: int | None = None
    resolution_wh: int = 1
    modulus_wh: int | None = None
    step_percent: int = 120
    zero_patience_ms: int = DAY_MS


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
        turned: The counter passed its modulus.
    """

    counter: Counter
    doubt: Doubt | None = None
    turned: bool = False


@dataclass(frozen=True, slots=True)
class Doubted:
    """A reading to repeat before it is believed."""

    doubt: Doubt


@dataclass(frozen=True, slots=True)
class Rejected:
    """Nothing to record; the base stays where it is.

    Attributes:
        asleep: The counters that ran backwards stand at exactly zero.
    """

    doubt: Doubt
    asleep: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarted:
    """The counter began anew: a new epoch, and no difference across it."""

    counter: Counter
    doubt: Doubt


def largest_step_wh(limits: Limits, gap_ms: int) -> int | None:
    """Return the most Wh a counter can gain in *gap_ms*, None when nobody knows.

    A share above the rated power, and two counter steps, since both ends are rounded.
    """
    if limits.rated_power_w is None:
        return None
    power = limits.rated_power_w * limits.step_percent
    return -(-power * gap_ms // (100 * _MS_PER_HOUR)) + 2 * limits.resolution_wh


def in_range(reading: RawReading, limits: Limits) -> bool:
    """Return whether counters that start again at the declared modulus can show this."""
    return (
        limits.modulus_wh is None or max(reading.import_wh, reading.export_wh) < limits.modulus_wh
    )


def judge(
    last: Counter | None, reading: RawReading, limits: Limits, unknown_gap_ms: int = LIKELY_GAP_MS
) -> Accepted | Doubted:
    """Believe a reading that could have followed *last*; doubt any other.

    Args:
        last: The last good reading of the epoch.
        reading: What the meter says now.
        limits: What is possible.
        unknown_gap_ms: The time between the two where no clock knows it.
    """
    if last is None:
        return Accepted(counter=_fresh(reading))
    gap_ms = elapsed_ms(last.at, reading.at)
    most_wh = largest_step_wh(limits, unknown_gap_ms if gap_ms is None else gap_ms)
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
    last: Counter,
    doubt: Doubt,
    answers: tuple[RawReading, RawReading, RawReading],
    limits: Limits,
    asleep_ms: int = 0,
) -> Accepted | Rejected | Restarted:
    """Decide about a doubted answer and the two repeats of it.

    The doubt vanished: the last repeat counts. It stayed, three times the same story: the
    counter went on where that can be proven, sleeps, or began anew. Anything else is noise.

    Args:
        last: The last good reading of the epoch.
        doubt: What is wrong with the first answer.
        answers: The doubted answer and two repeats.
        limits: What is possible.
        asleep_ms: How long the counters have stood at zero by now.
    """
    second, third = (judge(last, answer, limits) for answer in answers[1:])
    if isinstance(second, Accepted) and isinstance(third, Accepted):
        return replace(third, doubt=doubt)
    doubted = isinstance(second, Doubted) and isinstance(third, Doubted)
    if not doubted or not _steady(answers, limits):
        return Rejected(doubt)
    after_long = judge(last, answers[-1], limits, UNKNOWN_GAP_MS)
    if isinstance(after_long, Accepted):
        return after_long
    turned = _turned(last, answers[-1], limits)
    if turned is not None:
        return Accepted(counter=turned, turned=True)
    if sleeps(last, answers[-1]) and asleep_ms < limits.zero_patience_ms:
        return Rejected(doubt, asleep=True)
    return Restarted(counter=_fresh(answers[-1]), doubt=doubt)


def sleeps(last: Counter, reading: RawReading) -> bool:
    """Return whether all that is wrong is that counters show zero, as some do while they start."""
    fallen = [
        raw_wh
        for register, raw_wh in (
            (last.import_, reading.import_wh),
            (last.export, reading.export_wh),
        )
        if raw_wh < register.raw_wh
    ]
    return bool(fallen) and not any(fallen)


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
    gap_ms = elapsed_ms(last.at, reading.at)
    if limits.modulus_wh is None or gap_ms is None:
        return None
    most_wh = largest_step_wh(limits, gap_ms)
    if most_wh is None:
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
