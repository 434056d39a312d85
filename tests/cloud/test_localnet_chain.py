"""What LiteSVM alone would get wrong, with the answer a validator gives."""

from collections.abc import Iterator
from contextlib import closing

import pytest
from solders.address_lookup_table_account import (
    AddressLookupTableAccount,
)
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import MessageV1, TransactionConfig
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import (
    AdvanceNonceAccountParams,
    CreateLookupTableParams,
    ExtendLookupTableParams,
    advance_nonce_account,
    create_lookup_table,
    create_nonce_account,
    extend_lookup_table,
)
from solders.transaction import VersionedTransaction

from gridtokenx_cloud.adapters.localnet import Localnet
from gridtokenx_cloud.adapters.localnet.packet import (
    BadTransactionError,
    decode_transaction,
    fee_lamports,
)
from tests.support.localnet import (
    PAYER,
    funded_chain,
    incoming,
    lamports,
    mint_tokens,
    pay,
    signed,
    supply,
)

SOL = 10**9


@pytest.fixture
def chain() -> Iterator[Localnet]:
    with closing(funded_chain()) as chain:
        yield chain


def errors(chain: Localnet, transaction: VersionedTransaction) -> object:
    """Return what preflight says about it now."""
    return chain.simulate(incoming(transaction), chain.tip, verify=True).err


def test_a_blockhash_is_taken_for_150_blocks_and_not_one_more(chain: Localnet) -> None:
    to = Pubkey.new_unique()
    last, late = signed(chain.tip.hash, pay(to, SOL)), signed(chain.tip.hash, pay(to, 2 * SOL))

    chain.advance(149)
    chain.submit(incoming(last))
    chain.advance()
    chain.submit(incoming(late))
    chain.advance()

    assert lamports(chain, to) == SOL


def test_a_blockhash_nobody_made_is_never_taken(chain: Localnet) -> None:
    to = Pubkey.new_unique()

    chain.submit(incoming(signed(chain.genesis_hash, pay(to, SOL))))
    chain.advance()

    assert lamports(chain, to) == 0


def test_the_same_transaction_lands_once_in_its_window_and_is_called_expired_after_it(
    chain: Localnet,
) -> None:
    transaction = signed(chain.tip.hash, mint_tokens(5))

    for _ in range(60):
        chain.submit(incoming(transaction))
        chain.advance()
    inside = errors(chain, transaction)
    chain.advance(90)
    chain.submit(incoming(transaction))
    chain.advance()

    assert supply(chain) == 5
    assert inside == "AlreadyProcessed"
    assert errors(chain, transaction) == "BlockhashNotFound"


def test_a_message_under_another_signature_is_still_the_same_message(chain: Localnet) -> None:
    genuine = signed(chain.tip.hash, mint_tokens(5))
    forged = VersionedTransaction.populate(genuine.message, [Signature.new_unique()])

    chain.submit(incoming(forged))
    chain.submit(incoming(genuine))
    chain.advance()

    assert supply(chain) == 5
    assert incoming(forged).message_hash == incoming(genuine).message_hash
    assert chain.store.by_signature(str(forged.signatures[0])) is None
    assert errors(chain, forged) == "AlreadyProcessed"


@pytest.mark.parametrize(("version", "limit"), [(None, 1232), (0, 1232), (1, 4096)])
def test_a_transaction_fits_into_one_packet_to_the_byte(
    chain: Localnet, version: int | None, limit: int
) -> None:
    def padded(size: int) -> bytes:
        program = Pubkey.new_unique()
        bare = bytes(signed(chain.tip.hash, Instruction(program, bytes(300), []), version=version))
        data = bytes(300 + size - len(bare))
        return bytes(signed(chain.tip.hash, Instruction(program, data, []), version=version))

    widest, too_wide = padded(limit), padded(limit + 1)

    assert (len(widest), len(too_wide)) == (limit, limit + 1)
    assert decode_transaction(widest, v1=True).version == version
    with pytest.raises(BadTransactionError, match="too large"):
        decode_transaction(too_wide, v1=True)


def test_a_failed_transaction_is_in_the_block_and_pays(chain: Localnet) -> None:
    before = lamports(chain, PAYER.pubkey())
    transaction = signed(chain.tip.hash, pay(Pubkey.new_unique(), 1000 * SOL))

    chain.submit(incoming(transaction))
    chain.advance()

    landed = chain.store.by_signature(str(transaction.signatures[0]))
    assert landed is not None
    assert landed.err == {"InstructionError": [0, {"Custom": 1}]}
    assert landed.meta["fee"] == 5000
    assert lamports(chain, PAYER.pubkey()) == before - 5000


