"""Finds the registers of a SunSpec device: they lie in models, not at fixed addresses.

Source: SunSpec Device Information Model Specification 1.1, sections 6.3 and 6.4.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gridtokenx_agent.profiles.model import MeterProfile, PointSpec, SunSpecModels

BASES: Final = (40000, 0, 50000)
"""Where a device may begin to describe itself, in the order in which to look."""
MODEL_HEADER: Final = "model_header"
"""Name of the point that proves that a model is still where it was found."""
MARKER: Final = (0x5375, 0x6E53)
"""`SunS`."""
END_OF_MODELS: Final = 0xFFFF
COMMON_MODEL: Final = 1
_HEADER_WORDS: Final = 2
_ADDRESSES: Final = 0x10000
_MOST_MODELS: Final = 100
"""More than any device has: a chain that does not end must not keep the bus for ever."""

Request = tuple[int, int]
"""Address and count of registers to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPlace:
    """Where a model was found.

    Attributes:
        address: Its id register.
        model: Its id.
        length: Its registers after id and length.
        common_address: Id register of the last common model before it; None without one.
    """

    address: int
    model: int
    length: int
    common_address: int | None


@dataclass(frozen=True, slots=True)
class NotFound:
    """The device has no such model; *reason* says what it has instead."""

    reason: str


class LocatedProfile(MeterProfile):
    """A SunSpec profile whose registers were found on a device: addresses as on the wire.

    Attributes:
        place: Where its model lies.
    """

    place: ModelPlace

    def spec(self, name: str) -> PointSpec | None:
        """See `MeterProfile.spec`; the model's header is one more point."""
        if name == MODEL_HEADER:
            return PointSpec(type="uint32", address=self.place.address)
        return super().spec(name)

    def moved(self, words: Mapping[str, tuple[int, ...]]) -> bool:
        """Return whether an answer with energy shows that the model lies elsewhere by now."""
        return words.get(MODEL_HEADER) != (self.place.model, self.place.length)


Search = Generator[Request, Sequence[int] | None, ModelPlace | NotFound]
"""Yields what to read, is sent the words or None where the device refuses, returns the end."""


def find_model(wanted: SunSpecModels) -> Search:
    """Look for the model a profile describes."""
    for base in BASES:
        words = yield base, len(MARKER)
        if words is not None and tuple(words) == MARKER:
            return (yield from _walk(base + len(MARKER), wanted))
    places = ", ".join(str(base) for base in BASES)
    return NotFound(f"it is no SunSpec device: there is no SunS at {places}")


def locate(profile: MeterProfile, place: ModelPlace) -> LocatedProfile | NotFound:
    """Return *profile* with the addresses of one device."""
    needed = max(point.address + point.count for point in profile.points.values())
    if needed > place.length + _HEADER_WORDS:
        return NotFound(
            f"its SunSpec model {place.model} has {place.length} registers, "
            f"the profile needs {needed - _HEADER_WORDS}"
        )
    if place.address + needed > _ADDRESSES:
        return NotFound(
            f"its SunSpec model {place.model} at {place.address} would reach beyond address 65535"
        )
    fields = {name: getattr(profile, name) for name in MeterProfile.model_fields}
    fields["points"] = {
        name: _moved(point, place.address) for name, point in profile.points.items()
    }
    fields["identity"] = (
        None
        if profile.identity is None or place.common_address is None
        else _moved(profile.identity, place.common_address)
    )
    return LocatedProfile.model_construct(**fields, place=place)


def _walk(address: int, wanted: SunSpecModels) -> Search:
    """Follow the chain of models: each one's length leads to the next one's header."""
    common_address: int | None = None
    seen: list[int] = []
    instances = 0
    while len(seen) < _MOST_MODELS and address + _HEADER_WORDS <= _ADDRESSES:
        words = yield address, _HEADER_WORDS
        if words is None or words[0] == END_OF_MODELS:
            break
        model, length = words
        if model == COMMON_MODEL:
            common_address = address
        instances += model in wanted.models
        if model in wanted.models and instances == wanted.instance:
            return ModelPlace(
                address=address, model=model, length=length, common_address=common_address
            )
        seen.append(model)
        address += _HEADER_WORDS + length
    ids = ", ".join(str(model) for model in wanted.models)
    has = ", ".join(str(model) for model in seen) or "none"
    return NotFound(f"SunSpec model {ids} number {wanted.instance} is not there; it has {has}")


def _moved(point: PointSpec, base: int) -> PointSpec:
    return point.model_copy(update={"address": base + point.address})
