from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_agent.adapters.profile_files import find_profile, profile_paths
from gridtokenx_agent.errors import ConfigError, ProfileError
from gridtokenx_agent.profiles import (
    POINT_UNITS,
    MeterProfile,
    PointSpec,
    evidence_warning,
    load_profile,
    may_mint,
    plan_blocks,
    recognises,
    split_block,
)
from gridtokenx_agent.registers import PER_UNIT, decode

METERS = Path(__file__).parents[2] / "firmware-config" / "meters"
SHIPPED = sorted(profile_paths())

HEAD = """
model = "M1"
manufacturer = "Maker"
grade = "datasheet"
function = 4
resolution_wh = 1
"""
IMPORT = """
[points.import_energy]
address = 0
type = "uint32"
unit = "Wh"
evidence = "SINGLE"
"""


def fault_of(text: str) -> str:
    with pytest.raises(ProfileError) as caught:
        load_profile(text, "m1")
    return str(caught.value)


FAMILIES = {
    "abb-b21", "abb-b23", "abb-b24", "carlo-gavazzi-em24", "carlo-gavazzi-em24-e1",
    "carlo-gavazzi-em340", "carlo-gavazzi-em540", "dzg-dvh4013", "eastron-sdm120",
    "eastron-sdm220", "eastron-sdm230", "eastron-sdm630", "eastron-sdm72", "finder-7m",
    "inepro-pro380", "janitza-umg96rm", "orno-we-514", "orno-we-517", "schneider-iem3155",
    "schneider-pm5xxx", "siemens-pac2200", "siemens-pac3200", "sunspec-201-204",
    "sunspec-211-214",
}  # fmt: skip
DISPUTED = {"carlo-gavazzi-em24", "finder-7m", "orno-we-514"}
"""Two sources name different registers for a counter of these."""
SINGLE = {
    "dzg-dvh4013", "eastron-sdm220", "eastron-sdm72", "schneider-pm5xxx", "sunspec-211-214",
}  # fmt: skip


def test_every_meter_family_has_its_profile() -> None:
    assert set(SHIPPED) == FAMILIES


@pytest.mark.parametrize("name", SHIPPED)
def test_every_sample_of_every_shipped_profile_decodes(name: str) -> None:
    profile = find_profile(name)

    assert {sample.point for sample in profile.samples} >= {"import_energy"}
    assert any(sample.flag == "not_available" for sample in profile.samples)
    for sample in profile.samples:
        point = profile.spec(sample.point)
        assert point is not None
        decoded = decode([int(word, 16) for word in sample.words], point)
        found = None if decoded.text is None or point.is_text else Decimal(decoded.text)
        expected = None if sample.value is None or point.is_text else Decimal(sample.value)
        assert (found, decoded.flag) == (expected, sample.flag)
        assert not point.is_text or decoded.text == sample.value


@pytest.mark.parametrize("name", SHIPPED)
def test_a_disputed_counter_earns_nothing_unless_someone_says_so(name: str) -> None:
    profile = find_profile(name)

    assert may_mint(profile, accept_disputed=False) == (name not in DISPUTED)
    assert may_mint(profile, accept_disputed=True)


@pytest.mark.parametrize("name", SHIPPED)
def test_whoever_uses_a_counter_that_is_not_proven_is_told(name: str) -> None:
    profile = find_profile(name)

    refused = evidence_warning(profile, accept_disputed=False) or ""
    accepted = evidence_warning(profile, accept_disputed=True) or ""

    assert ("no slots are recorded" in refused) == (name in DISPUTED)
    assert ("accepted by accept_disputed" in accepted) == (name in DISPUTED)
    assert ("one source only" in refused) == (name in SINGLE)
    assert (refused == "") == (name not in DISPUTED | SINGLE)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_resolution_is_the_step_of_the_counter(name: str) -> None:
    profile = find_profile(name)

    for point in (profile.points.get("import_energy"), profile.points.get("export_energy")):
        if point is None or point.type.startswith("float") or point.factor_offset is not None:
            continue
        step_wh = point.scale * PER_UNIT[point.unit]
        assert step_wh == profile.resolution_wh


