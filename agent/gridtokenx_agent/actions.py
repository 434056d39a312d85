"""What each command of the cloud does on this gateway; nothing here writes to a meter."""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

from gridtokenx_agent.adapters.profile_files import find_profile, profile_paths
from gridtokenx_agent.configuring import Configuration
from gridtokenx_agent.errors import ConfigError, ProfileError
from gridtokenx_agent.fleet import Fleet, Look, Looked
from gridtokenx_agent.ports import MeterBus
from gridtokenx_agent.profiles import MeterProfile
from gridtokenx_agent.remote import Action, Answer
from gridtokenx_agent.scanning import ALL_UNITS, QUICK_UNITS, ask, identify
from gridtokenx_wire.command import CommandName

SILENT_MS = 2_000
"""What a device id nobody answers as costs at most: our patience, and the quiet time after it."""
REPLY_MS = 2_000
"""Kept for the reply: a search that outlives its command is for nobody."""
_IDS = re.compile(r"(\d{1,3})(?:-(\d{1,3}))?")

Search = Callable[[Sequence[int], int], Look]
"""Device ids and how many ms there are -> how a bus is looked through."""


def actions(
    fleet: Fleet,
    configuration: Configuration,
    status: Callable[[], Awaitable[dict[str, Any]]],
    search: Search,
    restart: Callable[[], Awaitable[None]],
) -> dict[CommandName, Action]:
    """Return what is done for each command."""

    async def read_now(_argument: str, _left_ms: int) -> Answer:
        meters = await fleet.read_now()
        good = sum("fault" not in meter for meter in meters)
        return Answer(
            outcome="done" if good else "failed",
            detail=f"{good} of {len(meters)} meters answered",
            result={"meters": meters},
        )

    async def tell_status(_argument: str, _left_ms: int) -> Answer:
        return Answer(outcome="done", result=await status())

    async def set_config(text: str, _left_ms: int) -> Answer:
        return await configuration.change(text)

    async def restart_agent(_argument: str, _left_ms: int) -> Answer:
        return Answer(outcome="done", detail="restarting", then=restart)

    return {
        CommandName.READ_NOW: read_now,
        CommandName.SCAN: partial(_scan, fleet, search),
        CommandName.STATUS: tell_status,
        CommandName.SET_CONFIG: set_config,
        CommandName.RESTART: restart_agent,
    }


async def _scan(fleet: Fleet, search: Search, argument: str, left_ms: int) -> Answer:
    url, _, ids = argument.partition(" ")
    wanted = device_ids(ids)
    fault = scan_fault(ids, wanted, left_ms)
    if fault is not None:
        return Answer(outcome="refused", detail=fault)
    found = await fleet.scan(url, search(wanted, left_ms - REPLY_MS))
    if found is None:
        there = ", ".join(fleet.names)
        return Answer(outcome="refused", detail=f"there is no bus {url!r}; there is {there}")
    detail = f"{len(found.devices)} more devices answer"
    if found.unasked:
        detail += f"; no time was left for {found.unasked[0]}-{found.unasked[-1]}"
    return Answer(outcome="done", detail=detail, result={"devices": found.devices})


def device_ids(text: str) -> Sequence[int]:
    """Return the device ids `7` or `11-40` names; the first ten for no text, none for nonsense."""
    if not text:
        return QUICK_UNITS
    match = _IDS.fullmatch(text)
    if match is None:
        return ()
    first, last = int(match[1]), int(match[2] or match[1])
    return range(first, last + 1) if 1 <= first <= last <= ALL_UNITS[-1] else ()


def scan_fault(text: str, ids: Sequence[int], left_ms: int) -> str | None:
    """Return why device ids that were asked for are not looked through."""
    if not text:
        return None
    if not ids:
        return f"{text!r} are no device ids; write 7, or 11-40, of 1-{ALL_UNITS[-1]}"
    needed_ms = len(ids) * SILENT_MS + REPLY_MS
    if needed_ms <= left_ms:
        return None
    return (
        f"{len(ids)} device ids may take {needed_ms // 1000} s, the command lives for "
        f"{max(0, left_ms) // 1000} s; ask for fewer, or with a longer --timeout"
    )


def search_for_meters(wanted: Sequence[int], within_ms: int) -> Look:
    """Return how a bus is looked through: those of *wanted* that are not configured."""

    async def look(bus: MeterBus, known: frozenset[int]) -> Looked:
        end_s = asyncio.get_running_loop().time() + within_ms / 1000
        profiles = await asyncio.to_thread(_all_profiles)
        found: list[dict[str, Any]] = []
        left = [device_id for device_id in wanted if device_id not in known]
        try:
            async with asyncio.timeout_at(end_s):
                while left:
                    if await ask(bus, left[0], profiles) is None:
                        found.append(await _identified(bus, left[0], profiles))
                    left.pop(0)
        except TimeoutError:
            return Looked(found, tuple(left))
        return Looked(found)

    return look


async def _identified(
    bus: MeterBus, device_id: int, profiles: Mapping[str, MeterProfile]
) -> dict[str, Any]:
    device = await identify(bus, device_id, profiles, None)
    return {"device_id": device_id, "profiles": [fit.profile for fit in device.fits]}


def _all_profiles() -> dict[str, MeterProfile]:
    found: dict[str, MeterProfile] = {}
    for name in profile_paths():
        # One of the user's own that is broken must not keep the others from being found.
        with contextlib.suppress(ConfigError, ProfileError):
            found[name] = find_profile(name)
    return found


def plain(value: Any) -> Any:
    """Return *value* as the wire takes it: integers, texts, lists and objects; no null, no bool."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value if inner is not None]
    return int(value) if isinstance(value, int) else str(value)
