"""Raw 16-bit words to exact values, and back; nothing here knows a bus or a meter model."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal, Inexact, InvalidOperation
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from gridtokenx_agent.errors import ProfileError

RegisterType = Literal[
    "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64",
    "acc32", "acc64", "bcd16", "bcd32", "string",
]  # fmt: skip
ReadFunction = Literal[3, 4]
"""Modbus function code: 3 holding registers, 4 input registers."""
WordOrder = Literal["ABCD", "CDAB", "BADC", "DCBA"]
"""Order of the bytes on the bus, A the most significant; longer values follow the same rule."""

NOT_AVAILABLE: Final = "not_available"
"""The meter says that it has no value: a sentinel, NaN or infinity."""
MALFORMED: Final = "malformed"
"""No value of this type looks like this: a BCD digit above 9, text that is not ASCII."""
WORD_ORDER: Final = "word_order"
"""A float so small that a wrong word order is the likely cause."""

_BITS: Final[dict[str, int]] = {
    "int16": 16, "uint16": 16, "int32": 32, "uint32": 32, "int64": 64, "uint64": 64,
    "float32": 32, "float64": 64, "acc32": 32, "acc64": 64, "bcd16": 16, "bcd32": 32,
}  # fmt: skip
_SMALLEST_FLOAT: Final = Decimal("1e-20")
_EXACT: Final = Context(prec=100, traps=[Inexact, InvalidOperation])
_WIDE: Final = Context(prec=100, traps=[InvalidOperation])

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


class RegisterSpec(BaseModel):
    """How one value lies in its registers.

    Attributes:
        type: Kind of number, or text.
        order: Byte order on the bus.
        scale: Value = raw number x scale, exactly; negative where a meter counts the other way.
        unit: Unit of the value after scaling, one of `PER_UNIT`; empty for text.
        sentinels: Raw values, as hex digits most significant first, that mean "no value". Given,
            they replace the usual ones of the type; NaN and infinity are never values.
        length: Registers of a text; other types know their own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: RegisterType
    order: WordOrder = "ABCD"
    scale: Decimal = Decimal(1)
    unit: str = ""
    sentinels: tuple[Annotated[str, Field(pattern=r"^[0-9A-Fa-f]+$")], ...] | None = None
    length: Annotated[int, Field(ge=1, le=125)] | None = None

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        if (self.type == "string") != (self.length is not None):
            raise ValueError("`length` belongs to type string, and only to it")
        digits = self.count * 4
        if any(len(text) != digits for text in self.sentinels or ()):
            raise ValueError(f"a sentinel of type {self.type} has {digits} hex digits")
        return self

    @property
    def count(self) -> int:
        """Number of registers."""
        return self.length or _BITS[self.type] // 16

    @property
    def raw_sentinels(self) -> tuple[int, ...]:
        """Raw values that mean "no value", as unsigned numbers."""
        if self.sentinels is not None:
            return tuple(int(text, 16) for text in self.sentinels)
        return _usual_sentinels(self.type)


@dataclass(frozen=True, slots=True)
class Decoded:
    """One decoded value; exactly one of the two is None."""

    value: Decimal | str | None
    flag: str | None = None

    @property
    def text(self) -> str | None:
        """The value without exponent, as people and JSON take it."""
        return f"{self.value:f}" if isinstance(self.value, Decimal) else self.value


def decode(words: Sequence[int], spec: RegisterSpec) -> Decoded:
    """Turn raw words into an exact value.

    Args:
        words: 16-bit words in bus order, one per register.
        spec: Where and how the value lies in them.

    Returns:
        The value in `spec.unit`, or None and the reason. A float becomes the shortest decimal
        that reads back as the same float: 4366 199A is 230.1, not 230.1000061.

    Raises:
        ProfileError: Wrong number of words.
    """
    data = _ordered(words, spec)
    if spec.type == "string":
        return _text(data)
    raw = int.from_bytes(data)
    if raw in spec.raw_sentinels:
        return Decoded(None, NOT_AVAILABLE)
    if spec.type in ("float32", "float64"):
        number: Decimal | Decoded = _float(data)
    elif spec.type in ("bcd16", "bcd32"):
        number = _bcd(data)
    else:
        number = Decimal(int.from_bytes(data, signed=spec.type.startswith("int")))
    if isinstance(number, Decoded):
        return number
    return Decoded(_EXACT.multiply(number, spec.scale))


def encode(value: Decimal | str | None, spec: RegisterSpec) -> tuple[int, ...]:
    """Turn a value into the words a meter would send; None becomes "no value".

    A number between two steps of the register is rounded down, as a counter does.

    Raises:
        ProfileError: The value does not fit the register.
    """
    if spec.type == "string":
        data = str(value or "").encode("ascii").ljust(spec.count * 2, b"\0")
    elif value is None:
        data = _no_value(spec)
    elif spec.type in ("float32", "float64"):
        data = _pack_float(Decimal(value), spec)
    else:
        data = _pack_integer(Decimal(value), spec)
    if len(data) != spec.count * 2:
        raise ProfileError(f"{value} does not fit a {spec.type} of {spec.count} registers")
    return _reordered(data, spec.order)


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
    wh = _EXACT.multiply(value, PER_UNIT[spec.unit])
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
    return _EXACT.divide(Decimal(amount), PER_UNIT[unit])


