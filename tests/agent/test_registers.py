import math
import struct
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_agent.errors import ProfileError
from gridtokenx_agent.registers import (
    Decoded,
    RegisterSpec,
    RegisterType,
    WordOrder,
    decode,
    decode_words,
    encode,
    energy_wh,
    from_units,
    to_units,
)

ORDERS: tuple[WordOrder, ...] = ("ABCD", "CDAB", "BADC", "DCBA")
INTEGERS: dict[RegisterType, tuple[int, int]] = {
    "int16": (-(2**15) + 1, 2**15 - 1),
    "uint16": (0, 2**16 - 2),
    "int32": (-(2**31) + 1, 2**31 - 1),
    "uint32": (0, 2**32 - 2),
    "int64": (-(2**63) + 1, 2**63 - 1),
    "uint64": (0, 2**64 - 2),
    "acc32": (1, 2**32 - 1),
    "acc64": (1, 2**64 - 1),
    "bcd16": (0, 9999),
    "bcd32": (0, 99_999_999),
}


def words(text: str) -> tuple[int, ...]:
    return tuple(int(word, 16) for word in text.split())


def spec(
    register_type: RegisterType,
    *,
    order: WordOrder = "ABCD",
    scale: str = "1",
    unit: str = "",
    sentinels: tuple[str, ...] | None = None,
    length: int | None = None,
) -> RegisterSpec:
    return RegisterSpec(
        type=register_type,
        order=order,
        scale=Decimal(scale),
        unit=unit,
        sentinels=sentinels,
        length=length,
    )


@pytest.mark.parametrize(
    ("text", "register_type", "order", "scale", "expected"),
    [
        ("4366 199A", "float32", "ABCD", "1", "230.1"),
        ("4367 3333", "float32", "ABCD", "1", "231.2"),
        ("4365 8000", "float32", "ABCD", "1", "229.5"),
        ("40A8 0000", "float32", "ABCD", "1", "5.25"),
        ("40A3 3333", "float32", "ABCD", "1", "5.1"),
        ("4348 999A", "float32", "ABCD", "1", "200.6"),
        ("DA77 FB41", "float32", "DCBA", "1", "31.433521"),
        ("0000 3F80", "float32", "CDAB", "1", "1"),
        ("0000 4040", "float32", "CDAB", "1", "3"),
        ("436C 0000", "float32", "ABCD", "1", "236"),
        ("45A2 26C7", "float32", "ABCD", "1", "5188.847"),
        ("FFFE FFFF", "int32", "CDAB", "1", "-2"),
        ("FFFE", "uint16", "ABCD", "1", "65534"),
        ("0000 0000 0012 D687", "uint64", "ABCD", "0.01", "12345.67"),
        ("FFFC 69EF", "int32", "ABCD", "0.01", "-2350.25"),
        ("DA25", "int16", "ABCD", "0.01", "-96.91"),
        ("FF09 0550", "int32", "ABCD", "0.1", "-1618603.2"),
        ("419D 6F34 5600 0000", "float64", "ABCD", "1", "123456789.5"),
        ("1234 5678", "bcd32", "ABCD", "0.1", "1234567.8"),
        ("0000 0000", "float32", "ABCD", "1", "0"),
        ("8000 0000", "float32", "ABCD", "1", "0"),
    ],
)
def test_words_of_real_meters_decode_exactly(
    text: str, register_type: RegisterType, order: WordOrder, scale: str, expected: str
) -> None:
    decoded = decode_words(register_type, order, Decimal(scale), words(text))

    assert decoded == Decoded(Decimal(expected))
    assert decoded.text == expected


@pytest.mark.parametrize(
    ("text", "register_type"),
    [
        ("7FC0 0000", "float32"),
        ("FFC0 0000", "float32"),
        ("7F80 0000", "float32"),
        ("FF80 0000", "float32"),
        ("FFFF FFFF", "float32"),
        ("7FFF FFFF", "float32"),
        ("7FF8 0000 0000 0000", "float64"),
        ("8000 0000", "int32"),
        ("8000", "int16"),
        ("8000 0000 0000 0000", "int64"),
        ("FFFF", "uint16"),
        ("FFFF FFFF", "uint32"),
        ("FFFF FFFF FFFF FFFF", "uint64"),
        ("0000 0000", "acc32"),
    ],
)
def test_a_value_that_is_not_available_is_never_a_number(
    text: str, register_type: RegisterType
) -> None:
    decoded = decode_words(register_type, "ABCD", Decimal(1), words(text))

    assert decoded == Decoded(None, "not_available")


