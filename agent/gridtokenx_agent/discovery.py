"""Finds a meter's registers on the device itself, where the profile knows only their model."""

from collections.abc import Sequence

from gridtokenx_agent.errors import MeterRefusedError
from gridtokenx_agent.ports import MeterBus
from gridtokenx_agent.profiles import (
    MeterProfile,
    ModelPlace,
    NotFound,
    Search,
    find_model,
    locate,
)


async def registers_of(bus: MeterBus, device_id: int, profile: MeterProfile) -> MeterProfile:
    """Return *profile* with addresses as they go over the wire; only SunSpec devices are asked.

    Raises:
        TransientError: The device did not answer.
        MeterRefusedError: It has no such model.
    """
    if profile.sunspec is None:
        return profile
    found = await _search(find_model(profile.sunspec), bus, device_id, profile)
    located = found if isinstance(found, NotFound) else locate(profile, found)
    if isinstance(located, NotFound):
        raise MeterRefusedError(f"meter {device_id}: {located.reason}", 2)
    return located


async def _search(
    search: Search, bus: MeterBus, device_id: int, profile: MeterProfile
) -> ModelPlace | NotFound:
    words: Sequence[int] | None = None
    while True:
        try:
            address, count = search.send(words)
        except StopIteration as end:
            found: ModelPlace | NotFound = end.value
            return found
        try:
            answer = await bus.read_words(
                device_id, profile.function, address, count, profile.min_gap_ms
            )
            words = answer.words
        except MeterRefusedError:
            words = None