def decode_words(
    register_type: RegisterType,
    order: WordOrder,
    scale: Decimal,
    words: Sequence[int],
    sentinels: tuple[str, ...] | None = None,
) -> Decoded:
    """Decode *words* without a profile; a text takes all of them.

    Raises:
        ProfileError: Wrong number of words.
        ValueError: The description contradicts itself.
    """
    if scale == 0:
        raise ValueError("scale must be a number other than 0")
    length = len(words) if register_type == "string" else None
    spec = RegisterSpec(
        type=register_type, order=order, scale=scale, sentinels=sentinels, length=length
    )
    return decode(words, spec)


def _ordered(words: Sequence[int], spec: RegisterSpec) -> bytes:
    """Return the bytes of *words*, most significant first."""
    if len(words) != spec.count:
        raise ProfileError(f"type {spec.type} takes {spec.count} words, not {len(words)}")
    return struct.pack(f">{len(words)}H", *_arranged(words, spec.order))


def _reordered(data: bytes, order: WordOrder) -> tuple[int, ...]:
    return _arranged(struct.unpack(f">{len(data) // 2}H", data), order)


def _arranged(words: Sequence[int], order: WordOrder) -> tuple[int, ...]:
    """Swap words and bytes as *order* says; doing it twice changes nothing."""
    if order in ("CDAB", "DCBA"):
        words = tuple(reversed(words))
    if order in ("BADC", "DCBA"):
        words = tuple((word & 0xFF) << 8 | word >> 8 for word in words)
    return tuple(words)


def _usual_sentinels(register_type: RegisterType) -> tuple[int, ...]:
    if register_type == "string" or register_type.startswith("float"):
        return ()
    if register_type.startswith("acc"):
        # SunSpec information model: an accumulator that is not implemented reads zero.
        return (0,)
    bits = _BITS[register_type]
    return (1 << bits - 1,) if register_type.startswith("int") else ((1 << bits) - 1,)


def _text(data: bytes) -> Decoded:
    stripped = data.split(b"\0", 1)[0].strip()
    if not stripped:
        return Decoded(None, NOT_AVAILABLE)
    if not stripped.isascii() or not stripped.decode("ascii").isprintable():
        return Decoded(None, MALFORMED)
    return Decoded(stripped.decode("ascii"))


def _bcd(data: bytes) -> Decimal | Decoded:
    digits = data.hex()
    return Decimal(digits) if digits.isdecimal() else Decoded(None, MALFORMED)


def _float(data: bytes) -> Decimal | Decoded:
    code = ">f" if len(data) == 4 else ">d"
    (number,) = struct.unpack(code, data)
    exact = Decimal(number)
    if not exact.is_finite():
        return Decoded(None, NOT_AVAILABLE)
    if exact == 0:
        return Decimal(0)
    if abs(exact) < _SMALLEST_FLOAT:
        return Decoded(None, WORD_ORDER)
    return Decimal(repr(number)) if code == ">d" else _shortest_float32(number, data)


def _shortest_float32(number: float, data: bytes) -> Decimal:
    for digits in range(1, 9):
        text = f"{number:.{digits}g}"
        try:
            if struct.pack(">f", float(text)) == data:
                return Decimal(text)
        except OverflowError:  # rounded up beyond the largest float32: more digits are needed
            continue
    return Decimal(f"{number:.9g}")  # nine digits tell any two float32 apart


def _no_value(spec: RegisterSpec) -> bytes:
    if spec.raw_sentinels:
        return spec.raw_sentinels[0].to_bytes(spec.count * 2)
    if spec.type.startswith("float"):
        return struct.pack(">f" if spec.count == 2 else ">d", float("nan"))
    raise ProfileError(f"type {spec.type} has no way to say that there is no value")


def _pack_float(value: Decimal, spec: RegisterSpec) -> bytes:
    number = float(_WIDE.divide(value, spec.scale))
    try:
        return struct.pack(">f" if spec.count == 2 else ">d", number)
    except OverflowError as exc:
        raise ProfileError(f"{value} does not fit a {spec.type}") from exc


def _pack_integer(value: Decimal, spec: RegisterSpec) -> bytes:
    raw = int(_WIDE.divide(value, spec.scale).to_integral_value(rounding=ROUND_FLOOR))
    try:
        if spec.type.startswith("bcd"):
            return bytes.fromhex(f"{raw:0{spec.count * 4}d}")
        return raw.to_bytes(spec.count * 2, signed=spec.type.startswith("int"))
    except (OverflowError, ValueError) as exc:
        raise ProfileError(f"{value} does not fit a {spec.type} with scale {spec.scale}") from exc