def test_sentinels_of_the_profile_replace_the_usual_ones() -> None:
    point = spec("int32", scale="0.01", sentinels=("7FFFFFFF",))

    assert decode(words("7FFF FFFF"), point) == Decoded(None, "not_available")
    assert decode(words("8000 0000"), point).value == Decimal("-21474836.48")


def test_a_sentinel_is_recognised_in_any_word_order() -> None:
    point = spec("int32", order="CDAB")

    decoded = decode(words("0000 8000"), point)

    assert decoded.flag == "not_available"


def test_an_absurdly_small_float_points_at_the_word_order() -> None:
    decoded = decode_words("float32", "CDAB", Decimal(1), words("4348 0000"))

    assert decoded == Decoded(None, "word_order")


def test_a_digit_above_nine_is_no_bcd_number() -> None:
    decoded = decode_words("bcd16", "ABCD", Decimal(1), words("12A4"))

    assert decoded == Decoded(None, "malformed")


def test_text_ends_at_its_first_nul() -> None:
    decoded = decode_words("string", "ABCD", Decimal(1), words("4232 3320 0041"))

    assert decoded == Decoded("B23")


def test_text_with_its_bytes_swapped_is_read_in_order() -> None:
    decoded = decode_words("string", "BADC", Decimal(1), words("3242 0033"))

    assert decoded == Decoded("B23")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0000 0000", Decoded(None, "not_available")), ("FF41 0000", Decoded(None, "malformed"))],
)
def test_registers_without_text_are_no_text(text: str, expected: Decoded) -> None:
    assert decode_words("string", "ABCD", Decimal(1), words(text)) == expected


def test_a_wrong_number_of_words_is_refused() -> None:
    with pytest.raises(ProfileError, match="float32 takes 2 words, not 1"):
        decode_words("float32", "ABCD", Decimal(1), words("4366"))


def test_scale_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="scale"):
        decode_words("uint16", "ABCD", Decimal(0), (1,))


@pytest.mark.parametrize(
    ("text", "point", "expected"),
    [
        ("0000 0000 0012 D687", spec("uint64", scale="0.01", unit="kWh"), 12_345_670),
        ("45A2 26C7", spec("float32", unit="kWh"), 5_188_847),
        ("4039 999A", spec("float32", unit="Wh"), 2),
        ("0000 0000 00BC 614E", spec("int64", unit="Wh"), 12_345_678),
        ("0000 0003", spec("uint32", scale="0.1", unit="MWh"), 300_000),
        ("7FC0 0000", spec("float32", unit="kWh"), None),
        ("FFFF FFFF", spec("uint32", unit="kWh"), None),
        ("0000 0000", spec("uint32", unit="kWh"), 0),
    ],
)
def test_energy_is_whole_wh_rounded_down(
    text: str, point: RegisterSpec, expected: int | None
) -> None:
    assert energy_wh(words(text), point) == expected


def test_a_negative_energy_counter_is_a_fault_of_the_profile() -> None:
    with pytest.raises(ProfileError, match="below zero"):
        energy_wh(words("FFFC 69EF"), spec("int32", unit="Wh"))


def test_energy_in_volts_is_a_fault_of_the_profile() -> None:
    with pytest.raises(ProfileError, match="no energy"):
        energy_wh((1,), spec("uint16", unit="V"))


