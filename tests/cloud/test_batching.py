from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM

from gridtokenx_cloud.batching import (
    MAX_MEMO_BYTES,
    BatchLimits,
    BatchMemo,
    Markers,
    MintBatchData,
    compute_unit_limit,
    estimate_fee,
    optimize_batch,
    parse_memo,
    unit_price_micro_lamports,
)
from gridtokenx_cloud.errors import ValidationError

AUTHORITY, PAYER, MINT = (Keypair.from_seed(bytes([n]) * 32).pubkey() for n in (1, 2, 3))
MARKERS = Markers(b"s" * 32, str(AUTHORITY), str(MINT))


def credit(number: int, owner: int, amount: int) -> MintBatchData:
    return MintBatchData(number, f"user-{owner}", f"wallet-{owner}", "HOUSE", amount, amount)


CREDITS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 100)), max_size=120).map(
    lambda pairs: [credit(n, owner, amount) for n, (owner, amount) in enumerate(pairs)]
)


@given(CREDITS, st.integers(1, 12), st.integers(100, 400))
def test_packing_loses_and_doubles_nothing_and_every_group_fits(
    credits_due: list[MintBatchData], recipients: int, cap: int
) -> None:
    groups = optimize_batch(credits_due, BatchLimits(recipients, cap))

    placed = [item for group in groups for item in group.items]
    assert Counter(item.reading_id for item in placed) == Counter(range(len(credits_due)))
    for group in groups:
        assert 1 <= len(group.wallets) <= recipients
        assert group.total_base_units <= cap
        numbers = [item.reading_id for item in group.items]
        assert numbers == sorted(numbers)


@given(CREDITS)
def test_each_wallet_gets_the_sum_of_its_credits(credits_due: list[MintBatchData]) -> None:
    owed: Counter[str] = Counter()
    paid: Counter[str] = Counter()
    for item in credits_due:
        owed[item.wallet_address] += item.amount_base_units

    for group in optimize_batch(credits_due, BatchLimits(12, 10**9)):
        for item in group.items:
            paid[item.wallet_address] += item.amount_base_units

    assert paid == owed


def test_credits_of_one_owner_share_a_transaction() -> None:
    credits_due = [credit(1, 1, 5), credit(2, 2, 5), credit(3, 1, 5)]

    groups = optimize_batch(credits_due, BatchLimits(2, 100))

    assert [group.wallets for group in groups] == [("wallet-1", "wallet-2")]


def test_a_single_credit_above_the_cap_is_refused() -> None:
    with pytest.raises(ValidationError) as caught:
        optimize_batch([credit(1, 1, 101)], BatchLimits(12, 100))

    assert caught.value.code == "AmountExceedsMaximum"


@given(
    st.integers(1, 2**63 - 1),
    st.integers(1, 10**6),
    st.integers(0, 10**9),
    st.integers(0, 10**6),
    st.binary(min_size=32, max_size=32),
)
def test_a_memo_is_short_ascii_and_reads_back(
    batch_id: int, leaves: int, start: int, minutes: int, root: bytes
) -> None:
    memo = BatchMemo(batch_id, leaves, start, minutes, root)

    text = memo.text()

    assert parse_memo(text) == memo
    assert len(text.encode("ascii")) <= MAX_MEMO_BYTES


@pytest.mark.parametrize("text", ["", "gm1:1:2:3:4:short", "gm2:1:1:1:1:" + "A" * 43])
def test_other_words_are_no_memo_of_ours(text: str) -> None:
    assert parse_memo(text) is None


def test_a_marker_is_where_the_system_program_makes_it() -> None:
    for batch_id in (1, 2, 10**9):
        expected = Pubkey.create_with_seed(AUTHORITY, MARKERS.seed(batch_id), SYSTEM)
        assert MARKERS.address(batch_id) == str(expected)
        assert len(MARKERS.seed(batch_id)) == 32


def test_another_secret_or_token_makes_another_marker_and_none_is_shown() -> None:
    assert replace(MARKERS, secret=b"t" * 32).address(1) != MARKERS.address(1)
    assert replace(MARKERS, token=str(PAYER)).address(1) != MARKERS.address(1)
    assert "ssss" not in repr(MARKERS)


@pytest.mark.parametrize(
    ("recent", "attempts", "price"),
    [([], 0, 10), ([50] * 3 + [90], 0, 90), ([5000], 0, 100), ([20] * 8, 1, 30), ([20], 9, 100)],
)
def test_the_price_follows_the_market_within_its_bounds(
    recent: list[int], attempts: int, price: int
) -> None:
    assert unit_price_micro_lamports(recent, 10, 100, attempts) == price


def test_fee_is_signatures_plus_price_of_the_limit_rounded_up() -> None:
    assert estimate_fee(2, 1_000, 4_321) == 10_005
    assert estimate_fee(1, 0, 200_000) == 5_000


def test_the_compute_limit_has_a_tenth_to_spare_and_grows_after_exhaustion() -> None:
    assert compute_unit_limit(2_000) == 3_000
    assert compute_unit_limit(100_000) == 110_000
    assert compute_unit_limit(100_000, 1) == 165_000
    assert compute_unit_limit(1_399_999, 30) == 1_400_000


def test_a_transaction_may_be_filled_up_to_its_cap_and_no_further() -> None:
    full = optimize_batch([credit(1, 1, 60), credit(2, 2, 40)], BatchLimits(12, 100))
    above = optimize_batch([credit(1, 1, 60), credit(2, 2, 41)], BatchLimits(12, 100))

    assert (len(full), len(above)) == (1, 2)
    with pytest.raises(ValidationError, match="reading 1: 101 base units are above the cap of 100"):
        optimize_batch([credit(1, 1, 101)], BatchLimits(12, 100))


def test_prices_and_limits_are_exact_whole_numbers() -> None:
    assert unit_price_micro_lamports([], 0, 10) == 0
    assert unit_price_micro_lamports([100], 1, 10**6) == 100
    assert unit_price_micro_lamports([3], 1, 10**6, 1) == 5
    assert compute_unit_limit(20_001) == 22_001
    assert compute_unit_limit(20_001, 1) == 33_001
