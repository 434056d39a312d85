"""The models a simulated SunSpec device shows around the values of its profile."""

from typing import Final

from gridtokenx_agent.errors import ProfileError
from gridtokenx_agent.profiles import MeterProfile, ModelPlace, NotFound, locate
from gridtokenx_agent.profiles.sunspec import BASES, COMMON_MODEL, END_OF_MODELS, MARKER

SCALE_POWERS: Final = {"V": -1, "A": -2, "Hz": -2, "W": 0, "Wh": 0, "%": -1}
"""Powers of ten it sends as scale factors: fine enough, and the values still fit 16 bits."""
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
