"""Whatever a profile file holds, it is a profile that is right, or a fault that says so."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridtokenx_agent.adapters.profile_files import profile_paths
from gridtokenx_agent.errors import ProfileError
from gridtokenx_agent.profiles import MeterProfile, load_profile, plan_blocks
from gridtokenx_agent.profiles.page import profile_page
from gridtokenx_agent.registers import decode

TEXTS = {name: path.read_text() for name, path in profile_paths().items()}
TOKENS = [
    '""', '"-0.1"', '"1e999999999"', '"NaN"', "nan", "inf", "-inf", "1e-400", "1e400", "-1", "0",
    "65535", "65536", "9" * 30, "9" * 5000, "true", "[]", "{}", '"DCBA"', '"float64"', '"string"',
    '"bcd64"', '"acc32"', '"uint16"', "1979-05-27", '"\\u0000"', "[" * 2000, '"FFFF"', '["zz"]',
    "factor_offset = 4", "bits = { lowest = 60, width = 9 }", "length = 4", '"to_grid"', "0x7FFF",
]  # fmt: skip


def loaded(text: str) -> MeterProfile | None:
    try:
        return load_profile(text, "m1")
    except ProfileError:
        return None


def check_usable(profile: MeterProfile) -> None:
    """A profile that loads can be planned, shown, and decodes any words at all."""
    for block in plan_blocks(profile, [*profile.points, "identity"]):
        assert 1 <= block.count <= profile.max_registers
        for _, point in block.points:
            for word in (0, 0x8000, 0xFFFF, 0x3132):
                found = decode([word] * point.count, point)
                assert (found.value is None) != (found.flag is None)
                assert len(found.text or "") < 500
    assert profile_page({"m1": profile}).startswith("# Meters")


@settings(max_examples=150)
@given(name=st.sampled_from(sorted(TEXTS)), seed=st.integers(0, 2**32))
def test_a_profile_with_values_swapped_for_others_is_right_or_refused(name: str, seed: int) -> None:
    chance = random.Random(seed)
    values = list(re.finditer(r"(?<== )[^,}\n]+", TEXTS[name]))
    text = TEXTS[name]
    for value in sorted(chance.sample(values, chance.randint(1, 3)), key=lambda m: -m.start()):
        text = text[: value.start()] + chance.choice(TOKENS) + text[value.end() :]

    profile = loaded(text)

    if profile is not None:
        check_usable(profile)


@settings(max_examples=150)
@given(name=st.sampled_from(sorted(TEXTS)), seed=st.integers(0, 2**32))
def test_a_profile_with_lines_lost_doubled_or_mixed_is_right_or_refused(
    name: str, seed: int
) -> None:
    chance = random.Random(seed)
    lines = TEXTS[name].splitlines()
    other = TEXTS[chance.choice(sorted(TEXTS))].splitlines()
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(len(lines))
        lines[place : place + 1] = chance.choice(
            [[], [lines[place]] * 2, [chance.choice(other)], lines[place : place + 1][::-1]]
        )

    profile = loaded("\n".join(lines))

    if profile is not None:
        check_usable(profile)


@settings(max_examples=100)
@given(name=st.sampled_from(sorted(TEXTS)), seed=st.integers(0, 2**32))
def test_a_profile_with_characters_changed_is_right_or_refused(name: str, seed: int) -> None:
    chance = random.Random(seed)
    signs = list(TEXTS[name])
    for _ in range(chance.randint(1, 20)):
        signs[chance.randrange(len(signs))] = chance.choice('0129axF"[]{}=#.,-\n\x00é')

    profile = loaded("".join(signs))

    if profile is not None:
        check_usable(profile)


@given(text=st.text(max_size=300))
def test_any_text_is_right_or_refused(text: str) -> None:
    profile = loaded(text)

    if profile is not None:
        check_usable(profile)


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("key", ["resolution_wh", "scale", "address", "sentinels", "models"])
def test_no_value_of_a_key_breaks_the_loader(key: str, token: str) -> None:
    text = TEXTS["sunspec-201-204"] + '\n[points.x]\ntype = "uint16"\n' + f"{key} = {token}\n"

    assert loaded(text) is None
    assert loaded(f"{key} = {token}\n" + TEXTS["abb-b23"]) is None
