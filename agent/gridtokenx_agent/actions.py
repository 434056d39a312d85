"""What each command of the cloud does on this gateway; nothing here writes to a meter."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from gridtokenx_agent.adapters.profile_files import find_profile, profile_paths
from gridtokenx_agent.configuring import Configuration
from gridtokenx_agent.errors import ConfigError, ProfileError
from gridtokenx_agent.fleet import Fleet, Look
from gridtokenx_agent.ports import MeterBus
from gridtokenx_agent.profiles import MeterProfile
from gridtokenx_agent.remote import Action, Answer
from gridtokenx_agent.scanning import QUICK_UNITS, ask, identify
from gridtokenx_wire.command import CommandName


def actions(
    fleet: Fleet,
    configuration: Configuration,
    status: Callable[[], Awaitable[dict[str, Any]]],
    look: Look,
    restart: Callable[[], Awaitable[None]],
) -> dict[CommandName, Action]:
    """Return what is done for each command."""

    async def read_now(_: str) -> Answer:
        meters = await fleet.read_now()
        good = sum("fault" not in meter for meter in meters)
        return Answer(
            outcome="done" if good else "failed",
            detail=f"{good} of {len(meters)} meters answered",
            result={"meters": meters},
        )

    async def scan(url: str) -> Answer:
        found = await fleet.scan(url, look)
        if found is None:
            there = ", ".join(fleet.names)
            return Answer(outcome="refused", detail=f"there is no bus {url!r}; there is {there}")
        return Answer(
            outcome="done", detail=f"{len(found)} more devices answer", result={"devices": found}
        )

    async def tell_status(_: str) -> Answer:
        return Answer(outcome="done", result=await status())

    async def restart_agent(_: str) -> Answer:
        return Answer(outcome="done", detail="restarting", then=restart)

    return {
        CommandName.READ_NOW: read_now,
        CommandName.SCAN: scan,
        CommandName.STATUS: tell_status,
        CommandName.SET_CONFIG: configuration.change,
        CommandName.RESTART: restart_agent,
    }


async def look_for_meters(bus: MeterBus, known: frozenset[int]) -> list[dict[str, Any]]:
    """Ask the first ten device ids that are not configured, and identify who answers."""
    profiles = await asyncio.to_thread(_all_profiles)
    found: list[dict[str, Any]] = []
    for device_id in QUICK_UNITS:
        if device_id in known or await ask(bus, device_id, profiles) is not None:
            continue
        device = await identify(bus, device_id, profiles, None)
        found.append({"device_id": device_id, "profiles": [fit.profile for fit in device.fits]})
    return found


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