@given(first=st.integers(0, 0x7F7FFFFF), second=st.integers(0, 0x7F7FFFFF))
def test_a_float_counter_that_rises_never_decodes_to_less(first: int, second: int) -> None:
    low, high = sorted((first, second))
    point = spec("float32", unit="Wh")

    before = energy_wh((low >> 16, low & 0xFFFF), point)
    after = energy_wh((high >> 16, high & 0xFFFF), point)

    assert before is None or after is None or before <= after


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        ("230.1", "V", 230_100),
        ("-2.5", "W", -2),
        ("3.5", "W", 4),
        ("-2.35025", "kW", -2350),
        ("5.25", "A", 5250),
        ("49.98", "Hz", 49_980),
        ("0.917053", "PF", 917),
        ("-96.91", "%", -969),
        ("1.9", "PF4Q", 100),
        ("-1.9", "PF4Q", -100),
        ("-0.9", "PF4Q", -900),
    ],
)
def test_live_values_become_integers_rounded_half_to_even(
    value: str, unit: str, expected: int
) -> None:
    assert to_units(Decimal(value), unit) == expected


def test_integer_units_turn_back_into_the_profiles_unit() -> None:
    assert from_units(12_345_678, "kWh") == Decimal("12345.678")


@given(data=st.data())
def test_integers_survive_every_type_and_order(data: st.DataObject) -> None:
    register_type = data.draw(st.sampled_from(sorted(INTEGERS)))
    order = data.draw(st.sampled_from(ORDERS))
    scale = data.draw(st.sampled_from(["1", "0.01", "-0.1", "1000"]))
    raw = data.draw(st.integers(*INTEGERS[register_type]))
    point = spec(register_type, order=order, scale=scale)
    value = raw * Decimal(scale)

    decoded = decode(encode(value, point), point)

    assert decoded == Decoded(value)


@given(bits=st.integers(0, 2**32 - 1), order=st.sampled_from(ORDERS))
def test_every_float32_survives_as_its_shortest_decimal(bits: int, order: WordOrder) -> None:
    data = bits.to_bytes(4)
    (number,) = struct.unpack(">f", data)
    point = spec("float32", order=order)
    raw = struct.unpack(">HH", data)
    arranged = encode(None, point) if math.isnan(number) else _arrange(raw, order)

    decoded = decode(arranged, point)

    if not math.isfinite(number):
        assert decoded.flag == "not_available"
    elif 0 < abs(number) < 1e-20:
        assert decoded.flag == "word_order"
    else:
        assert isinstance(decoded.value, Decimal)
        assert struct.unpack(">f", struct.pack(">f", float(decoded.value)))[0] == number
        assert len(decoded.value.as_tuple().digits) <= 9


@given(
    number=st.floats(allow_nan=False, allow_infinity=False).filter(
        lambda x: not 0 < abs(x) < 1e-19
    ),
    order=st.sampled_from(ORDERS),
)
def test_every_float64_survives(number: float, order: WordOrder) -> None:
    point = spec("float64", order=order)

    decoded = decode(encode(Decimal(repr(number)), point), point)

    assert decoded.value == Decimal(repr(number))


@given(
    text=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=8),
    order=st.sampled_from(ORDERS),
)
def test_text_survives_every_order(text: str, order: WordOrder) -> None:
    point = spec("string", order=order, length=4)

    assert decode(encode(text, point), point) == Decoded(text)


@pytest.mark.parametrize(
    "register_type", ["int16", "uint16", "int32", "uint64", "float32", "float64", "acc32"]
)
def test_no_value_is_encoded_as_the_meter_says_it(register_type: RegisterType) -> None:
    point = spec(register_type)

    assert decode(encode(None, point), point).flag == "not_available"


def test_a_counter_shows_only_whole_steps() -> None:
    point = spec("uint64", scale="0.01")

    assert decode(encode(Decimal("12.349"), point), point).value == Decimal("12.34")


@pytest.mark.parametrize(
    ("value", "register_type"),
    [("65536", "uint16"), ("-1", "uint32"), ("1e39", "float32"), ("100000", "bcd16")],
)
def test_a_value_too_large_for_its_register_is_refused(
    value: str, register_type: RegisterType
) -> None:
    with pytest.raises(ProfileError, match="does not fit"):
        encode(Decimal(value), spec(register_type))


def _arrange(raw: tuple[int, ...], order: WordOrder) -> tuple[int, ...]:
    high, low = raw
    swapped = [(word & 0xFF) << 8 | word >> 8 for word in (high, low)]
    return {
        "ABCD": (high, low),
        "CDAB": (low, high),
        "BADC": (swapped[0], swapped[1]),
        "DCBA": (swapped[1], swapped[0]),
    }[order]
