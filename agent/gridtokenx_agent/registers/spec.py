"""What one register value looks like."""

from decimal import Decimal
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

RegisterType = Literal[
    "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64",
    "acc32", "acc64", "bcd16", "bcd32", "bcd64", "string", "string_low", "string_high",
]  # fmt: skip
"""`string` has two characters per register; `string_low`, `string_high` one, in that half."""
ReadFunction = Literal[3, 4]
"""Modbus function code: 3 holding registers, 4 input registers."""
WordOrder = Literal["ABCD", "CDAB", "BADC", "DCBA"]
"""Order of the bytes on the bus, A the most significant; longer values follow the same rule."""

BITS: Final[dict[str, int]] = {
    "int16": 16, "uint16": 16, "int32": 32, "uint32": 32, "int64": 64, "uint64": 64,
    "float32": 32, "float64": 64, "acc32": 32, "acc64": 64, "bcd16": 16, "bcd32": 32, "bcd64": 64,
}  # fmt: skip
_TEXTS: Final = frozenset({"string", "string_low", "string_high"})
SCALE_DIGITS: Final = 12
"""No meter counts in finer or coarser steps; beyond, a value would fill memory with zeros."""


class BitField(BaseModel):
    """Some bits of an unsigned value.

    Attributes:
        lowest: Number of its lowest bit, counted from 0.
        width: How many bits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    lowest: Annotated[int, Field(ge=0, le=63)]
    width: Annotated[int, Field(ge=1, le=64)]


class RegisterSpec(BaseModel):
    """How one value lies in its registers.

    Attributes:
        type: Kind of number, or text.
        order: Byte order on the bus.
        scale: Value = raw number x scale, exactly.
        unit: Unit of the value after scaling, one of `PER_UNIT`; empty for text.
        sentinels: Raw values, as hex digits most significant first, that mean "no value". Given,
            they replace the usual ones of the type; NaN and infinity are never values.
        length: Registers of a text; other types know their own.
        bits: The value is only these bits of an unsigned number.
        factor_offset: SunSpec: so many registers after the first one of the value lies the power
            of ten to scale it with. Both are always taken from one answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: RegisterType
    order: WordOrder = "ABCD"
    scale: Annotated[Decimal, Field(allow_inf_nan=False)] = Decimal(1)
    unit: str = ""
    sentinels: tuple[Annotated[str, Field(pattern=r"^[0-9A-Fa-f]+$")], ...] | None = None
    length: Annotated[int, Field(ge=1, le=125)] | None = None
    bits: BitField | None = None
    factor_offset: Annotated[int, Field(ge=1, le=124)] | None = None

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        if self.is_text != (self.length is not None):
            raise ValueError("`length` belongs to type string, and only to it")
        digits = self.size * 4
        if any(len(text) != digits for text in self.sentinels or ()):
            raise ValueError(f"a sentinel of type {self.type} has {digits} hex digits")
        _, digits_of_scale, exponent = self.scale.as_tuple()
        if len(digits_of_scale) > SCALE_DIGITS or abs(int(exponent)) > SCALE_DIGITS:
            raise ValueError(
                f"a scale has at most {SCALE_DIGITS} digits, 10^{SCALE_DIGITS} at most"
            )
        self._check_extras()
        return self

    def _check_extras(self) -> None:
        if self.bits is not None:
            if not self.type.startswith("uint"):
                raise ValueError("`bits` belong to an unsigned type")
            if self.bits.lowest + self.bits.width > BITS[self.type]:
                raise ValueError(f"`bits` reach beyond the {BITS[self.type]} bits of {self.type}")
        if self.factor_offset is not None:
            if self.is_text or self.type.startswith("float"):
                raise ValueError("`factor_offset` belongs to a whole number")
            if self.factor_offset < self.size:
                raise ValueError("`factor_offset` lies inside the value")

    @property
    def is_text(self) -> bool:
        """Whether the value is a text."""
        return self.type in _TEXTS

    @property
    def size(self) -> int:
        """Registers of the value itself."""
        return self.length or BITS.get(self.type, 0) // 16

    @property
    def count(self) -> int:
        """Registers to read: the value, and its scale factor if it has one."""
        return self.size if self.factor_offset is None else self.factor_offset + 1

    @property
    def factor(self) -> Decimal:
        """What the raw number is multiplied with."""
        return self.scale

    @property
    def raw_sentinels(self) -> tuple[int, ...]:
        """Raw values that mean "no value", as unsigned numbers."""
        if self.sentinels is not None:
            return tuple(int(text, 16) for text in self.sentinels)
        return _USUAL_SENTINELS[self.type]


def _usual_sentinels(register_type: RegisterType) -> tuple[int, ...]:
    if register_type.startswith(("string", "float")):
        return ()
    if register_type.startswith("acc"):
        # SunSpec information model: an accumulator that is not implemented reads zero.
        return (0,)
    bits = BITS[register_type]
    return (1 << bits - 1,) if register_type.startswith("int") else ((1 << bits) - 1,)


_USUAL_SENTINELS: Final = {name: _usual_sentinels(name) for name in get_args(RegisterType)}
