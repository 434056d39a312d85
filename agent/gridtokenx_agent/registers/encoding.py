"""Exact values to the words a meter would send; the opposite of decoding."""

import struct
from decimal import ROUND_FLOOR, Context, Decimal, InvalidOperation
from typing import Final

from gridtokenx_agent.errors import ProfileError
from gridtokenx_agent.registers.spec import RegisterSpec
from gridtokenx_agent.registers.words import to_words

_WIDE: Final = Context(prec=100, traps=[InvalidOperation])


def encode(value: Decimal | str | None, spec: RegisterSpec, power: int = 0) -> tuple[int, ...]:
    """Turn a value into the words a meter would send; None becomes "no value".

    A number between two steps of the register is rounded down, as a counter does.

    Args:
        value: In `spec.unit`.
        spec: How it lies in its registers.
        power: Scale factor to send along, where *spec* has one.

    Raises:
        ProfileError: The value does not fit the register.
    """
    if spec.is_text:
        data = _pack_text(str(value or ""), spec)
    elif value is None:
        data = _no_value(spec)
    elif spec.type.startswith("float"):
        data = _pack_float(_WIDE.divide(Decimal(value), spec.factor), spec)
    else:
        data = _pack_integer(Decimal(value), spec, power)
    if len(data) != spec.size * 2:
        raise ProfileError(f"{value} does not fit a {spec.type} of {spec.size} registers")
    words = to_words(data, spec.order)
    if spec.factor_offset is None:
        return words
    return (*words, *(0,) * (spec.factor_offset - spec.size), power & 0xFFFF)


def _pack_text(text: str, spec: RegisterSpec) -> bytes:
    letters = text.encode("ascii")
    if spec.type == "string":
        return letters.ljust(spec.size * 2, b"\0")
    low = spec.type == "string_low"
    padded = letters.ljust(spec.size, b"\0")
    return b"".join(bytes((0, letter) if low else (letter, 0)) for letter in padded)


def _no_value(spec: RegisterSpec) -> bytes:
    if spec.raw_sentinels:
        return spec.raw_sentinels[0].to_bytes(spec.size * 2)
    if spec.type.startswith("float"):
        return struct.pack(">f" if spec.size == 2 else ">d", float("nan"))
    raise ProfileError(f"type {spec.type} has no way to say that there is no value")


def _pack_float(value: Decimal, spec: RegisterSpec) -> bytes:
    try:
        return struct.pack(">f" if spec.size == 2 else ">d", float(value))
    except OverflowError as exc:
        raise ProfileError(f"{value} does not fit a {spec.type}") from exc


def _pack_integer(value: Decimal, spec: RegisterSpec, power: int) -> bytes:
    step = spec.factor.scaleb(power) if spec.factor_offset is not None else spec.factor
    raw = int(_WIDE.divide(value, step).to_integral_value(rounding=ROUND_FLOOR))
    if spec.bits is not None:
        raw = raw << spec.bits.lowest
    try:
        if spec.type.startswith("bcd"):
            return bytes.fromhex(f"{raw:0{spec.size * 4}d}")
        return raw.to_bytes(spec.size * 2, signed=spec.type.startswith("int"))
    except (OverflowError, ValueError) as exc:
        raise ProfileError(f"{value} does not fit a {spec.type} with scale {step}") from exc
