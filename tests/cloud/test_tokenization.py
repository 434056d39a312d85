from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_cloud.errors import ConfigError, ValidationError
from gridtokenx_cloud.tokenization import (
    STORE_MAX,
    RetryPolicy,
    conversion,
    is_parked,
    owner_percentile,
    retry_delay_s,
)

RATE = conversion(Decimal(1), 9)
WH = st.integers(0, STORE_MAX // RATE.base_units_per_wh)


def test_one_kwh_is_a_thousand_million_base_units() -> None:
    assert RATE.base_units_per_wh == 1_000_000
    assert RATE.wh_to_base_units(1000) == 10**9
    assert RATE.kwh_to_tokens(Decimal("1.000")) == 10**9
    assert RATE.tokens_to_kwh(1_500_000_000) == Decimal("1.5")


@pytest.mark.parametrize("wh", [2**53 // 10**6 + 1, 134_120_368, 1])
def test_amounts_that_no_double_holds_are_exact(wh: int) -> None:
    assert RATE.base_units_to_wh(RATE.wh_to_base_units(wh)) == wh


@given(WH)
def test_energy_survives_the_way_to_tokens_and_back(wh: int) -> None:
    assert RATE.base_units_to_wh(RATE.wh_to_base_units(wh)) == wh
    assert RATE.kwh_to_tokens(RATE.tokens_to_kwh(RATE.wh_to_base_units(wh))) == wh * 10**6


@pytest.mark.parametrize(
    ("wh", "code"),
    [(-1, "NegativeAmount"), (STORE_MAX // 10**6 + 1, "AmountExceedsMaximum")],
)
def test_an_amount_outside_its_bounds_has_a_code(wh: int, code: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RATE.wh_to_base_units(wh)

    assert caught.value.code == code


def test_part_of_a_wh_is_no_energy() -> None:
    with pytest.raises(ValidationError, match="no whole number of Wh") as caught:
        RATE.base_units_to_wh(1_500_001)

    assert caught.value.code == "InvalidConversion"


@pytest.mark.parametrize("kwh", ["0.0001", "NaN", "Infinity"])
def test_energy_typed_by_people_has_at_most_three_places(kwh: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RATE.kwh_to_tokens(Decimal(kwh))

    assert caught.value.code == "InvalidConversion"


@pytest.mark.parametrize(("ratio", "decimals"), [("1", 2), ("0.0001", 6), ("0", 9)])
def test_a_rate_that_splits_base_units_is_refused(ratio: str, decimals: int) -> None:
    with pytest.raises(ConfigError, match="UnreasonablePrecision"):
        conversion(Decimal(ratio), decimals)


def test_tokens_are_shown_with_all_decimals() -> None:
    assert RATE.token_text(1_500_000_000) == "1.500000000"
    assert conversion(Decimal(1000), 0).token_text(7) == "7"


def test_the_wait_doubles_up_to_an_hour() -> None:
    delays = [retry_delay_s(attempt, RetryPolicy()) for attempt in range(-1, 7)]

    assert delays == [0, 0, 300, 600, 1200, 2400, 3600, 3600]


@given(
    st.integers(1, 10**9),
    st.decimals(1, 10, places=3),
    st.integers(1, 86_400),
)
def test_the_wait_never_falls_and_never_exceeds_its_maximum(
    attempt: int, multiplier: Decimal, initial_s: int
) -> None:
    policy = RetryPolicy(initial_s=initial_s, multiplier=multiplier, max_s=86_400)

    earlier, later = retry_delay_s(attempt, policy), retry_delay_s(attempt + 1, policy)

    assert 0 < earlier <= later <= 86_400


def test_a_credit_is_parked_after_its_last_retry() -> None:
    assert [is_parked(attempts, RetryPolicy()) for attempts in (1, 3, 4)] == [False, False, True]
    assert is_parked(1, RetryPolicy(max_attempts=0))


def test_an_owner_keeps_his_share_for_ever() -> None:
    assert owner_percentile("ann") == owner_percentile("ann")
    assert {owner_percentile(f"user-{number}") for number in range(2000)} == set(range(100))


def test_a_rate_is_made_of_ratio_and_decimals() -> None:
    made = conversion(Decimal("0.5"), 6)

    assert (made.base_units_per_wh, made.decimals) == (500, 6)


def test_the_largest_amount_the_store_keeps_is_still_one() -> None:
    assert conversion(Decimal(1), 3).wh_to_base_units(STORE_MAX) == STORE_MAX


def test_what_is_out_of_bounds_names_the_value() -> None:
    with pytest.raises(ValidationError, match=r"^-1 Wh: a credit is never negative$"):
        RATE.wh_to_base_units(-1)
    with pytest.raises(ValidationError, match=r"^-1 base units: a credit is never negative$"):
        RATE.base_units_to_wh(-1)
    with pytest.raises(ValidationError, match=r"^9999999999999999999 Wh: .* exceed 9223"):
        RATE.wh_to_base_units(10**19 - 1)
    with pytest.raises(ValidationError, match=r"^0\.0001 kWh are no whole number of Wh"):
        RATE.kwh_to_tokens(Decimal("0.0001"))


def test_an_owner_s_percentile_is_the_documented_hash() -> None:
    # SHA-256, the first 8 bytes as a big-endian number, modulo 100.
    assert [owner_percentile(name) for name in ("ann", "ben", "carla")] == [70, 94, 83]
