"""Checks on what a meter says: each rule has a name, a threshold and a count.

Energy is refused by the rules of `counters` and by `is_stuck`; everything else here leaves out
or marks an instantaneous value, and never holds a reading back.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from gridtokenx_wire.record import LiveValues, Quality

_POSSIBLE = {
    "active_power_w": (-100_000_000, 100_000_000),
    "voltage_mv": (0, 1_000_000_000),
    "current_ma": (-100_000_000, 100_000_000),
    "frequency_mhz": (40_000, 70_000),
    "power_factor_milli": (-1000, 1000),
}
"""Beyond these no meter on a grid of 50 or 60 Hz can be telling the truth."""
_MISMATCH_FLOOR_W = 20
"""Where loads are this small, rounding alone differs by more than any percentage."""


class Rule(StrEnum):
    """Names in events, counters and status; those of `counters.Doubt` are rules as well."""

    NO_ENERGY = "EnergyNotAvailable"
    STUCK = "StuckResponse"
    COUNTER_RANGE = "CounterOutOfRange"
    IDENTITY = "IdentityUnsteady"
    IMPOSSIBLE = "ValueImpossible"
    POWER = "PowerAboveRated"
    VOLTAGE = "VoltageUnusual"
    FREQUENCY = "FrequencyUnusual"
    PHASES = "PhasesDisagree"
    ENERGY = "PowerAndEnergyDisagree"


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """When the rules speak.

    Attributes:
        step_percent, zero_patience_ms: See `counters.Limits`.
        stuck_points: So many different quantities with the same words are one stuck answer.
        power_percent: Largest power, in percent of the rated one; momentary, so above the
            average that a counter may show.
        phase_percent: The sum of the phases may differ from the total by so much.
        energy_percent: Power over time may differ from the counted energy by so much.
        energy_window_ms: Over at least this time.
        voltage_mv: Least and largest usual voltage between phase and neutral.
        frequency_mhz: Least and largest usual frequency.
        event_every: Of refused values of one rule, the first and every so many-th is told.
    """

    step_percent: int = 120
    zero_patience_ms: int = 86_400_000
    stuck_points: int = 4
    power_percent: int = 200
    phase_percent: int = 5
    energy_percent: int = 20
    energy_window_ms: int = 900_000
    voltage_mv: tuple[int, int] = (80_000, 300_000)
    frequency_mhz: tuple[int, int] = (45_000, 65_000)
    event_every: int = 100


USUAL = Thresholds()


@dataclass(frozen=True, slots=True)
class Finding:
    """A rule that spoke; *refused* tells whether a value was left out."""

    rule: Rule
    detail: str
    refused: bool = True


@dataclass(slots=True)
class Checked:
    """Instantaneous values that passed, and what was wrong with the others."""

    live: LiveValues = field(default_factory=LiveValues)
    flags: Quality = Quality.NONE
    findings: list[Finding] = field(default_factory=list)

    def mark(self, finding: Finding, flag: Quality) -> None:
        """Add what a rule found."""
        self.findings.append(finding)
        self.flags |= flag


def check_live(
    values: Mapping[str, int | None], rated_power_w: int | None, limits: Thresholds = USUAL
) -> Checked:
    """Return the possible ones of *values* (by field of `LiveValues`) and what was wrong.

    A value of None is one the meter marked as not available.
    """
    checked = Checked()
    kept: dict[str, int] = {}
    for name, value in values.items():
        if value is None:
            checked.flags |= Quality.VALUE_MISSING
        elif (finding := _refusal(name, value, rated_power_w, limits)) is not None:
            checked.mark(finding, Quality.OUT_OF_RANGE)
        else:
            kept[name] = value
    checked.live = LiveValues(**kept)
    for rule, name, usual in (
        (Rule.VOLTAGE, "voltage_mv", limits.voltage_mv),
        (Rule.FREQUENCY, "frequency_mhz", limits.frequency_mhz),
    ):
        if name in kept and not usual[0] <= kept[name] <= usual[1]:
            detail = f"{name} {kept[name]} is outside {usual[0]} to {usual[1]}"
            checked.mark(Finding(rule, detail, refused=False), Quality.UNUSUAL)
    return checked


def phases_disagree(
    totals_w: Sequence[int | None],
    phases_w: Sequence[Sequence[int | None]],
    percent: int = USUAL.phase_percent,
) -> bool:
    """Return whether three phase powers and their total differ by more than *percent*.

    Args:
        totals_w: The total, of one look or of two in a row.
        phases_w: The phases, of each look. Between two looks the load may go from one to the
            other; the rule speaks only where the total and the sum were apart all the way.
        percent: Of the total.
    """
    totals = [power for power in totals_w if power is not None]
    sums = [sum(known) for look in phases_w if len(known := _known(look)) == len(look) == 3]
    if not totals or not sums:
        return False
    allowed_w = max(max(map(abs, totals)) * percent // 100, _MISMATCH_FLOOR_W)
    return max(min(sums) - max(totals), min(totals) - max(sums)) > allowed_w


def _known(powers_w: Sequence[int | None]) -> list[int]:
    return [power for power in powers_w if power is not None]


def is_stuck(answers: Collection[tuple[int, ...]], enough: int = USUAL.stuck_points) -> bool:
    """Return whether registers of different quantities all say the same.

    Seen on meters and adapters that repeat one answer to every request: 236 V, 236 A, 236 Hz.
    """
    first = next(iter(answers), ())
    return len(answers) >= enough and any(first) and all(said == first for said in answers)


def _refusal(
    name: str, value: int, rated_power_w: int | None, limits: Thresholds
) -> Finding | None:
    low, high = _POSSIBLE[name]
    if not low <= value <= high:
        return Finding(Rule.IMPOSSIBLE, f"{name} {value} is outside {low} to {high}")
    if name == "active_power_w" and rated_power_w is not None:
        most_w = rated_power_w * limits.power_percent // 100
        if abs(value) > most_w:
            return Finding(Rule.POWER, f"{name} {value} is beyond {most_w}, see rated_power_w")
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """How often one rule refused lately, so that events stay few."""

    count: int
    last_ms: int


_EPISODE_ENDS_MS = 3_600_000


def again(episode: Episode | None, now_ms: int, every: int) -> tuple[Episode, bool]:
    """Return the episode with one refusal more, and whether to tell it.

    The first of an episode is told and then every so many-th; an hour of silence ends it.
    """
    if episode is None or now_ms - episode.last_ms > _EPISODE_ENDS_MS:
        return Episode(count=1, last_ms=now_ms), True
    count = episode.count + 1
    return Episode(count=count, last_ms=now_ms), count % every == 0