def test_the_blueprint_is_a_profile() -> None:
    text = (METERS / "_blueprint.toml").read_text()

    profile = load_profile(text, "blueprint")

    assert profile.points["import_energy"].scale == Decimal("0.01")
    assert "_blueprint" not in profile_paths()


def test_a_smallest_profile_has_sensible_defaults() -> None:
    profile = load_profile(HEAD + IMPORT, "m1")

    assert profile.points["import_energy"].order == "ABCD"
    assert profile.counter_modulus_wh is None
    assert profile.serial.baudrate == 9600


def test_a_scale_is_exact_however_it_is_written() -> None:
    quoted = load_profile(HEAD + IMPORT + 'scale = "0.1"', "m1")
    bare = load_profile(HEAD + IMPORT + "scale = 0.1", "m1")

    assert quoted.points["import_energy"].scale == Decimal("0.1")
    assert bare.points["import_energy"].scale == Decimal("0.1")


def test_every_missing_key_is_named_at_once() -> None:
    fault = fault_of('model = "M1"')

    for key in ("manufacturer", "grade", "function", "resolution_wh", "points"):
        assert f"{key}: " in fault


def test_faults_of_many_points_are_named_at_once() -> None:
    text = HEAD + (
        '[points.import_energy]\naddress = 0\ntype = "uint32"\nunit = "V"\nscale = "-1"\n'
        '[points.export_energy]\naddress = 1\ntype = "uint32"\nunit = "Wh"\nscale = "0"\n'
        '[points.voltage_l1]\naddress = 65535\ntype = "float32"\nunit = "volt"\n'
        '[points.frequencey]\naddress = 90\ntype = "uint16"\nunit = "Hz"\n'
    )

    fault = fault_of(text)

    assert "points.import_energy.unit: 'V' is not one of Wh, kWh, MWh" in fault
    assert "points.import_energy.scale: an energy counter counts upwards" in fault
    assert "points.import_energy.evidence" in fault
    assert "points.export_energy.address: 0x0001 lies inside points.import_energy" in fault
    assert "points.export_energy.scale: everything would be 0" in fault
    assert "points.voltage_l1.address: its 2 registers reach beyond address 65535" in fault
    assert "points.voltage_l1.unit: 'volt'" in fault
    assert "points.frequencey: no such point; there is frequency" in fault


@pytest.mark.parametrize(
    ("addition", "expected"),
    [
        ("colour = 3", "points.import_energy.colour: Extra inputs are not permitted"),
        ("length = 2", "`length` belongs to type string"),
        ('sentinels = ["FFFF"]', "a sentinel of type uint32 has 8 hex digits"),
        ('sentinels = ["all"]', "points.import_energy.sentinels.0"),
        ("function = 6", "points.import_energy.function"),
        ('order = "ACBD"', "points.import_energy.order"),
        ("address = -1", "m1 is no TOML"),
    ],
)
def test_a_wrong_key_of_a_point_is_named(addition: str, expected: str) -> None:
    assert expected in fault_of(HEAD + IMPORT + addition)


def test_a_profile_without_energy_is_refused() -> None:
    text = HEAD + '[points.voltage_l1]\naddress = 0\ntype = "uint16"\nunit = "V"\n'

    assert "neither import_energy nor export_energy" in fault_of(text)


def test_the_same_address_of_the_other_function_is_another_register() -> None:
    text = HEAD + IMPORT + '[identity]\naddress = 1\nfunction = 3\ntype = "uint32"\n'

    assert load_profile(text, "m1").identity is not None


def test_an_identity_inside_another_point_is_refused() -> None:
    text = HEAD + IMPORT + '[identity]\naddress = 1\ntype = "uint32"\n'

    assert "identity.address: 0x0001 lies inside points.import_energy" in fault_of(text)


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (
            'point = "import_energy"\nwords = ["0000", "0007"]\nvalue = "8"',
            "decodes to 7, not to 8",
        ),
        ('point = "import_energy"\nwords = ["0007"]\nvalue = "7"', "has 2 words"),
        ('point = "frequency"\nwords = ["0007"]\nvalue = "7"', "no point frequency"),
        ('point = "import_energy"\nwords = ["0000", "0007"]', "either `value` or `flag`"),
        (
            'point = "import_energy"\nwords = ["FFFF", "FFFF"]\nvalue = "4294967295"',
            "decodes to not_available, not to 4294967295",
        ),
        ('point = "import_energy"\nwords = ["0000", "0007"]\nvalue = "seven"', "not to seven"),
    ],
)
def test_a_profile_that_fails_its_own_sample_is_refused(sample: str, expected: str) -> None:
    assert expected in fault_of(HEAD + IMPORT + "[[samples]]\n" + sample)


