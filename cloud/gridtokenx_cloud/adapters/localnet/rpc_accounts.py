"""JSON-RPC methods that read accounts."""

from typing import Any

from solders.account import Account
from solders.pubkey import Pubkey
from solders.token import ID as TOKEN_PROGRAM
from solders.token.state import Mint, TokenAccount

from gridtokenx_cloud.adapters.localnet.chain import Localnet
from gridtokenx_cloud.adapters.localnet.errors import INVALID_PARAMS, RpcError
from gridtokenx_cloud.adapters.localnet.params import (
    Params,
    in_context,
    parse_pubkey,
    shown_account,
)
from gridtokenx_cloud.adapters.localnet.store import Block

_TOKEN_2022 = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
_MAX_ACCOUNTS = 100
_MINT_BYTES = 82
_TOKEN_ACCOUNT_BYTES = 165


def _view(chain: Localnet, params: Params) -> Block:
    return params.view(chain, lag_blocks=chain.faults.account_lag_blocks)


def _account_info(chain: Localnet, params: Params) -> Any:
    block = _view(chain, params)
    account = chain.account_at(params.pubkey(0), block)
    return in_context(block, shown_account(account, params.options))


def _multiple_accounts(chain: Localnet, params: Params) -> Any:
    addresses = params.value(0, list)
    if len(addresses) > _MAX_ACCOUNTS:
        raise RpcError(INVALID_PARAMS, f"Too many inputs provided; max {_MAX_ACCOUNTS}")
    block = _view(chain, params)
    accounts = [chain.account_at(parse_pubkey(address), block) for address in addresses]
    return in_context(block, [shown_account(account, params.options) for account in accounts])


def _balance(chain: Localnet, params: Params) -> Any:
    block = _view(chain, params)
    account = chain.account_at(params.pubkey(0), block)
    return in_context(block, account.lamports if account else 0)


def _token_supply(chain: Localnet, params: Params) -> Any:
    block = _view(chain, params)
    mint = _mint(chain.account_at(params.pubkey(0), block))
    return in_context(block, _shown_amount(mint.supply, mint.decimals))


def _token_account_balance(chain: Localnet, params: Params) -> Any:
    block = _view(chain, params)
    token = _token_account(chain.account_at(params.pubkey(0), block))
    if token is None:
        raise RpcError(INVALID_PARAMS, "Invalid param: not a Token account")
    mint = _mint(chain.account_at(token.mint, block))
    return in_context(block, _shown_amount(token.amount, mint.decimals))


def _token_accounts_by_owner(chain: Localnet, params: Params) -> Any:
    owner, selection = params.pubkey(0), params.selection
    block = _view(chain, params)
    mint = parse_pubkey(selection["mint"]) if "mint" in selection else None
    program = parse_pubkey(selection["programId"]) if "programId" in selection else TOKEN_PROGRAM
    found = []
    for address, account in chain.accounts_of(program, block).items():
        token = _token_account(account)
        if token is not None and token.owner == owner and mint in (None, token.mint):
            found.append(
                {"pubkey": str(address), "account": shown_account(account, params.options)}
            )
    return in_context(block, found)


def _program_accounts(chain: Localnet, params: Params) -> Any:
    block = _view(chain, params)
    filters = [one["memcmp"] for one in params.options.get("filters") or [] if "memcmp" in one]
    return [
        {"pubkey": str(address), "account": shown_account(account, params.options)}
        for address, account in chain.accounts_of(params.pubkey(0), block).items()
        if all(_matches(account.data, one) for one in filters)
    ]


def _matches(data: bytes, memcmp: dict[str, Any]) -> bool:
    wanted = bytes(parse_pubkey(memcmp["bytes"]))
    return data[memcmp["offset"] : memcmp["offset"] + len(wanted)] == wanted


def _token_data(account: Account | None, length: int) -> bytes | None:
    """Return the part of a token program's account that both programs share."""
    if account is None or account.owner not in (TOKEN_PROGRAM, _TOKEN_2022):
        return None
    return account.data[:length] if len(account.data) >= length else None


def _token_account(account: Account | None) -> TokenAccount | None:
    data = _token_data(account, _TOKEN_ACCOUNT_BYTES)
    return None if data is None else TokenAccount.from_bytes(data)


def _mint(account: Account | None) -> Mint:
    data = _token_data(account, _MINT_BYTES)
    if data is None:
        raise RpcError(INVALID_PARAMS, "Invalid param: not a Token mint")
    return Mint.from_bytes(data)


def _shown_amount(amount: int, decimals: int) -> dict[str, Any]:
    whole, rest = divmod(amount, 10**decimals)
    text = f"{whole}.{rest:0{decimals}}".rstrip("0").rstrip(".") if decimals else str(whole)
    # The float is part of the protocol; nothing exact may be read from it.
    return {
        "amount": str(amount),
        "decimals": decimals,
        "uiAmount": float(text),
        "uiAmountString": text,
    }


def _rent_minimum(chain: Localnet, params: Params) -> Any:
    return chain.rent_minimum_lamports(params.value(0, int))


ACCOUNT_METHODS = {
    "getAccountInfo": _account_info,
    "getMultipleAccounts": _multiple_accounts,
    "getBalance": _balance,
    "getTokenSupply": _token_supply,
    "getTokenAccountBalance": _token_account_balance,
    "getProgramAccounts": _program_accounts,
    "getTokenAccountsByOwner": _token_accounts_by_owner,
    "getMinimumBalanceForRentExemption": _rent_minimum,
}
