"""Sizes and limits of mint transactions, against the bytes that are really made."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import MessageV1
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from gridtokenx_cloud.adapters.solana_rpc.lookup import Table
from gridtokenx_cloud.adapters.solana_rpc.readback import read_transaction
from gridtokenx_cloud.adapters.solana_rpc.transactions import (
    TOKEN,
    Budget,
    MintContent,
    Token,
    compile_message,
    mint_instructions,
    unsigned,
)
from gridtokenx_cloud.batching import (
    MAX_MEMO_BYTES,
    BatchLimits,
    Markers,
    MintBatchData,
    optimize_batch,
)
from gridtokenx_cloud.errors import BatchTooLargeError, EmptyBatchError
from gridtokenx_cloud.formats import (
    TransactionFormat,
    check_recipients,
    format_for,
    max_recipients,
    transaction_bytes,
)

AUTHORITY, PAYER, MINT = (Keypair.from_seed(bytes([n]) * 32).pubkey() for n in (1, 2, 3))
MARKERS = Markers(b"s" * 32, str(AUTHORITY), str(MINT))
FORMS = st.sampled_from(list(TransactionFormat))
SIGNATURES = st.sampled_from([1, 2])


def account(number: int) -> Pubkey:
    return Pubkey.from_bytes(hashlib.sha256(number.to_bytes(4, "big")).digest())


def real_transaction(
    form: TransactionFormat, payments: dict[Pubkey, int], memo: str, signatures: int
) -> tuple[bytes, Token]:
    """Build a mint as the minter does; the table holds more than is needed."""
    token = Token(MINT, TOKEN, 9, AUTHORITY, PAYER if signatures == 2 else AUTHORITY)
    content = MintContent(
        memo=memo,
        marker=Pubkey.from_string(MARKERS.address(1)),
        marker_seed=MARKERS.seed(1),
        marker_lamports=890_880,
        payments=tuple(payments.items()),
    )
    table = Table(account(10**6), (account(10**6 + 1), MINT, *payments), None)
    message = compile_message(
        mint_instructions(token, content),
        token.payer,
        Hash.default(),
        form,
        Budget(50_000, 1_000),
        table.account if form is TransactionFormat.V0 else None,
    )
    return unsigned(message), token


@settings(max_examples=120, deadline=None)
@given(FORMS, st.integers(1, 58), st.integers(0, MAX_MEMO_BYTES), SIGNATURES)
def test_the_size_formula_is_that_of_the_real_bytes(
    form: TransactionFormat, recipients: int, memo_bytes: int, signatures: int
) -> None:
    payments = {account(n): 10**12 for n in range(recipients)}

    raw, _ = real_transaction(form, payments, "m" * memo_bytes, signatures)

    assert len(raw) == transaction_bytes(form, recipients, memo_bytes, signatures)


@settings(max_examples=80, deadline=None)
@given(
    FORMS,
    SIGNATURES,
    st.lists(st.tuples(st.integers(1, 150), st.integers(1, 10**9)), min_size=1, max_size=200),
)
def test_any_credits_pack_into_transactions_that_every_limit_allows(
    form: TransactionFormat, signatures: int, credits_due: list[tuple[int, int]]
) -> None:
    items = [
        MintBatchData(n, f"user-{owner}", str(account(owner)), "HOUSE", wh, wh)
        for n, (owner, wh) in enumerate(credits_due)
    ]
    owed: dict[Pubkey, int] = {}
    paid: dict[Pubkey, int] = {}
    for owner, wh in credits_due:
        owed[account(owner)] = owed.get(account(owner), 0) + wh

    for group in optimize_batch(items, BatchLimits(max_recipients(form, signatures), 10**12)):
        payments: dict[Pubkey, int] = {}
        for item in group.items:
            key = Pubkey.from_string(item.wallet_address)
            payments[key] = payments.get(key, 0) + item.amount_base_units
        chosen = format_for(form, len(payments), signatures, 80)
        raw, token = real_transaction(chosen, payments, "m" * 80, signatures)
        message = VersionedTransaction.from_bytes(raw).message
        lookups = getattr(message, "address_table_lookups", [])
        loaded = sum(len(one.writable_indexes) + len(one.readonly_indexes) for one in lookups)
        assert len(raw) <= (4096 if isinstance(message, MessageV1) else 1232)
        assert len(message.account_keys) + loaded <= 64
        assert len(message.instructions) <= 64
        table = [account(10**6 + 1), MINT, *payments]
        places = [n for one in lookups for n in bytes(one.writable_indexes)]
        found = read_transaction(raw, token, [str(table[n]) for n in places])
        assert found.payments == {str(key): wh for key, wh in payments.items()}
        for key, wh in payments.items():
            paid[key] = paid.get(key, 0) + wh

    assert paid == owed


@pytest.mark.parametrize(
    ("form", "signatures", "most"),
    [
        ("legacy", 2, 12),
        ("legacy", 1, 14),
        ("v0", 2, 33),
        ("v0", 1, 39),
        ("v1", 2, 57),
        ("v1", 1, 58),
    ],
)
def test_a_transaction_takes_as_many_recipients_as_its_format_carries(
    form: str, signatures: int, most: int
) -> None:
    chosen = TransactionFormat(form)

    assert max_recipients(chosen, signatures) == most
    assert transaction_bytes(chosen, most, 80, signatures) <= chosen.max_bytes


def test_one_recipient_more_than_the_most_breaks_a_limit() -> None:
    for form in TransactionFormat:
        most = max_recipients(form, 2)
        raw, _ = real_transaction(form, {account(n): 1 for n in range(most + 1)}, "m" * 80, 2)

        locks = len(VersionedTransaction.from_bytes(raw).message.account_keys)
        assert len(raw) > form.max_bytes or locks > 64


def test_a_lookup_table_is_used_only_where_legacy_is_too_small() -> None:
    assert format_for(TransactionFormat.V0, 12, 2) is TransactionFormat.LEGACY
    assert format_for(TransactionFormat.V0, 13, 2) is TransactionFormat.V0
    assert format_for(TransactionFormat.V0, 12, 2, MAX_MEMO_BYTES) is TransactionFormat.V0
    assert format_for(TransactionFormat.V1, 1, 2) is TransactionFormat.V1


def test_a_batch_that_no_transaction_can_carry_is_refused() -> None:
    check_recipients(1, TransactionFormat.LEGACY, 2)
    check_recipients(12, TransactionFormat.LEGACY, 2)
    with pytest.raises(EmptyBatchError, match=r"^a batch without recipients can't be minted$"):
        check_recipients(0, TransactionFormat.LEGACY, 2)
    with pytest.raises(BatchTooLargeError) as caught:
        check_recipients(13, TransactionFormat.LEGACY, 2)

    assert (caught.value.size, caught.value.max_size) == (13, 12)
