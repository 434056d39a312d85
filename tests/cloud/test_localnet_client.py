"""The client library runs through every method it has in common with a real node."""

from collections.abc import AsyncIterator

import pytest
from solana.rpc.async_api import AsyncClient
from solana.rpc.commitment import Confirmed, Finalized, Processed
from solana.rpc.models import TokenAccountOpts, TxOpts
from solders.message import MessageV0
from solders.pubkey import Pubkey

from gridtokenx_cloud.adapters.localnet import Localnet, serve
from tests.support.localnet import MINT, OWNER, PAYER, TOKENS, funded_chain, mint_tokens, signed

SKIP = TxOpts(skip_preflight=True, max_retries=0)


@pytest.fixture
def chain() -> Localnet:
    return funded_chain()


@pytest.fixture
async def client(chain: Localnet) -> AsyncIterator[AsyncClient]:
    async with await serve(chain) as server, AsyncClient(server.url) as client:
        yield client


async def test_tokens_are_minted_by_the_real_program_and_become_final_after_32_blocks(
    client: AsyncClient, chain: Localnet
) -> None:
    latest = (await client.get_latest_blockhash(Finalized)).value

    sent = await client.send_transaction(
        signed(latest.blockhash, mint_tokens(1_500_000_000), version=0), SKIP
    )
    chain.advance()
    at_once = (await client.get_token_supply(MINT.pubkey(), Processed)).value.amount
    confirmed_too_early = (await client.get_token_supply(MINT.pubkey(), Confirmed)).value.amount
    chain.advance()
    confirmed = (await client.get_token_account_balance(TOKENS, Confirmed)).value
    final_too_early = (await client.get_token_account_balance(TOKENS, Finalized)).value.amount
    chain.advance(31)
    final = (await client.get_token_supply(MINT.pubkey(), Finalized)).value

    status = (await client.get_signature_statuses([sent.value])).value[0]
    assert (at_once, confirmed_too_early) == ("1500000000", "0")
    assert (confirmed.ui_amount_string, final_too_early) == ("1.5", "0")
    assert (final.amount, final.decimals) == ("1500000000", 9)
    assert status is not None
    assert status.err is None
    assert status.confirmations is None
    assert str(status.confirmation_status) == "TransactionConfirmationStatus.Finalized"


async def test_the_client_understands_every_answer(client: AsyncClient, chain: Localnet) -> None:
    latest = (await client.get_latest_blockhash()).value
    transaction = signed(latest.blockhash, mint_tokens(7), version=1)

    simulated = (await client.simulate_transaction(transaction, sig_verify=True)).value
    sent = (await client.send_transaction(transaction)).value
    chain.advance(33)
    shown = (
        await client.get_transaction(sent, "base64", max_supported_transaction_version=1)
    ).value
    listed = (await client.get_signatures_for_address(TOKENS)).value
    message = signed(latest.blockhash, mint_tokens(1), version=0).message
    assert isinstance(message, MessageV0)
    fee = (await client.get_fee_for_message(message)).value

    assert simulated.err is None
    assert simulated.units_consumed == 161
    assert shown is not None
    assert shown.transaction.meta is not None
    assert shown.transaction.meta.fee == 5000
    assert shown.transaction.meta.err is None
    assert shown.transaction.transaction == transaction
    assert listed[0].signature == sent
    assert len(listed) == 2
    assert fee == 5000
    assert (await client.get_account_info(TOKENS)).value is not None
    assert (await client.get_account_info(Pubkey.new_unique())).value is None
    assert [a is None for a in (await client.get_multiple_accounts([TOKENS, OWNER])).value] == [
        False,
        True,
    ]
    owned = await client.get_token_accounts_by_owner(OWNER, TokenAccountOpts(mint=MINT.pubkey()))
    assert [account.pubkey for account in owned.value] == [TOKENS]
    assert (await client.get_balance(PAYER.pubkey())).value < 10**10
    assert (await client.get_recent_prioritization_fees()).value[0].prioritization_fee == 0
    assert (await client.get_genesis_hash()).value == chain.genesis_hash
    assert (await client.get_version()).value.solana_core == "4.1.2"
    assert (await client.get_slot(Processed)).value == chain.tip.slot
    assert (await client.get_block_height(Finalized)).value == chain.tip.height - 32
    assert latest.last_valid_block_height == chain.tip.height - 33 - 32 + 150
    assert await client.is_connected()


async def test_a_transaction_is_confirmed_by_the_clients_own_loop(
    client: AsyncClient, chain: Localnet
) -> None:
    latest = (await client.get_latest_blockhash()).value
    sent = await client.send_transaction(signed(latest.blockhash, mint_tokens(7)), SKIP)
    chain.advance(40)

    confirmed = await client.confirm_transaction(
        sent.value,
        Finalized,
        sleep_seconds=0,
        last_valid_block_height=latest.last_valid_block_height,
    )

    assert confirmed.value[0] is not None
