"""What other gateways decoded wrongly, with their words: each case names where it was reported."""

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_agent.adapters.profile_files import find_profile, profile_paths
from gridtokenx_agent.adapters.rtu_framing import RtuRequest, crc16
from gridtokenx_agent.adapters.simulator import Faults, House, MeterSimulator, house_registers
from gridtokenx_agent.errors import ProfileError
from gridtokenx_agent.profiles import load_profile
from gridtokenx_agent.reader import MeterReader
from gridtokenx_agent.registers import (
    RegisterType,
    WordOrder,
    decode,
    decode_words,
    to_units,
)
from gridtokenx_agent.validation import check_live
from gridtokenx_wire.record import LiveValues, Quality
from tests.support.fake_bus import FakeBus, SteadyClock

METERS = Path(__file__).parents[2] / "firmware-config" / "meters"
HOUR_MS = 3_600_000
SDM630_ROW = "4366 199A 4367 3333 4365 8000 40A8 0000 40A3 3333 40A0 0000"


def words(text: str) -> tuple[int, ...]:
    return tuple(int(word, 16) for word in text.split())


def decoded(
    text: str, register_type: RegisterType, order: WordOrder = "ABCD", scale: str = "1"
) -> tuple[str | None, str | None]:
    found = decode_words(register_type, order, Decimal(scale), words(text))
    return found.text, found.flag


@pytest.mark.parametrize(
    ("text", "register_type", "order", "scale", "expected"),
    [
        pytest.param("4348 999A", "float32", "ABCD", "1", "200.6", id="thingsboard-gateway#1453"),
        pytest.param("DA77 FB41", "float32", "DCBA", "1", "31.433521", id="pymodbus#2616"),
        pytest.param("0000 3F80", "float32", "CDAB", "1", "1", id="pymodbus#2675-first"),
        pytest.param("0000 4000", "float32", "CDAB", "1", "2", id="pymodbus#2675-second"),
        pytest.param("0000 4040", "float32", "CDAB", "1", "3", id="pymodbus#2675-third"),
        pytest.param("0042 0059 0031", "string_low", "ABCD", "1", "BY1", id="telegraf#14748"),
        pytest.param("5678 1234", "uint32", "CDAB", "1", "305419896", id="Tasmota#17467-uint32"),
        pytest.param("CFC7 FFFF", "int32", "CDAB", "0.1", "-1234.5", id="Tasmota#17467-int32"),
        pytest.param("FFFE FFFF", "int32", "CDAB", "1", "-2", id="sunsynk#398"),
        pytest.param("0000 0000 0012 D687", "uint64", "ABCD", "0.01", "12345.67", id="ABB-energy"),
        pytest.param("FFFC 69EF", "int32", "ABCD", "0.01", "-2350.25", id="ABB-power"),
        pytest.param("FF09 0550", "int32", "ABCD", "0.1", "-1618603.2", id="Growatt#447"),
        pytest.param("4367 AF55", "float32", "ABCD", "1", "231.68489", id="mbmd#63-voltage"),
        pytest.param("45A2 26C7", "float32", "ABCD", "1", "5188.847", id="mbmd#63-energy"),
        pytest.param("41FA 177C", "float32", "ABCD", "1", "31.261467", id="mbmd#63-power"),
        pytest.param("436C 7E6E", "float32", "ABCD", "1", "236.49387", id="esphome#3912-voltage"),
        pytest.param("C111 4E2F", "float32", "ABCD", "1", "-9.081588", id="esphome#3912-var"),
        pytest.param("43A8 3FA5", "float32", "ABCD", "1", "336.49722", id="esphome#3912-angle"),
        pytest.param("419D 6F34 5600 0000", "float64", "ABCD", "1", "123456789.5", id="PAC3200"),
    ],
)
def test_words_others_got_wrong_decode_to_the_value_of_the_meter(
    text: str, register_type: RegisterType, order: WordOrder, scale: str, expected: str
) -> None:
    assert decoded(text, register_type, order, scale) == (expected, None)


@pytest.mark.parametrize(
    ("text", "register_type"),
    [
        pytest.param("8000 0000", "int32", id="evcc#30950-power"),
        pytest.param("FFFF FFFF FFFF FFFF", "uint64", id="evcc#30950-energy"),
        pytest.param("FFFF FFFF", "uint32", id="evcc#2153"),
        pytest.param("FFFF FFFF", "float32", id="evcc#3145"),
        *(
            pytest.param(text, "float32", id=f"evcc-PR4968-{text.replace(' ', '')}")
            for text in ("7FC0 0000", "FFC0 0000", "7F80 0000", "FF80 0000", "7FFF FFFF")
        ),
        pytest.param("8000", "int16", id="SunSpec-not-implemented"),
    ],
)
def test_a_value_the_meter_does_not_have_is_never_a_number(
    text: str, register_type: RegisterType
) -> None:
    assert decoded(text, register_type) == (None, "not_available")


