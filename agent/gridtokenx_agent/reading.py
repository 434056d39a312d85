"""What the answers of a meter mean: words in, exact integers and remarks out."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from gridtokenx_agent.clock import Instant
from gridtokenx_agent.counters import RawReading
from gridtokenx_agent.errors import ProfileError
from gridtokenx_agent.profiles import ENERGY_POINTS, MeterProfile, PointSpec
from gridtokenx_agent.registers import decode, energy_wh, to_units
from gridtokenx_agent.validation import (
    Checked,
    Finding,
    Rule,
    Thresholds,
    check_live,
    is_stuck,
    phases_disagree,
)
from gridtokenx_wire.encoding import MAX_COUNT
from gridtokenx_wire.record import LiveValues, Quality

_LIVE: Final = {
    "active_power": "active_power_w",
    "voltage_l1": "voltage_mv",
    "current_l1": "current_ma",
    "frequency": "frequency_mhz",
    "power_factor": "power_factor_milli",
}
_PHASES: Final = ("active_power_l1", "active_power_l2", "active_power_l3")
POWERS: Final = ("active_power", *_PHASES)
LIVE_POINTS: Final = (*_LIVE, *_PHASES)
IDENTITY: Final = "identity"
SLOT_POINTS: Final = (*ENERGY_POINTS, *LIVE_POINTS)
_NO_FAULT: Final = Finding(Rule.NO_ENERGY, "")

Words = Mapping[str, tuple[tuple[int, ...], PointSpec]]
"""Name of a point -> its words and what they mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a meter said at one moment.

    Attributes:
        energy: Both registers; None when the meter has no value for one of them.
        fault: Why there is no energy although it was asked; *rule* names the reason.
        findings: What the rules said about the other values.
        identity: What the identity register says; None when it was not asked or says nothing.
        at: When the last byte of the energy came in; without energy, of the last block.
    """

    energy: RawReading | None
    fault: str
    rule: Rule = Rule.NO_ENERGY
    findings: tuple[Finding, ...] = ()
    live: LiveValues
    flags: Quality
    identity: str | None
    at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """All that was read for one reading.

    Attributes:
        apart: The powers of the phases do not add up to the total.
        at: When the last byte of the energy came in; without energy, of the last block.
        asked_energy: Whether the energy registers were asked.
    """

    words: Words
    apart: bool
    at: Instant
    asked_energy: bool


def interpret(
    profile: MeterProfile, answers: Answers, rated_power_w: int | None, thresholds: Thresholds
) -> Reading:
    """Return what the meter said."""
    said = [found for name, (found, _) in answers.words.items() if name in SLOT_POINTS]
    if is_stuck(said, thresholds.stuck_points):
        return _stuck(answers.at, asked_energy=answers.asked_energy)
    energy, fault = _energy(profile, answers) if answers.asked_energy else (None, _NO_FAULT)
    checked = _live(answers, rated_power_w, thresholds)
    flags = checked.flags
    if fault.detail:
        flags |= Quality.VALUE_MISSING
    return Reading(
        energy=energy,
        fault=fault.detail,
        rule=fault.rule,
        findings=tuple(checked.findings),
        live=checked.live,
        flags=flags,
        identity=_identity(answers.words),
        at=answers.at,
    )


def powers_disagree(words: Words, percent: int, again: Words | None = None) -> bool:
    """Return whether the phases do not add up to the total, seen once or, *again*, twice."""
    looks = [words] if not again else [words, again]
    totals = [_units(*look["active_power"]) for look in looks if "active_power" in look]
    phases = [[_units(*look[name]) if name in look else None for name in _PHASES] for look in looks]
    return phases_disagree(totals, phases, percent)


def _energy(profile: MeterProfile, answers: Answers) -> tuple[RawReading | None, Finding]:
    values: list[int] = []
    for name in ENERGY_POINTS:
        if profile.spec(name) is None:
            values.append(0)
            continue
        if name not in answers.words:
            return None, Finding(Rule.NO_ENERGY, f"{name} was not read")
        try:
            value = energy_wh(*answers.words[name])
        except ProfileError as exc:
            return None, Finding(Rule.NO_ENERGY, f"{name}: {exc}")
        if value is None:
            return None, Finding(Rule.NO_ENERGY, f"{name} has no value")
        if value > MAX_COUNT:
            return None, Finding(Rule.COUNTER_RANGE, f"{name} says {value} Wh")
        values.append(value)
    return RawReading(import_wh=values[0], export_wh=values[1], at=answers.at), _NO_FAULT


def _live(answers: Answers, rated_power_w: int | None, thresholds: Thresholds) -> Checked:
    words = answers.words
    units = {name: _units(*words[name]) for name in LIVE_POINTS if name in words}
    values = {field: units[name] for name, field in _LIVE.items() if name in units}
    checked = check_live(values, rated_power_w, thresholds)
    # A total that was left out as impossible says nothing about the phases.
    total_w = checked.live.active_power_w
    if total_w is not None and answers.apart:
        detail = f"phases {[units.get(name) for name in _PHASES]} W, total {total_w} W"
        checked.mark(Finding(Rule.PHASES, detail, refused=False), Quality.POWER_MISMATCH)
    return checked


def _stuck(at: Instant, *, asked_energy: bool) -> Reading:
    found = Finding(Rule.STUCK, "every register says the same")
    return Reading(
        energy=None,
        fault=found.detail,
        rule=found.rule,
        findings=() if asked_energy else (found,),
        live=LiveValues(),
        flags=Quality.VALUE_MISSING | Quality.OUT_OF_RANGE,
        identity=None,
        at=at,
    )


def _units(words: tuple[int, ...], spec: PointSpec) -> int | None:
    value = decode(words, spec).value
    return to_units(value, spec.unit) if isinstance(value, Decimal) else None


def _identity(words: Words) -> str | None:
    if IDENTITY not in words:
        return None
    value = decode(*words[IDENTITY]).value
    # Nothing but zeros is no serial number: a meter that is just starting has not read its own yet.
    return None if value is None or not str(value).strip("0") else str(value)