def test_a_payer_without_money_leaves_no_trace(chain: Localnet) -> None:
    poor = Keypair()
    transaction = signed(chain.tip.hash, pay(PAYER.pubkey(), 1, poor), payer=poor)

    chain.submit(incoming(transaction))
    chain.advance()

    assert errors(chain, transaction) == "AccountNotFound"
    assert chain.store.by_signature(str(transaction.signatures[0])) is None


def test_each_commitment_reads_its_own_state(chain: Localnet) -> None:
    chain.submit(incoming(signed(chain.tip.hash, mint_tokens(5))))
    chain.advance()
    views = [(supply(chain), supply(chain, "confirmed"), supply(chain, "finalized"))]
    chain.advance()
    views.append((supply(chain), supply(chain, "confirmed"), supply(chain, "finalized")))
    chain.advance(30)
    views.append((supply(chain), supply(chain, "confirmed"), supply(chain, "finalized")))
    chain.advance()
    views.append((supply(chain), supply(chain, "confirmed"), supply(chain, "finalized")))

    assert views == [(5, 0, 0), (5, 5, 0), (5, 5, 0), (5, 5, 5)]


def test_preflight_at_finalized_knows_neither_a_younger_blockhash_nor_a_younger_balance(
    chain: Localnet,
) -> None:
    finalized = chain.block_at("finalized")
    rich = Keypair()
    chain.submit(incoming(signed(chain.tip.hash, pay(rich.pubkey(), SOL))))
    chain.advance()
    young = signed(chain.tip.hash, mint_tokens(5))
    old = incoming(signed(finalized.hash, pay(rich.pubkey(), 1)))

    assert chain.simulate(incoming(young), finalized, verify=True).err == "BlockhashNotFound"
    assert chain.simulate(incoming(young), chain.tip, verify=True).err is None
    assert chain.simulate(old, chain.tip, verify=True).err is None
    assert chain.simulate(old, finalized, verify=True).err == {
        "InsufficientFundsForRent": {"account_index": 1}
    }
    assert lamports(chain, rich.pubkey()) == SOL


def test_a_lost_fork_gives_everything_back_and_its_transactions_may_land_again(
    chain: Localnet,
) -> None:
    transaction = signed(chain.tip.hash, mint_tokens(5))
    money, tip = lamports(chain, PAYER.pubkey()), chain.tip
    chain.submit(incoming(transaction))
    chain.advance(3)
    on_fork = chain.tip

    chain.drop_fork(3)
    dropped = (supply(chain), lamports(chain, PAYER.pubkey()), chain.tip)
    status = chain.store.by_signature(str(transaction.signatures[0]))
    chain.submit(incoming(transaction))
    chain.advance()

    assert dropped == (0, money, tip)
    assert status is None
    assert supply(chain) == 5
    assert (chain.tip.height, chain.tip.slot) == (tip.height + 1, on_fork.slot + 1)


def test_a_blockhash_of_a_lost_fork_is_unknown(chain: Localnet) -> None:
    chain.advance()
    transaction = signed(chain.tip.hash, mint_tokens(5))

    chain.drop_fork(1)
    chain.advance()

    assert errors(chain, transaction) == "BlockhashNotFound"


def test_what_is_final_cannot_be_dropped_and_stays_final_after_a_fork(chain: Localnet) -> None:
    finalized = chain.block_at("finalized")

    chain.drop_fork(20)

    assert chain.block_at("finalized") == finalized
    with pytest.raises(ValueError, match="12 are not final"):
        chain.drop_fork(13)


def test_a_durable_nonce_outlives_the_window_and_works_once(chain: Localnet) -> None:
    nonce = create_nonce(chain)
    transaction = signed(nonce_value(chain, nonce), use_nonce(nonce), mint_tokens(5))
    chain.advance(400)

    for _ in range(3):
        chain.submit(incoming(transaction))
        chain.advance()

    assert supply(chain) == 5


def test_a_failed_transaction_uses_up_its_durable_nonce(chain: Localnet) -> None:
    nonce = create_nonce(chain)
    value = nonce_value(chain, nonce)
    failing = signed(value, use_nonce(nonce), pay(Pubkey.new_unique(), 1000 * SOL))

    chain.submit(incoming(failing))
    chain.advance()
    chain.submit(incoming(signed(value, use_nonce(nonce), mint_tokens(5))))
    chain.advance()

    assert nonce_value(chain, nonce) != value
    assert supply(chain) == 0


def test_version_1_pays_its_priority_fee_and_can_be_switched_off(chain: Localnet) -> None:
    message = MessageV1.try_compile(
        PAYER.pubkey(), [mint_tokens(5)], chain.tip.hash, TransactionConfig(priority_fee=12_345)
    )
    transaction = VersionedTransaction(message, [PAYER])
    before = lamports(chain, PAYER.pubkey())

    chain.submit(incoming(transaction))
    chain.advance()

    assert supply(chain) == 5
    assert before - lamports(chain, PAYER.pubkey()) == 17_345 == fee_lamports(message)
    with pytest.raises(BadTransactionError, match="version is unsupported"):
        decode_transaction(bytes(transaction), v1=False)


