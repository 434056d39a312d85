"""The models a simulated SunSpec device shows around the values of its profile."""

from decimal import Decimal
from typing import Final

from gridtokenx_agent.adapters.simulator.values import PointValues
from gridtokenx_agent.errors import ProfileError
from gridtokenx_agent.profiles import MeterProfile, ModelPlace, NotFound, locate
from gridtokenx_agent.profiles.sunspec import BASES, COMMON_MODEL, END_OF_MODELS, MARKER

_FINEST_POWERS: Final = {"V": -1, "A": -2, "Hz": -2, "%": -1}
_LARGEST: Final = 32_767
_COMMON_LENGTH: Final = 66
_METER_LENGTHS: Final = dict.fromkeys(range(201, 205), 105) | dict.fromkeys(range(211, 215), 124)


def as_device(profile: MeterProfile) -> tuple[MeterProfile, dict[int, int]]:
    """Return a profile with addresses, and the registers that lead to them.

    A profile that is not SunSpec needs none.
    """
    if profile.sunspec is None:
        return profile, {}
    base = BASES[0]
    common = base + len(MARKER)
    address = common + 2 + _COMMON_LENGTH
    model = profile.sunspec.models[0]
    needed = max(point.address + point.count for point in profile.points.values()) - 2
    place = ModelPlace(
        address=address,
        model=model,
        length=_METER_LENGTHS.get(model, needed),
        common_address=common,
    )
    located = locate(profile, place)
    if isinstance(located, NotFound):
        raise ProfileError(located.reason)
    end = address + 2 + place.length
    registers = dict.fromkeys(range(base, end + 2), 0)
    for at, words in {
        base: MARKER,
        common: (COMMON_MODEL, _COMMON_LENGTH),
        address: (model, place.length),
        end: (END_OF_MODELS, 0),
    }.items():
        registers |= dict(zip(range(at, at + 2), words, strict=True))
    return located, registers


def scale_power(profile: MeterProfile, unit: str, values: PointValues) -> int:
    """Return the power of ten sent as scale factor: values of one unit share one.

    As fine as makes sense, and so coarse that the largest of them fits into 16 bits.
    """
    power = _FINEST_POWERS.get(unit, 0)
    if profile.sunspec is None or unit == "Wh":
        return power
    shown = [values.get(name) for name, point in profile.points.items() if point.unit == unit]
    largest = max((abs(value) for value in shown if isinstance(value, Decimal)), default=Decimal(0))
    while largest.scaleb(-power) > _LARGEST:
        power += 1
    return power