def test_a_profile_with_swapped_word_order_fails_on_a_real_reading() -> None:
    text = (METERS / "eastron-sdm630.toml").read_text()
    swapped = text.replace('type = "float32"', 'type = "float32", order = "CDAB"')

    assert "voltage_l1 decodes to" in fault_of(swapped)


def test_one_odd_address_among_even_ones_is_refused() -> None:
    """OpenEMS#86: a float across two neighbours, half of one phase and half of the next."""
    text = (METERS / "eastron-sdm630.toml").read_text()
    shifted = text.replace("address = 0x0034", "address = 0x0035")

    assert "points.active_power.address: 0x0035 is odd, most others are not" in fault_of(shifted)


def test_an_address_that_looks_wrong_and_is_right_gives_its_evidence() -> None:
    text = (METERS / "eastron-sdm630.toml").read_text()
    shifted = text.replace("address = 0x0034,", 'evidence = "SINGLE", address = 0x0035,')

    assert load_profile(shifted, "m1").points["active_power"].address == 0x35


def test_a_float_across_two_neighbours_is_refused() -> None:
    """OpenEMS#86: half of the current of L1, half of that of L2."""
    text = (METERS / "eastron-sdm630.toml").read_text()
    shifted = text.replace("address = 0x0008", "address = 0x0007")

    assert "points.current_l2.address: 0x0007 lies inside points.current_l1" in fault_of(shifted)


def test_only_a_power_has_a_direction() -> None:
    fault = fault_of(HEAD + IMPORT + 'positive = "to_grid"')

    assert "points.import_energy.positive: only a power has a direction" in fault


def test_a_power_that_is_positive_to_the_grid_is_turned_round() -> None:
    power = '[points.active_power]\naddress = 9\ntype = "int16"\nunit = "W"\npositive = "to_grid"\n'
    point = load_profile(HEAD + IMPORT + power, "m1").points["active_power"]

    assert decode((3800,), point).value == Decimal(-3800)


def test_text_that_is_no_toml_is_refused() -> None:
    assert "profile m1 is no TOML" in fault_of("model = ")


def test_energy_is_read_first_together_with_what_lies_near_it() -> None:
    profile = find_profile("eastron-sdm630")

    blocks = plan_blocks(profile, [*reversed(POINT_UNITS)])

    assert [(block.address, block.count) for block in blocks] == [(0x0034, 24), (0x0000, 18)]
    assert [name for name, _ in blocks[0].points][-2:] == ["import_energy", "export_energy"]


def test_energy_shares_no_read_that_would_be_too_long() -> None:
    profile = find_profile("eastron-sdm630").model_copy(update={"max_registers": 20})

    blocks = plan_blocks(profile, [*POINT_UNITS])

    assert (blocks[0].address, blocks[0].count) == (0x0048, 4)


def test_a_refused_read_first_parts_energy_from_live_values() -> None:
    profile = find_profile("eastron-sdm630")
    block = plan_blocks(profile, [*POINT_UNITS])[0]

    energy, live = split_block(block)

    assert [name for name, _ in energy.points] == ["import_energy", "export_energy"]
    assert (live.address, live.count) == (0x0034, 20)


def test_near_points_share_one_read_and_far_ones_do_not() -> None:
    profile = find_profile("eastron-sdm630")

    blocks = plan_blocks(profile, ["voltage_l1", "current_l1", "active_power", "power_factor"])

    assert [(block.address, block.count) for block in blocks] == [(0x0000, 8), (0x0034, 12)]