@pytest.mark.parametrize(("limit", "err"), [(161, None), (160, "ProgramFailedToComplete")])
def test_version_1_computes_no_more_than_its_header_allows_and_pays_all_the_same(
    chain: Localnet, limit: int, err: str | None
) -> None:
    config = TransactionConfig(compute_unit_limit=limit, priority_fee=7)
    message = MessageV1.try_compile(PAYER.pubkey(), [mint_tokens(5)], chain.tip.hash, config)
    sent = incoming(VersionedTransaction(message, [PAYER]))
    before, simulated = (
        lamports(chain, PAYER.pubkey()),
        chain.simulate(sent, chain.tip, verify=True),
    )

    chain.submit(sent)
    chain.advance()

    landed = chain.store.by_signature(sent.signature)
    expected = err and {"InstructionError": [0, err]}
    assert landed is not None
    assert landed.err == simulated.err == expected
    assert supply(chain) == (0 if err else 5)
    assert before - lamports(chain, PAYER.pubkey()) == landed.meta["fee"] == 5_007


@pytest.mark.parametrize("limit", [None, 10_000])
def test_the_fee_told_is_the_fee_taken(chain: Localnet, limit: int | None) -> None:
    budget = [set_compute_unit_price(1_000_003)]
    if limit is not None:
        budget.append(set_compute_unit_limit(limit))
    transaction = signed(chain.tip.hash, *budget, mint_tokens(5))
    before = lamports(chain, PAYER.pubkey())

    chain.submit(incoming(transaction))
    chain.advance()

    assert before - lamports(chain, PAYER.pubkey()) == fee_lamports(transaction.message) > 5000


def test_accounts_behind_a_lookup_table_are_rewound_too(chain: Localnet) -> None:
    to, payer = Pubkey.new_unique(), PAYER.pubkey()
    create, address = create_lookup_table(
        CreateLookupTableParams(
            authority_address=payer,
            payer_address=payer,
            recent_slot=chain.block_at("confirmed").slot,
        )
    )
    extend = extend_lookup_table(
        ExtendLookupTableParams(
            lookup_table_address=address,
            authority_address=payer,
            payer_address=payer,
            new_addresses=[to],
        )
    )
    chain.submit(incoming(signed(chain.tip.hash, create, extend)))
    chain.advance()
    table = AddressLookupTableAccount(address, [to])
    transaction = signed(chain.tip.hash, pay(to, SOL), version=0, tables=[table])

    chain.submit(incoming(transaction))
    chain.advance()

    landed = chain.store.by_address(to, chain.tip.slot, None, None, 10)
    assert [entry.signature for entry in landed] == [str(transaction.signatures[0])]
    assert (lamports(chain, to), lamports(chain, to, "confirmed")) == (SOL, 0)


def test_rent_follows_the_switch(chain: Localnet) -> None:
    chain.faults.rent_lamports_per_byte = 5_080

    assert chain.rent_minimum_lamports(165) == 1_488_440


def test_a_late_transaction_lands_in_its_last_valid_block(chain: Localnet) -> None:
    chain.faults.land_in_last_valid_block = True
    chain.submit(incoming(signed(chain.tip.hash, mint_tokens(5))))
    chain.faults.land_in_last_valid_block = False

    chain.advance(149)
    before = supply(chain)
    chain.advance()

    assert (before, supply(chain)) == (0, 5)


def test_a_dropped_transaction_lands_when_it_is_sent_again(chain: Localnet) -> None:
    transaction = incoming(signed(chain.tip.hash, mint_tokens(5)))
    chain.faults.drop_silently = 1

    chain.submit(transaction)
    chain.advance()
    before = supply(chain)
    chain.submit(transaction)
    chain.advance()

    assert (before, supply(chain)) == (0, 5)


def create_nonce(chain: Localnet) -> Pubkey:
    account = Keypair()
    instructions = create_nonce_account(
        PAYER.pubkey(), account.pubkey(), PAYER.pubkey(), chain.rent_minimum_lamports(80)
    )
    transaction = signed(chain.tip.hash, *instructions, others=[account])
    chain.submit(incoming(transaction))
    chain.advance()
    return account.pubkey()


def nonce_value(chain: Localnet, nonce: Pubkey) -> Hash:
    account = chain.account_at(nonce, chain.tip)
    assert account is not None
    return Hash(account.data[40:72])


def use_nonce(nonce: Pubkey) -> Instruction:
    return advance_nonce_account(
        AdvanceNonceAccountParams(nonce_pubkey=nonce, authorized_pubkey=PAYER.pubkey())
    )