def test_a_wrong_word_order_is_suspected_and_not_published() -> None:
    """thingsboard-gateway#1453: 7.3e-39 instead of 200.6."""
    assert decoded("999A 0048", "float32", "CDAB")[1] == "word_order"


def test_a_row_of_like_values_hides_an_address_off_by_one_and_a_wrong_order() -> None:
    """telegraf#8151: two voltages look fine, the third is a current."""
    row = words(SDM630_ROW)

    def value(start: int, order: WordOrder) -> Decimal:
        found = decode_words("float32", order, Decimal(1), row[start : start + 2]).value
        assert isinstance(found, Decimal)
        return found

    right = [value(start, "ABCD") for start in range(0, 12, 2)]
    wrong = [round(value(start, "CDAB"), 3) for start in (1, 3, 5)]

    assert [str(number) for number in right] == ["230.1", "231.2", "229.5", "5.25", "5.1", "5"]
    assert [str(number) for number in wrong] == ["231.100", "229.200", "5.266"]


def test_a_profile_with_an_address_off_by_one_and_a_wrong_order_is_refused() -> None:
    """telegraf#8151, as a profile: its addresses and its samples both give it away."""
    text = (METERS / "eastron-sdm630.toml").read_text()
    for phase, address in enumerate((0, 2, 4), start=1):
        text = text.replace(
            f'voltage_l{phase} = {{ address = 0x{address:04X}, type = "float32"',
            f'voltage_l{phase} = {{ address = {address + 1}, type = "float32", order = "CDAB"',
        )

    with pytest.raises(ProfileError) as caught:
        load_profile(text, "m1")

    for phase in (1, 2, 3):
        assert f"points.voltage_l{phase}.address" in str(caught.value)
        assert f"voltage_l{phase} decodes to" in str(caught.value)


@pytest.mark.parametrize(
    ("point", "text"),
    [
        ("export_energy", "FFFF FFFF FFFF FFFF"),
        ("active_power", "7FFF FFFF"),
        ("power_factor", "7FFF"),
    ],
)
def test_an_import_only_abb_meter_exports_nothing(point: str, text: str) -> None:
    """Profiles of mbmd, openWB and Victron: 1.8e17 kWh, 21 MW, a power factor of 32.767."""
    spec = find_profile("abb-b23").points[point]

    found = decode_words(spec.type, spec.order, spec.scale, words(text), spec.sentinels)

    assert (found.value, found.flag) == (None, "not_available")


def test_a_power_factor_in_percent_becomes_a_fraction() -> None:
    """mbmd#72: Fronius PF -96.91; the word and its scale factor are DA25 and FFFE."""
    spec = find_profile("sunspec-201-204").points["power_factor"]

    found = decode(words("DA25 0000 0000 0000 FFFE"), spec).value

    assert found == Decimal("-96.91")
    assert to_units(Decimal("-96.91"), spec.unit) == -969


def test_a_scale_factor_that_is_not_implemented_leaves_no_value() -> None:
    """SunSpec: with 8000 as its power of ten every value would be 0."""
    spec = find_profile("sunspec-201-204").points["import_energy"]

    found = decode(words("0012 D687 0000 0000 0000 0000 0000 0000 8000"), spec)

    assert (found.value, found.flag) == (None, "not_available")


async def test_one_answer_for_every_register_is_no_reading() -> None:
    """mbmd#332: every read of a WE-516 says 236."""
    bus, _ = site("orno-we-517", Faults(stuck=0x436C))

    reading = await MeterReader(bus, 1, find_profile("orno-we-517"), None).read_slot(identity=True)

    assert reading.energy is None
    assert reading.fault == "every register says the same"
    assert reading.live == LiveValues()


def test_a_frequency_ten_times_too_high_is_left_out_and_flagged() -> None:
    """OpenWB sdm.py: some SDM say 500 Hz."""
    checked = check_live({"frequency_mhz": to_units(Decimal(500), "Hz")}, None)

    assert (checked.live.frequency_mhz, checked.flags) == (None, Quality.OUT_OF_RANGE)


def test_a_torn_high_word_is_no_power() -> None:
    """Growatt_ModbusTCP#447: -1.6 MW at a house."""
    power_w = to_units(Decimal("-1618603.2"), "W")

    checked = check_live({"active_power_w": power_w}, rated_power_w=10_000)

    assert (checked.live.active_power_w, checked.flags) == (None, Quality.OUT_OF_RANGE)


@pytest.mark.parametrize("text", ["7FC0 0000", "7F80 0000", "FF80 0000"])
def test_what_is_printed_is_json_and_never_a_bare_nan(text: str) -> None:
    """thingsboard-gateway#261, esphome#1436, rtl_433#558, evcc PR 8064."""
    value, flag = decoded(text, "float32")

    line = json.dumps({"value": value, "flag": flag}, allow_nan=False)

    assert json.loads(line, parse_constant=pytest.fail) == {"value": None, "flag": "not_available"}


