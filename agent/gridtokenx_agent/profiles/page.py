"""The page about all meters, made from their profiles."""

from collections.abc import Iterable, Mapping
from typing import Final

from gridtokenx_agent.profiles.evidence import energy_points_with, may_mint
from gridtokenx_agent.profiles.model import MeterProfile, PointSpec

_HEAD: Final = """# Meters

This page is made from the profiles in `firmware-config/meters`; change those, then run
`gtx-agent profiles --markdown > docs/meters.md`. How to add a meter, and what grades and evidence
mean, is in [firmware-config/meters](../firmware-config/meters/README.md).

Addresses are counted from 0, as they go over the wire. Value = raw number x scale. Order: A is the
most significant byte; the meter sends the bytes from left to right.

| profile | meter | also | bus, as delivered | step | counters | slots |
|---|---|---|---|---|---|---|
"""


def profile_page(profiles: Mapping[str, MeterProfile]) -> str:
    """Return the page as Markdown."""
    rows = "".join(_row(name, profile) for name, profile in sorted(profiles.items()))
    return _HEAD + rows + "".join(_section(name, profiles[name]) for name in sorted(profiles))


def _row(name: str, profile: MeterProfile) -> str:
    cells = (
        f"[`{name}`](#{name})",
        f"{profile.manufacturer} {profile.model}",
        ", ".join(profile.also),
        _line(profile),
        f"{profile.resolution_wh} Wh",
        _evidence(profile),
        "yes" if may_mint(profile, accept_disputed=False) else "only with `accept_disputed`",
    )
    return f"| {' | '.join(cells)} |\n"


def _line(profile: MeterProfile) -> str:
    serial = profile.serial
    return f"{serial.baudrate} 8{serial.parity}{serial.stopbits}"


def _evidence(profile: MeterProfile) -> str:
    for evidence in ("DISPUTED", "SINGLE", "VERIFIED"):
        if energy_points_with(profile, evidence):
            return evidence
    return ""


def _section(name: str, profile: MeterProfile) -> str:
    return (
        f"\n## {name}\n\n"
        f"{profile.manufacturer} {profile.model}: {' '.join(_facts(profile))}\n\n"
        "| point | function | address | type | order | scale | unit | no value | evidence |\n"
        "|---|---|---|---|---|---|---|---|---|\n"
        + "".join(_point_row(profile, *entry) for entry in _points(profile))
    )


def _facts(profile: MeterProfile) -> Iterable[str]:
    yield f"grade {profile.grade},"
    yield f"{profile.min_gap_ms} ms between requests,"
    yield f"at most {profile.max_registers} registers at once,"
    if profile.counter_modulus_wh:
        yield f"counters start again at {profile.counter_modulus_wh} Wh,"
    if profile.sunspec is not None:
        models = ", ".join(str(model) for model in profile.sunspec.models)
        yield f"addresses count from the start of SunSpec model {models},"
    yield f"counters can{'' if profile.resettable else 'not'} be set back at the meter."


def _points(profile: MeterProfile) -> Iterable[tuple[str, PointSpec]]:
    yield from profile.points.items()
    if profile.identity is not None:
        yield "identity", profile.identity
    if profile.model_register is not None:
        yield f"model: {', '.join(profile.model_register.says)}", profile.model_register


def _point_row(profile: MeterProfile, name: str, point: PointSpec) -> str:
    scale = f"{point.factor:f}"
    if point.factor_offset is not None:
        scale += f" x 10^[{point.address + point.factor_offset}]"
    kind = f"{point.type}, {point.length} registers" if point.is_text else point.type
    cells = (
        name,
        str(profile.function_of(point)),
        f"{point.address} (0x{point.address:04X})",
        kind,
        "" if point.size == 1 or point.is_text else point.order,
        "" if point.is_text else scale,
        point.unit,
        _no_value(point),
        point.evidence or "",
    )
    return f"| {' | '.join(cells)} |\n"


def _no_value(point: PointSpec) -> str:
    if point.type.startswith("float"):
        return "NaN"
    return ", ".join(f"{raw:0{point.size * 4}X}" for raw in point.raw_sentinels)
