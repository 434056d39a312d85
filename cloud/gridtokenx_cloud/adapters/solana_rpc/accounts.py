"""What a node says about accounts: who can take tokens, and why one can't. No I/O."""

import base64
from typing import Any

from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM

from gridtokenx_cloud.adapters.solana_rpc.transactions import TOKEN_PROGRAMS, Token
from gridtokenx_cloud.errors import RpcUnavailableError

Shown = dict[str, Any] | None
"""An account as JSON-RPC shows it; None = it does not exist."""

_TOKEN_ACCOUNT_BYTES = 165
_TOKEN_PROGRAMS = frozenset(map(str, TOKEN_PROGRAMS.values()))
_MULTISIG_BYTES = 355
_KIND_OFFSET, _KIND_ACCOUNT = 165, b"\x02"
_STATE_OFFSET, _INITIALIZED = 108, 1


def account_in(reply: object) -> Shown:
    """Return the account of a reply to `getAccountInfo`.

    Raises:
        RpcUnavailableError: It is no such reply.
    """
    match reply:
        case {"value": None}:
            return None
        case {"value": {"owner": str(), "data": [str(), *_], "executable": bool()} as account}:
            return dict(account)
    raise RpcUnavailableError("a node answered getAccountInfo, but with no account")


def wallet_fault(account: Shown) -> str | None:
    """Return why a wallet is no person's; None also when it does not exist yet."""
    if account is None or account["owner"] == str(SYSTEM):
        return None
    return f"the wallet is an account of program {account['owner']}, not of a person"


def enrolment_fault(account: Shown, wallet: str) -> str | None:
    """Return why an owner can't be enrolled with a wallet, and whose it is where that shows."""
    if account is None or wallet_fault(account) is None:
        return None
    program = str(account["owner"])
    data = base64.b64decode(account["data"][0])
    if program in _TOKEN_PROGRAMS and _is_token_account(data):
        owner = Pubkey.from_bytes(data[32:64])
        return f"Wallet {wallet} is a token account of {owner}; give that wallet itself."
    what = "a program" if account["executable"] else f"an account of program {program}"
    return f"Wallet {wallet} is {what}, not a person's; copy the address from the owner's wallet."


def _is_token_account(data: bytes) -> bool:
    # In Token-2022 accounts and mints with extensions are told apart by the byte after the base.
    if len(data) == _MULTISIG_BYTES:
        return False
    return len(data) == _TOKEN_ACCOUNT_BYTES or data[_KIND_OFFSET:][:1] == _KIND_ACCOUNT


def exists(account: Shown) -> bool:
    """Tell whether a token account was made at this address."""
    # Owned by System: somebody sent SOL to the address before the account was made.
    return account is not None and account["owner"] != str(SYSTEM)


def account_fault(account: Shown, wallet: str, token: Token) -> str | None:
    """Return why a token account can't take this token; None also when it does not exist."""
    if account is None or not exists(account):
        return None
    data = base64.b64decode(account["data"][0])
    if account["owner"] != str(token.program) or len(data) < _TOKEN_ACCOUNT_BYTES:
        return "the token account belongs to another program"
    if data[:32] != bytes(token.mint):
        return "the token account holds another token"
    if str(Pubkey.from_bytes(data[32:64])) != wallet:
        return "the token account was given to another owner"
    if data[_STATE_OFFSET] != _INITIALIZED:
        return "the token account is frozen"
    return None