def test_points_the_profile_does_not_have_are_left_out() -> None:
    profile = load_profile(HEAD + IMPORT, "m1")

    assert len(plan_blocks(profile, ["import_energy", "frequency", "identity"])) == 1


def test_another_function_is_another_read() -> None:
    profile = find_profile("eastron-sdm630")

    blocks = plan_blocks(profile, ["voltage_l1", "identity"])

    assert [block.function for block in blocks] == [3, 4]


def test_words_of_a_point_are_cut_out_of_its_block() -> None:
    (block,) = plan_blocks(find_profile("eastron-sdm630"), ["voltage_l1", "current_l1"])

    assert block.words_of("current_l1", tuple(range(8))) == (6, 7)


def test_a_refused_block_is_split_at_its_gaps_then_by_point() -> None:
    profile = find_profile("eastron-sdm630")
    (block,) = plan_blocks(profile, ["voltage_l1", "voltage_l2", "current_l1"])

    parts = split_block(block)
    single = split_block(parts[0])

    assert [(part.address, part.count) for part in parts] == [(0, 4), (6, 2)]
    assert [(part.address, part.count) for part in single] == [(0, 2), (2, 2)]
    assert split_block(single[0]) == (single[0],)


@given(data=st.data())
def test_no_value_is_ever_split_over_two_reads(data: st.DataObject) -> None:
    profile = _any_profile(data)
    wanted = list(profile.points)

    blocks = plan_blocks(profile, wanted)

    assert sorted(name for block in blocks for name, _ in block.points) == sorted(wanted)
    for block in blocks:
        assert block.count <= profile.max_registers
        for _, point in block.points:
            assert block.address <= point.address
            assert point.address + point.count <= block.address + block.count


def test_a_users_profile_hides_a_shipped_one_of_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "eastron-sdm630.toml").write_text(HEAD + IMPORT)

    assert find_profile("eastron-sdm630", tmp_path).model == "M1"
    assert find_profile("abb-b23", tmp_path).model == "B23"


@pytest.mark.parametrize(
    ("name", "words", "known"),
    [
        ("abb-b23", (0x4232, 0x3320), True),
        ("abb-b23", (0x4232, 0x3420), False),
        ("abb-b24", (0x4232, 0x3420), True),
        ("abb-b23", (0x0000, 0x0000), False),
        ("carlo-gavazzi-em24-e1", (1650,), True),
        ("carlo-gavazzi-em24-e1", (71,), False),
        ("eastron-sdm630", (0x4088, 0xFA31), None),
    ],
)
def test_a_meter_is_recognised_by_what_it_says_not_by_answering(
    name: str, words: tuple[int, ...], known: bool | None
) -> None:
    assert recognises(find_profile(name), words) is known


def test_a_profile_can_be_named_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(HEAD + IMPORT)

    assert find_profile(str(tmp_path / "mine.toml")).model == "M1"
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read"):
        find_profile(str(tmp_path / "none.toml"))


@pytest.mark.parametrize("name", ["eastron-sdm360", "../secret", "_blueprint"])
def test_an_unknown_profile_names_close_ones(name: str) -> None:
    with pytest.raises(ConfigError, match="there is no meter profile") as caught:
        find_profile(name)

    assert "eastron-sdm630" in str(caught.value)


def test_a_profile_that_is_no_text_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "m1.toml").write_bytes(b"\xff\xfe")

    with pytest.raises(ConfigError, match="cannot be read"):
        find_profile("m1", tmp_path)


def _any_profile(data: st.DataObject) -> MeterProfile:
    points: dict[str, PointSpec] = {}
    address = 0
    for name, units in POINT_UNITS.items():
        address += data.draw(st.integers(0, 40))
        kind = data.draw(st.sampled_from(["uint16", "float32", "uint64"]))
        points[name] = PointSpec.model_validate(
            {"address": address, "type": kind, "unit": units[0], "evidence": "SINGLE"}
        )
        address += points[name].count
    return MeterProfile(
        model="M1",
        manufacturer="Maker",
        grade="datasheet",
        function=4,
        resolution_wh=1,
        max_registers=data.draw(st.integers(4, 125)),
        points=points,
    )
