"""From the text of a profile to a profile that is wholly right, or to all of its faults."""

import itertools
import tomllib
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from typing import Final

from pydantic import ValidationError

from gridtokenx_agent.errors import ProfileError
from gridtokenx_agent.profiles.model import (
    ENERGY_POINTS,
    MODEL_REGISTER,
    POINT_UNITS,
    POWER_POINTS,
    MeterProfile,
    PointSpec,
    Sample,
)
from gridtokenx_agent.registers import Decoded, decode

_ADDRESSES: Final = 0x10000
_ENOUGH_TO_JUDGE: Final = 4


def load_profile(text: str, name: str) -> MeterProfile:
    """Read a profile and refuse it unless it is wholly right.

    Args:
        text: The TOML text.
        name: Name of the profile, for messages.

    Raises:
        ProfileError: Lists every fault with the key it is at.
    """
    try:
        profile = MeterProfile.model_validate(tomllib.loads(text, parse_float=Decimal))
    except ValidationError as exc:
        faults = [_fault(error["loc"], error["msg"]) for error in exc.errors()]
        raise ProfileError(f"profile {name}: {'; '.join(faults)}") from exc
    except (ValueError, RecursionError, InvalidOperation) as exc:
        raise ProfileError(f"profile {name} is no TOML: {exc}") from exc
    faults = [
        *_point_faults(profile),
        *_overlaps(profile),
        *_odd_ones_out(profile),
        *_sample_faults(profile),
    ]
    if faults:
        raise ProfileError(f"profile {name}: {'; '.join(faults)}")
    return profile


def _fault(location: tuple[int | str, ...], message: str) -> str:
    key = ".".join(str(part) for part in location) or "profile"
    return f"{key}: {message.removeprefix('Value error, ')}"


def _point_faults(profile: MeterProfile) -> Iterable[str]:
    if not any(name in profile.points for name in ENERGY_POINTS):
        yield "points: neither import_energy nor export_energy is there"
    for name, point in profile.points.items():
        yield from _value_faults(name, point)
        if name in ENERGY_POINTS:
            yield from _energy_faults(name, point)
    for name, point in _all_points(profile):
        yield from _register_faults(name, point, profile.max_registers)


def _register_faults(name: str, point: PointSpec, max_registers: int) -> Iterable[str]:
    if point.count > max_registers:
        yield f"{name}: longer than max_registers = {max_registers}"
    if point.address + point.count > _ADDRESSES:
        yield f"{name}.address: its {point.count} registers reach beyond address 65535"
    if point.scale == 0:
        yield f"{name}.scale: everything would be 0"


def _value_faults(name: str, point: PointSpec) -> Iterable[str]:
    units = POINT_UNITS.get(name)
    if units is None:
        near = get_close_matches(name, POINT_UNITS, n=1) or [", ".join(POINT_UNITS)]
        yield f"points.{name}: no such point; there is {near[0]}"
    elif point.unit not in units:
        yield f"points.{name}.unit: {point.unit!r} is not one of {', '.join(units)}"
    if point.is_text:
        yield f"points.{name}.type: a measured value is no text"
    if point.positive != "from_grid" and name not in POWER_POINTS:
        yield f"points.{name}.positive: only a power has a direction"


def _energy_faults(name: str, point: PointSpec) -> Iterable[str]:
    if point.scale < 0:
        yield f"points.{name}.scale: an energy counter counts upwards"
    if point.evidence is None:
        yield f"points.{name}.evidence: say VERIFIED, SINGLE or DISPUTED"


def _all_points(profile: MeterProfile) -> list[tuple[str, PointSpec]]:
    entries = [(f"points.{name}", point) for name, point in profile.points.items()]
    special = {"identity": profile.identity, MODEL_REGISTER: profile.model_register}
    return entries + [(name, point) for name, point in special.items() if point is not None]


def _same_space(profile: MeterProfile) -> list[tuple[str, PointSpec]]:
    """Return the points whose addresses count from the same register."""
    entries = _all_points(profile)
    return [
        entry
        for entry in entries
        if not (profile.sunspec and entry[0] in ("identity", MODEL_REGISTER))
    ]


def _overlaps(profile: MeterProfile) -> Iterable[str]:
    entries = sorted(
        _same_space(profile),
        key=lambda entry: (profile.function_of(entry[1]), entry[1].address),
    )
    # Sorted by start, two points overlap exactly when some point overlaps its neighbour.
    for (name, point), (other, next_point) in itertools.pairwise(entries):
        same = profile.function_of(point) == profile.function_of(next_point)
        if same and next_point.address < point.address + point.size:
            yield f"{other}.address: {next_point.address:#06x} lies inside {name}"


def _odd_ones_out(profile: MeterProfile) -> Iterable[str]:
    """Find the few addresses that are odd among even ones, or even among odd ones.

    Values of two registers lie in steps of two. One that does not is read across two neighbours:
    half of one phase, half of the next, and the number may even look right.
    """
    for function in (3, 4):
        entries = [
            (name, point)
            for name, point in _same_space(profile)
            if profile.function_of(point) == function and point.size > 1 and not point.is_text
        ]
        odd = [entry for entry in entries if entry[1].address % 2]
        few, kind = (odd, "odd") if 2 * len(odd) < len(entries) else (_rest(entries, odd), "even")
        if len(entries) >= _ENOUGH_TO_JUDGE:
            yield from (
                f"{name}.address: {point.address:#06x} is {kind}, most others are not; "
                "if it is right, give its evidence"
                for name, point in few
                if point.evidence is None
            )


def _rest(
    entries: list[tuple[str, PointSpec]], without: list[tuple[str, PointSpec]]
) -> list[tuple[str, PointSpec]]:
    return [entry for entry in entries if entry not in without]


def _sample_faults(profile: MeterProfile) -> Iterable[str]:
    for index, sample in enumerate(profile.samples):
        point = profile.spec(sample.point)
        if point is None:
            yield f"samples.{index}.point: the profile has no point {sample.point}"
            continue
        words = tuple(int(word, 16) for word in sample.words)
        if len(words) != point.count:
            yield f"samples.{index}.words: {sample.point} has {point.count} words"
            continue
        decoded = decode(words, point)
        if not _as_expected(sample, decoded):
            yield (
                f"samples.{index}: {sample.point} decodes to {decoded.text or decoded.flag}, "
                f"not to {sample.value or sample.flag}"
            )


def _as_expected(sample: Sample, decoded: Decoded) -> bool:
    if sample.value is None or not isinstance(decoded.value, Decimal):
        return (decoded.text, decoded.flag) == (sample.value, sample.flag)
    try:
        return decoded.value == Decimal(sample.value)
    except InvalidOperation:
        return False
