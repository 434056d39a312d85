"""From the units of meters to the integer units of the wire."""

from collections.abc import Sequence
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal, InvalidOperation
from typing import Final

from gridtokenx_agent.errors import ProfileError
from gridtokenx_agent.registers.decoding import decode
from gridtokenx_agent.registers.spec import RegisterSpec

_WIDE: Final = Context(prec=400, traps=[InvalidOperation])

PER_UNIT: Final[dict[str, Decimal]] = {
    "Wh": Decimal(1), "kWh": Decimal(1000), "MWh": Decimal(1_000_000),
    "W": Decimal(1), "kW": Decimal(1000),
    "mV": Decimal(1), "V": Decimal(1000),
    "mA": Decimal(1), "A": Decimal(1000),
    "mHz": Decimal(1), "Hz": Decimal(1000),
    "PF": Decimal(1000), "%": Decimal(10), "PF4Q": Decimal(1000),
}  # fmt: skip
"""How many Wh, W, mV, mA, mHz or thousandths of a power factor one unit is.

`%` and `PF4Q` are power factors: in percent, or with leading coded as 2 - |pf| by Schneider.
"""


def energy_wh(words: Sequence[int], spec: RegisterSpec) -> int | None:
    """Turn the raw words of one energy register into whole Wh.

    Args:
        words: 16-bit words in bus order, one per register.
        spec: Type, order and unit of this register, from the meter profile.

    Returns:
        Energy in Wh, rounded down: no token is minted for a Wh not yet metered. None when the
        meter has no value for it, which is never zero.

    Raises:
        ProfileError: Wrong number of words, a unit that is no energy, or a negative counter.
    """
    if spec.unit not in ("Wh", "kWh", "MWh"):
        raise ProfileError(f"unit {spec.unit or '(none)'} is no energy; give Wh, kWh or MWh")
    value = decode(words, spec).value
    if not isinstance(value, Decimal):
        return None
    if value < 0:
        raise ProfileError(
            f"an energy counter reads {value:f} {spec.unit}, below zero; check type, order, scale"
        )
    wh = _WIDE.multiply(value, PER_UNIT[spec.unit])
    return int(wh.to_integral_value(rounding=ROUND_FLOOR))


def to_units(value: Decimal, unit: str) -> int:
    """Return *value* in the integer unit of the wire: Wh, W, mV, mA, mHz, thousandths.

    Rounded half to even: such values are shown, never credited.
    """
    if unit == "PF4Q" and abs(value) > 1:
        value = (2 - abs(value)).copy_sign(value)
    scaled = _WIDE.multiply(value, PER_UNIT[unit])
    return int(scaled.to_integral_value(rounding=ROUND_HALF_EVEN))


def from_units(amount: int, unit: str) -> Decimal:
    """Return an integer amount of the wire's unit in *unit*, exactly."""
    return _WIDE.divide(Decimal(amount), PER_UNIT[unit])
