"""Weighs single values: what a meter on a living grid says, and what none would say."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Final

from gridtokenx_agent.profiles import ENERGY_POINTS, MeterProfile, PointSpec
from gridtokenx_agent.registers import PER_UNIT, Decoded, decode, to_units
from gridtokenx_agent.validation import phases_disagree

Words = Mapping[str, Sequence[int] | None]
"""What the device said, by point; None where it refused. A point that was not asked is missing."""

_VOLTAGE_MV: Final = range(80_000, 300_001)
_FREQUENCY_MHZ: Final = range(45_000, 65_001)
_TEN_TIMES_MHZ: Final = range(450_000, 650_001)
_LARGEST_ENERGY_WH: Final = 10_000_000_000
"""10 GWh: 30 years of 38 kW."""
_LARGEST_POWER_W: Final = 1_000_000
_LARGEST_CURRENT_MA: Final = 10_000_000
_PHASES: Final = ("l1", "l2", "l3")
_POWERS: Final = ("active_power_l1", "active_power_l2", "active_power_l3")
_AGREES_PERCENT: Final = 15
_AGREES_FLOOR_W: Final = 30
_LEAST_LOAD_W: Final = 10
"""Below it, power and current agree by chance."""


class Tally:
    """Gathers the evidence for one profile.

    Attributes:
        agrees: What is as it should be, with its value, by point.
        missing: What the profile promises and the device does not give.
        against: What no meter of this profile would say.
        score: Compares profiles that are equally sure.
    """

    def __init__(self) -> None:
        self.agrees: dict[str, str] = {}
        self.missing: list[str] = []
        self.against: list[str] = []
        self.score = 0

    def good(self, name: str, said: str, weight: int = 1) -> None:
        """Note what speaks for the profile."""
        self.agrees[name] = said
        self.score += weight

    def lacks(self, name: str) -> None:
        """Note a value the device does not give."""
        self.missing.append(name)
        self.score -= 1


def weigh_point(tally: Tally, name: str, spec: PointSpec, words: Sequence[int] | None) -> None:
    """Weigh one value by itself; *words* is None where the device refused it."""
    if words is None:
        if name == "import_energy":
            tally.against.append("import_energy is refused")
        else:
            tally.lacks(name)
        return
    value = decode(words, spec)
    if not isinstance(value.value, Decimal):
        _weigh_nothing(tally, name, value)
        return
    amount = to_units(value.value, spec.unit)
    kind = name if name in _WEIGH else name.partition("_l")[0]
    _WEIGH[kind](tally, name, amount, f"{name} {value.text} {spec.unit}")


def _weigh_nothing(tally: Tally, name: str, value: Decoded) -> None:
    # "Not available" is an honest answer; a number no meter could mean is not.
    if value.flag == "not_available":
        tally.lacks(name)
    else:
        tally.against.append(f"{name} is {value.flag}")


def _weigh_voltage(tally: Tally, name: str, amount_mv: int, said: str) -> None:
    if amount_mv in _VOLTAGE_MV:
        tally.good(name, said)
    elif amount_mv == 0 and not name.endswith("l1"):
        tally.lacks(name)
    else:
        tally.against.append(said)


def _weigh_frequency(tally: Tally, name: str, amount_mhz: int, said: str) -> None:
    if amount_mhz in _FREQUENCY_MHZ:
        tally.good(name, said)
    elif amount_mhz in _TEN_TIMES_MHZ:
        tally.missing.append(f"{said}, ten times too high as some firmware has it")
    else:
        tally.against.append(said)


def _weigh_power_factor(tally: Tally, name: str, amount_milli: int, said: str) -> None:
    if abs(amount_milli) > 1000:
        tally.against.append(said)
    elif amount_milli:
        tally.good(name, said)
    else:
        tally.lacks(name)


def _weigh_energy(tally: Tally, name: str, amount_wh: int, said: str) -> None:
    if not 0 <= amount_wh <= _LARGEST_ENERGY_WH:
        tally.against.append(said)
    elif amount_wh:
        tally.good(name, said)


def _weigh_current(tally: Tally, _name: str, amount_ma: int, said: str) -> None:
    if abs(amount_ma) > _LARGEST_CURRENT_MA:
        tally.against.append(said)


def _weigh_active_power(tally: Tally, name: str, amount_w: int, said: str) -> None:
    if abs(amount_w) > _LARGEST_POWER_W:
        tally.against.append(said)
    elif name == "active_power" and abs(amount_w) >= _LEAST_LOAD_W:
        tally.good(name, said)


_WEIGH: Final[dict[str, Callable[[Tally, str, int, str], None]]] = {
    "voltage": _weigh_voltage,
    "current": _weigh_current,
    "frequency": _weigh_frequency,
    "power_factor": _weigh_power_factor,
    "active_power": _weigh_active_power,
    **dict.fromkeys(ENERGY_POINTS, _weigh_energy),
}


def weigh_phases(tally: Tally, profile: MeterProfile, words: Words) -> None:
    """Compare the total power with the sum of its phases."""
    amounts = _amounts(profile, words)
    total_w = amounts.get("active_power")
    phases_w = [amounts.get(name) for name in _POWERS]
    if total_w is None or None in phases_w or abs(total_w) < _LEAST_LOAD_W:
        return
    if not phases_disagree([total_w], [phases_w]):
        tally.good("phases", "phases add up to the power")


def weigh_power(tally: Tally, profile: MeterProfile, words: Words) -> None:
    """Compare the power with voltage x current x power factor."""
    amounts = _amounts(profile, words)
    power_w = amounts.get("active_power")
    pairs = [
        (amounts.get(f"voltage_{phase}"), amounts.get(f"current_{phase}")) for phase in _PHASES
    ]
    known = [(volt, ampere) for volt, ampere in pairs if volt is not None and ampere is not None]
    if power_w is None or not known:
        return
    apparent_w = sum(abs(volt * ampere) for volt, ampere in known) // 1_000_000
    expected_w = apparent_w * abs(amounts.get("power_factor") or 1000) // 1000
    allowed_w = max(expected_w * _AGREES_PERCENT // 100, _AGREES_FLOOR_W)
    # A profile may name the current of one phase of three.
    if abs(power_w) > 4 * apparent_w + 10 * _AGREES_FLOOR_W:
        tally.against.append(f"active_power {power_w} W, voltage x current {apparent_w} VA")
    elif abs(abs(power_w) - expected_w) <= allowed_w and abs(power_w) >= _LEAST_LOAD_W:
        tally.good("power", "power = voltage x current x power factor", 2)


def _amounts(profile: MeterProfile, words: Words) -> dict[str, int]:
    """Return the measured values in the units of the wire: W, mV, mA, thousandths."""
    found: dict[str, int] = {}
    for name, said in words.items():
        spec = profile.points.get(name)
        if spec is None or said is None or spec.unit not in PER_UNIT:
            continue
        value = decode(said, spec).value
        if isinstance(value, Decimal):
            found[name] = to_units(value, spec.unit)
    return found
