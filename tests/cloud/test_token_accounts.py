"""Why an account can't take tokens, from what a node shows of it."""

import base64
from typing import Any

import pytest
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM

from gridtokenx_cloud.adapters.solana_rpc.accounts import (
    account_fault,
    account_in,
    enrolment_fault,
    exists,
    wallet_fault,
)
from gridtokenx_cloud.adapters.solana_rpc.transactions import TOKEN, TOKEN_2022, Token
from gridtokenx_cloud.errors import RpcUnavailableError

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


def test_a_token_account_given_as_a_wallet_is_told_whose_it_is() -> None:
    given = str(OTHER)

    refused = enrolment_fault(shown(owner=WALLET) | {"executable": False}, given)

    assert refused == f"Wallet {given} is a token account of {WALLET}; give that wallet itself."


@pytest.mark.parametrize("data", [b"\x02" * 166, b"\x02" * 200])
def test_a_token_2022_account_with_extensions_is_one_too(data: bytes) -> None:
    owner = Pubkey.from_bytes(b"\x02" * 32)
    account = {
        "owner": str(TOKEN_2022),
        "data": [base64.b64encode(data).decode(), "base64"],
        "executable": False,
    }

    assert f"token account of {owner}" in str(enrolment_fault(account, "W"))


@pytest.mark.parametrize("data", [bytes(82), b"\x02" * 355])
def test_a_mint_and_a_shared_signature_are_no_token_accounts(data: bytes) -> None:
    account = {
        "owner": str(TOKEN),
        "data": [base64.b64encode(data).decode(), "base64"],
        "executable": False,
    }

    assert f"an account of program {TOKEN}" in str(enrolment_fault(account, "W"))


def test_what_is_no_token_account_is_told_by_what_it_is() -> None:
    program = {"owner": str(OTHER), "data": ["", "base64"], "executable": True}
    kind_mint = base64.b64encode(bytes(165) + b"\x01" + bytes(100)).decode()
    mint = {"owner": str(TOKEN_2022), "data": [kind_mint, "base64"], "executable": False}
    person = {"owner": str(SYSTEM), "data": ["", "base64"], "executable": False}

    told = [enrolment_fault(one, "W") for one in (program, mint, person, None)]

    assert told == [
        "Wallet W is a program, not a person's; copy the address from the owner's wallet.",
        f"Wallet W is an account of program {TOKEN_2022}, not a person's; copy the address from the"
        " owner's wallet.",
        None,
        None,
    ]


def test_a_reply_holds_an_account_or_says_that_there_is_none() -> None:
    account = {"owner": str(SYSTEM), "data": ["", "base64"], "executable": False}

    assert account_in({"context": {}, "value": account}) == account
    assert account_in({"context": {}, "value": None}) is None


@pytest.mark.parametrize(
    "reply",
    [
        None,
        [],
        "",
        {"context": {}},
        {"value": {}},
        {"value": {"owner": str(TOKEN), "data": {"parsed": {}}, "executable": False}},
    ],
)
def test_a_reply_of_another_form_counts_as_none(reply: object) -> None:
    with pytest.raises(RpcUnavailableError, match="with no account"):
        account_in(reply)
