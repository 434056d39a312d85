"""Raw 16-bit words to exact values."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Final

from gridtokenx_agent.errors import ProfileError
from gridtokenx_agent.registers.spec import BitField, RegisterSpec, RegisterType, WordOrder
from gridtokenx_agent.registers.words import to_bytes

NOT_AVAILABLE: Final = "not_available"
"""The meter says that it has no value: a sentinel, NaN or infinity."""
MALFORMED: Final = "malformed"
"""No value of this type looks like this: a BCD digit above 9, text that is not ASCII, a scale
factor beyond 10 to the power of 10."""
WORD_ORDER: Final = "word_order"
"""A float so small that a wrong word order is the likely cause."""

_SMALLEST_FLOAT: Final = 1e-20
_LARGEST_POWER: Final = 10
"""SunSpec information model: a scale factor is from -10 to 10."""
_NO_FACTOR: Final = -0x8000
_EXACT: Final = Context(prec=400, traps=[Inexact, InvalidOperation])


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
        words: 16-bit words in bus order, one per register; `spec.count` of them.
        spec: How the value lies in them.

    Returns:
        The value in `spec.unit`, or None and the reason. A float becomes the shortest decimal
        that reads back as the same float: 4366 199A is 230.1, not 230.1000061.

    Raises:
        ProfileError: Wrong number of words.
    """
    if len(words) != spec.count:
        raise ProfileError(f"type {spec.type} takes {spec.count} words, not {len(words)}")
    data = to_bytes(words[: spec.size], spec.order)
    if spec.is_text:
        return _text(data, spec.type)
    if int.from_bytes(data) in spec.raw_sentinels:
        return Decoded(None, NOT_AVAILABLE)
    number = _number(data, spec)
    if isinstance(number, Decoded):
        return number
    if spec.factor_offset is not None:
        power = _power_of_ten(words[spec.factor_offset])
        if isinstance(power, Decoded):
            return power
        number = _EXACT.scaleb(number, power)
    return Decoded(_EXACT.multiply(number, spec.factor))


def decode_words(
    register_type: RegisterType,
    order: WordOrder,
    scale: Decimal,
    words: Sequence[int],
    sentinels: tuple[str, ...] | None = None,
    bits: BitField | None = None,
) -> Decoded:
    """Decode *words* without a profile; a text takes all of them.

    Raises:
        ProfileError: Wrong number of words.
        ValueError: The description contradicts itself.
    """
    if scale == 0:
        raise ValueError("scale must be a number other than 0")
    length = len(words) if register_type.startswith("string") else None
    spec = RegisterSpec(
        type=register_type,
        order=order,
        scale=scale,
        sentinels=sentinels,
        length=length,
        bits=bits,
    )
    return decode(words, spec)


def _number(data: bytes, spec: RegisterSpec) -> Decimal | Decoded:
    if spec.type.startswith("float"):
        return _float(data)
    if spec.type.startswith("bcd"):
        digits = data.hex()
        return Decimal(digits) if digits.isdecimal() else Decoded(None, MALFORMED)
    raw = int.from_bytes(data, signed=spec.type.startswith("int"))
    if spec.bits is not None:
        raw = raw >> spec.bits.lowest & (1 << spec.bits.width) - 1
    return Decimal(raw)


def _power_of_ten(word: int) -> int | Decoded:
    power = word - 0x10000 if word & 0x8000 else word
    if power == _NO_FACTOR:
        return Decoded(None, NOT_AVAILABLE)
    return power if abs(power) <= _LARGEST_POWER else Decoded(None, MALFORMED)


def _text(data: bytes, register_type: RegisterType) -> Decoded:
    if register_type != "string":
        data = data[1::2] if register_type == "string_low" else data[0::2]
    stripped = data.split(b"\0", 1)[0].strip()
    if not stripped:
        return Decoded(None, NOT_AVAILABLE)
    if not stripped.isascii() or not stripped.decode("ascii").isprintable():
        return Decoded(None, MALFORMED)
    return Decoded(stripped.decode("ascii"))


def _float(data: bytes) -> Decimal | Decoded:
    code = ">f" if len(data) == 4 else ">d"
    (number,) = struct.unpack(code, data)
    if not math.isfinite(number):
        return Decoded(None, NOT_AVAILABLE)
    if number == 0:
        return Decimal(0)
    if abs(number) < _SMALLEST_FLOAT:
        return Decoded(None, WORD_ORDER)
    return Decimal(repr(number)) if code == ">d" else _shortest_float32(number, data)


def _shortest_float32(number: float, data: bytes) -> Decimal:
    # Six digits tell a value of fewer digits as well: they are far coarser than a float32.
    for digits in range(6, 9):
        text = f"{number:.{digits}g}"
        try:
            if struct.pack(">f", float(text)) == data:
                return Decimal(text)
        except OverflowError:  # rounded up beyond the largest float32: more digits are needed
            continue
    return Decimal(f"{number:.9g}")  # nine digits tell any two float32 apart
