"""What is wrong with a configuration, one sentence for each fault, with the way out."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

from gridtokenx_agent.errors import ConfigError, ProfileError
from gridtokenx_agent.settings.model import (
    ENV_PREFIX,
    AgentSettings,
    BusSettings,
    MeterSettings,
)

_LISTED: Mapping[str, type[BaseModel]] = {"bus": BusSettings, "meter": MeterSettings}


def model_faults(errors: Sequence[Any]) -> list[str]:
    """Say what single keys are wrong."""
    return [_fault(error) for error in _own_faults(errors)]


def unknown_variables() -> Iterator[str]:
    """Yield each variable with our prefix that means nothing."""
    known = {
        ENV_PREFIX + name.upper(): name for name in _paths(AgentSettings, "") if name != "bus"
    } | {f"{ENV_PREFIX}BUS": "bus"}
    for variable in sorted(os.environ):
        if variable.upper().startswith(ENV_PREFIX) and variable.upper() not in known:
            near = get_close_matches(variable.upper(), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield f"environment variable {variable} is unknown{hint}"


def _paths(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, info in model.model_fields.items():
        yield prefix + name
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from _paths(info.annotation, f"{prefix}{name}__")


def cross_faults(
    values: Mapping[str, Any],
    check_profile: Callable[[str], object],
    check_bus: Callable[[str], object],
) -> Iterator[str]:
    """Yield what no single field can tell; tolerant of values that are wrong in themselves."""
    meter_places: dict[str, str] = {}
    bus_places: dict[str, str] = {}
    for index, bus in enumerate(_tables(values.get("bus"))):
        place = f"bus[{index}]"
        url = bus.get("url")
        if isinstance(url, str):
            yield from _refusal(f"{place}.url", check_bus, url)
            yield from _twice(bus_places, url, f"{place}.url", "name each bus once")
        devices: dict[str, str] = {}
        for number, meter in enumerate(_tables(bus.get("meter"))):
            at = f"{place}.meter[{number}]"
            yield from _twice(
                meter_places, meter.get("meter_id"), f"{at}.meter_id", "meter ids are unique"
            )
            yield from _twice(
                devices, meter.get("device_id"), f"{at}.device_id", "one per meter on a bus"
            )
            if isinstance(meter.get("profile"), str):
                yield from _refusal(f"{at}.profile", check_profile, meter["profile"])


def _tables(value: object) -> Iterable[Mapping[str, Any]]:
    return (
        [entry for entry in value if isinstance(entry, Mapping)] if isinstance(value, list) else []
    )


def _twice(seen: dict[str, str], value: object, place: str, rule: str) -> Iterator[str]:
    if value is None:
        return
    text = str(value)
    if text in seen:
        yield f"{place} = {text} is at {seen[text]} already; {rule}"
    seen.setdefault(text, place)


def _refusal(place: str, check: Callable[[str], object], value: str) -> Iterator[str]:
    try:
        check(value)
    except (ConfigError, ProfileError) as exc:
        yield f"{place}: {exc}"


def _own_faults(errors: Sequence[Any]) -> Iterator[Any]:
    """Leave out what only follows from another fault, and what is told by its variable's name."""
    places = [error["loc"] for error in errors]
    variables = {name.upper() for name in os.environ}
    for error in errors:
        place = error["loc"]
        follows = any(other[: len(place)] == place and other != place for other in places)
        variable = ENV_PREFIX + "__".join(str(part) for part in place).upper()
        unknown = error["type"] == "extra_forbidden" and variable in variables
        if not unknown and not (error["type"] == "too_short" and follows):
            yield error


def _fault(error: Any) -> str:
    """Say in one sentence which key is wrong, with its value and the way out."""
    place = _place(error["loc"])
    if error["type"] == "extra_forbidden":
        near = get_close_matches(str(error["loc"][-1]), _siblings(error["loc"]), n=1)
        hint = f"; did you mean {near[0]}?" if near else "; remove it"
        return f"{place} is unknown{hint}"
    if error["type"] == "missing":
        return f"{place} is missing"
    message = error["msg"].removeprefix("Value error, ")
    shown = f" = {error['input']!r}" if isinstance(error["input"], str | int | float) else ""
    return f"{place}{shown}: {message}"


def _place(location: tuple[int | str, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.removeprefix(".")


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys that are known where *location* ends."""
    model: type[BaseModel] = AgentSettings
    for name in (part for part in location[:-1] if isinstance(part, str)):
        field = model.model_fields.get(name)
        inner = _LISTED.get(name) or (field and field.annotation)
        if not isinstance(inner, type) or not issubclass(inner, BaseModel):
            return []
        model = inner
    return list(model.model_fields)
