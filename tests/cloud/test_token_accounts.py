"""Why an account can't take tokens, from what a node shows of it."""

import base64
from typing import Any

import pytest
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM

from gridtokenx_cloud.adapters.solana_rpc.accounts import account_fault, exists, wallet_fault
from gridtokenx_cloud.adapters.solana_rpc.transactions import TOKEN, TOKEN_2022, Token

MINT, OTHER = Pubkey.new_unique(), Pubkey.new_unique()
WALLET = Pubkey.new_unique()
OURS = Token(MINT, TOKEN, 9, Pubkey.new_unique(), Pubkey.new_unique())


def shown(
    *,
    mint: Pubkey = MINT,
    owner: Pubkey = WALLET,
    state: int = 1,
    program: Pubkey = TOKEN,
    size: int = 165,
) -> dict[str, Any]:
    """Return a token account as JSON-RPC shows it."""
    data = bytearray(size)
    data[:64] = bytes(mint) + bytes(owner)
    data[108] = state
    return {"owner": str(program), "data": [base64.b64encode(data).decode(), "base64"]}


def fault(account: dict[str, Any] | None) -> str | None:
    return account_fault(account, str(WALLET), OURS)


@pytest.mark.parametrize(
    ("account", "reason"),
    [
        (shown(mint=OTHER), "holds another token"),
        (shown(owner=OTHER), "given to another owner"),
        (shown(state=2), "frozen"),
        (shown(state=0), "frozen"),
        (shown(program=TOKEN_2022), "belongs to another program"),
        (shown(size=164), "belongs to another program"),
    ],
)
def test_an_account_that_would_fail_the_whole_transaction_is_told_by_why(
    account: dict[str, Any], reason: str
) -> None:
    found = fault(account)

    assert found is not None
    assert reason in found


def test_an_account_of_ours_is_good_and_one_that_is_not_made_yet_is_no_fault() -> None:
    assert fault(shown()) is None
    assert fault(shown(size=170)) is None
    assert fault(None) is None
    assert fault({"owner": str(SYSTEM), "data": ["", "base64"]}) is None


def test_an_address_that_only_holds_lamports_is_no_token_account_yet() -> None:
    assert exists(shown())
    assert not exists(None)
    assert not exists({"owner": str(SYSTEM), "data": ["", "base64"]})


def test_a_wallet_is_a_person_unless_a_program_owns_it() -> None:
    refused = wallet_fault({"owner": str(TOKEN)})

    assert wallet_fault(None) is None
    assert wallet_fault({"owner": str(SYSTEM)}) is None
    assert refused is not None
    assert str(TOKEN) in refused
