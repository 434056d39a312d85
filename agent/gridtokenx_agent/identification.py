"""Which meter is it: weighs what a device said against a profile, and never trusts an answer alone.

Many meters answer any address, and with numbers. An Eastron SDM answers the registers of a
Janitza with 0.0, and those of others with a float that means nothing. So a profile counts only
when its model register says so, or when its values are those of a meter on a living grid.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from gridtokenx_agent.plausibility import (
    Tally,
    Words,
    weigh_phases,
    weigh_point,
    weigh_power,
)
from gridtokenx_agent.profiles import (
    ENERGY_POINTS,
    MODEL_REGISTER,
    LocatedProfile,
    MeterProfile,
    recognises,
)
from gridtokenx_agent.registers import Decoded, decode
from gridtokenx_agent.validation import is_stuck


class Sureness(IntEnum):
    """How sure it is that a profile is the right one."""

    NO = 0
    """Something speaks against it, or nothing for it."""
    GUESS = 1
    """Its numbers could be right, but neither voltage nor frequency could be checked."""
    POSSIBLE = 2
    """Voltage or frequency are right, and more; with no load nothing can be compared."""
    LIKELY = 3
    """Voltage and frequency are right, and power fits voltage and current."""
    CERTAIN = 4
    """The device itself says which model it is, and its values are right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What speaks for a profile and what against it.

    Attributes:
        score: Compares profiles that are equally sure.
        agrees: What is as it should be, with its value.
        missing: What the profile promises and the device does not give.
        against: What no meter of this profile would say.
    """

    profile: str
    sureness: Sureness
    score: int
    agrees: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    against: tuple[str, ...] = ()


def gate_point(profile: MeterProfile) -> str:
    """Return the one point that rules a profile out soonest."""
    for name in (MODEL_REGISTER, "voltage_l1", "frequency"):
        if profile.spec(name) is not None:
            return name
    return next(name for name in ENERGY_POINTS if name in profile.points)


def passes_gate(profile: MeterProfile, words: Sequence[int] | None) -> bool:
    """Return whether *profile* deserves more reads, by the words of its gate point."""
    if words is None:
        return False
    name = gate_point(profile)
    if name == MODEL_REGISTER:
        return recognises(profile, words) is True
    tally = Tally()
    weigh_point(tally, name, profile.points[name], words)
    return name in tally.agrees


def judge(name: str, profile: MeterProfile, words: Words) -> Judgement:
    """Weigh what a device said when it was asked for the points of *profile*.

    Args:
        name: Of the profile.
        profile: A `LocatedProfile` for a SunSpec device.
        words: All points that were asked.
    """
    tally = Tally()
    for point, said in words.items():
        spec = profile.points.get(point)
        if spec is not None:
            weigh_point(tally, point, spec, said)
    said_words = [tuple(said) for point, said in words.items() if said and point in profile.points]
    if is_stuck(said_words):
        tally.against.append("every register says the same")
    own_word = _weigh_model(tally, profile, words)
    _weigh_identity(tally, profile, words)
    weigh_phases(tally, profile, words)
    weigh_power(tally, profile, words)
    return Judgement(
        profile=name,
        sureness=_sureness(tally, own_word=own_word),
        score=tally.score,
        agrees=tuple(tally.agrees.values()),
        missing=tuple(tally.missing),
        against=tuple(tally.against),
    )


def rank(judgements: Iterable[Judgement], line_fits: Mapping[str, bool]) -> tuple[Judgement, ...]:
    """Return the judgements that are at least a guess, the best first.

    Args:
        judgements: Of one device.
        line_fits: Whether the profile's factory line settings are those it was found at; decides
            between models with the same registers.
    """
    found = [entry for entry in judgements if entry.sureness > Sureness.NO]
    return tuple(
        sorted(
            found,
            key=lambda entry: (
                -entry.sureness,
                -entry.score,
                not line_fits.get(entry.profile, False),
                entry.profile,
            ),
        )
    )


def same_registers(first: MeterProfile, other: MeterProfile) -> bool:
    """Return whether either of two profiles reads the same values from a device."""
    return _map_of(first) == _map_of(other)


def _map_of(profile: MeterProfile) -> dict[str, tuple[object, ...]]:
    return {
        name: (profile.function_of(point), point.address, point.type, point.order, point.factor)
        for name, point in profile.points.items()
    }


def _sureness(tally: Tally, *, own_word: bool) -> Sureness:
    if tally.against:
        return Sureness.NO
    voltage = any(name.startswith("voltage") for name in tally.agrees)
    grid = voltage + ("frequency" in tally.agrees)
    if own_word and grid:
        return Sureness.CERTAIN
    if grid == 2 and "power" in tally.agrees:
        return Sureness.LIKELY
    if grid and len(tally.agrees) > 1:
        return Sureness.POSSIBLE
    return Sureness.GUESS if len(tally.agrees) > 1 else Sureness.NO


def _weigh_model(tally: Tally, profile: MeterProfile, words: Words) -> bool:
    """Return whether the device itself says that it is a meter of *profile*."""
    if isinstance(profile, LocatedProfile):
        tally.good(MODEL_REGISTER, f"SunSpec model {profile.place.model}", 5)
        return True
    register = profile.model_register
    said = words.get(MODEL_REGISTER)
    if register is None:
        return False
    if said is None:
        tally.against.append("its model register is refused")
        return False
    if not recognises(profile, said):
        tally.against.append(f"its model register says {decode(said, register).text}")
        return False
    tally.good(MODEL_REGISTER, f"model register {decode(said, register).text}", 5)
    return True


def _weigh_identity(tally: Tally, profile: MeterProfile, words: Words) -> None:
    said = words.get("identity")
    if profile.identity is None:
        return
    value = decode(said, profile.identity) if said is not None else Decoded(None)
    if value.value:
        tally.good("identity", f"identity {value.text}")
    else:
        tally.lacks("identity")
