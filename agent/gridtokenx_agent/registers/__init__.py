"""Raw 16-bit words to exact values, and back; nothing here knows a bus or a meter model."""

from gridtokenx_agent.registers.decoding import (
    MALFORMED,
    NOT_AVAILABLE,
    WORD_ORDER,
    Decoded,
    decode,
    decode_words,
)
from gridtokenx_agent.registers.encoding import encode
from gridtokenx_agent.registers.spec import (
    BitField,
    ReadFunction,
    RegisterSpec,
    RegisterType,
    WordOrder,
)
from gridtokenx_agent.registers.units import PER_UNIT, energy_wh, from_units, to_units

__all__ = [
    "MALFORMED",
    "NOT_AVAILABLE",
    "PER_UNIT",
    "WORD_ORDER",
    "BitField",
    "Decoded",
    "ReadFunction",
    "RegisterSpec",
    "RegisterType",
    "WordOrder",
    "decode",
    "decode_words",
    "encode",
    "energy_wh",
    "from_units",
    "to_units",
]