@pytest.mark.parametrize(
    ("request_hex", "answer_hex", "value"),
    [
        ("01 04 00 00 00 02 71 CB", "01 04 04 43 67 AF 55 E2 10", "231.68489"),
        ("01 04 01 6A 00 02 50 2B", "01 04 04 45 A2 26 C7 14 98", "5188.847"),
        ("01 04 00 0C 00 02 B1 C8", "01 04 04 41 FA 17 7C C1 98", "31.261467"),
    ],
    ids=["voltage", "energy", "power"],
)
def test_frames_of_a_real_sdm630_decode(request_hex: str, answer_hex: str, value: str) -> None:
    """mbmd#63 and #89: traffic as it was logged."""
    request, answer = bytes.fromhex(request_hex), bytes.fromhex(answer_hex)
    assert crc16(request[:-2]) == request[-2:]

    frame = RtuRequest(request).find_answer(request + answer)

    assert frame == answer
    assert decoded(answer[3:-2].hex(" ", 2), "float32") == (value, None)


IMPORT_EXPORT = {
    "abb-b21": (0x5000, 0x5004), "abb-b23": (0x5000, 0x5004), "abb-b24": (0x5000, 0x5004),
    "carlo-gavazzi-em24": (0x3E, 0x5C), "carlo-gavazzi-em24-e1": (0x34, 0x4E),
    "carlo-gavazzi-em340": (0x34, 0x4E), "carlo-gavazzi-em540": (0x34, 0x4E),
    "dzg-dvh4013": (0x4000, 0x4100), "eastron-sdm120": (0x48, 0x4A),
    "eastron-sdm220": (0x48, 0x4A), "eastron-sdm230": (0x48, 0x4A),
    "eastron-sdm630": (0x48, 0x4A), "eastron-sdm72": (0x48, 0x4A), "finder-7m": (2752, 2756),
    "inepro-pro380": (0x600C, 0x6018), "janitza-umg96rm": (19068, 19076),
    "orno-we-514": (0xA000, None), "orno-we-517": (0x108, 0x110),
    "schneider-iem3155": (3203, 3207), "schneider-pm5xxx": (3203, 3207),
    "siemens-pac2200": (801, 809), "siemens-pac3200": (801, 809),
    "sunspec-201-204": (46, 38), "sunspec-211-214": (68, 60),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(profile_paths()))
def test_import_and_export_are_where_the_manuals_have_them(name: str) -> None:
    """OpenEMS PR 3215, evcc PR 33432, evcc#21050: the two swapped, or those of a sibling model."""
    points = find_profile(name).points

    found = tuple(
        points[energy].address if energy in points else None
        for energy in ("import_energy", "export_energy")
    )

    assert found == IMPORT_EXPORT[name]


@pytest.mark.parametrize("name", sorted(profile_paths()))
@pytest.mark.parametrize("solar_w", [0, 50_000], ids=["import", "export"])
async def test_only_the_counter_of_the_powers_direction_moves(name: str, solar_w: int) -> None:
    """OpenEMS PR 3215: drive one direction, and require that the other counter stands still."""
    bus, clock = site(name, Faults(), House(solar_w=solar_w, load_w=2_000, first_hour=11))
    reader = MeterReader(bus, 1, find_profile(name), None)

    before = await reader.read_slot(identity=False)
    clock.advance(HOUR_MS)
    after = await reader.read_slot(identity=False)

    assert before.energy is not None
    assert after.energy is not None
    imported = after.energy.import_wh - before.energy.import_wh
    exported = after.energy.export_wh - before.energy.export_wh
    has_export = "export_energy" in find_profile(name).points
    assert (imported > 0, exported > 0) == (solar_w == 0, solar_w > 0 and has_export)
    power_w = after.live.active_power_w
    if power_w is not None and name != "orno-we-514":  # its power has no sign
        assert (power_w > 0) == (solar_w == 0)


@given(raw=st.binary(min_size=2, max_size=8).filter(lambda data: len(data) % 2 == 0))
def test_any_words_of_any_type_are_a_finite_number_or_a_flag(raw: bytes) -> None:
    found_words = [int.from_bytes(raw[at : at + 2]) for at in range(0, len(raw), 2)]
    kinds: dict[int, tuple[RegisterType, ...]] = {
        1: ("int16", "uint16", "bcd16", "string"),
        2: ("int32", "uint32", "float32", "acc32", "bcd32", "string_low"),
        3: ("string", "string_high"),
        4: ("int64", "uint64", "float64", "acc64", "bcd64"),
    }

    for register_type in kinds[len(found_words)]:
        for order in ("ABCD", "CDAB", "BADC", "DCBA"):
            found = decode_words(register_type, order, Decimal("0.1"), found_words)
            assert (found.value is None) != (found.flag is None)
            assert not isinstance(found.value, Decimal) or found.value.is_finite()


def site(name: str, faults: Faults, house: House | None = None) -> tuple[FakeBus, SteadyClock]:
    profile = find_profile(name)
    clock = SteadyClock()
    shown = house_registers(profile, house or House(), clock, clock.wall_ms)
    return FakeBus({1: MeterSimulator(profile, shown, faults)}, clock), clock
