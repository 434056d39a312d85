"""Whether a wallet is a person's: by its address, and by what the chain knows of it.

Asked when an owner is enrolled or gets another wallet; the minter asks again before each mint.
"""

import asyncio

from gridtokenx_cloud.adapters.solana_rpc.accounts import Shown, account_in, enrolment_fault
from gridtokenx_cloud.adapters.solana_rpc.rpc import HttpRpc, RpcRefusedError
from gridtokenx_cloud.adapters.verifier import is_on_curve
from gridtokenx_cloud.errors import RpcUnavailableError, ValidationError
from gridtokenx_cloud.ports.admin import WalletSeen
from gridtokenx_cloud.registry import check_user
from gridtokenx_cloud.settings import Settings

_LONGEST_WAIT_S = 5
"""Somebody waits for the answer, and a node that is silent now is asked again at the mint."""


def check_wallet(settings: Settings, user_id: str, wallet: str) -> WalletSeen:
    """Return what the chain knows of a wallet that somebody gives for *user_id*.

    Raises:
        ValidationError: `InvalidUserId`, or `InvalidWalletAddress` for what is no person's.
    """
    check_user(user_id, wallet, is_on_curve)
    if not settings.cloud.solana_rpc_urls:
        return WalletSeen("not_asked")
    try:
        account = asyncio.run(_account(settings, wallet))
    except (RpcUnavailableError, RpcRefusedError) as exc:
        return WalletSeen(
            "not_asked",
            f"wallet {wallet} is enrolled without the chain's word ({exc}); it is looked at before "
            "anything is minted to it, and can be changed with `gtx-cloud user wallet`",
        )
    if reason := enrolment_fault(account, wallet):
        raise ValidationError("InvalidWalletAddress", reason)
    return WalletSeen("new" if account is None else "wallet")


async def _account(settings: Settings, wallet: str) -> Shown:
    """Ask one node after the other, each once."""
    timeout_s = min(settings.blockchain.rpc_timeout_secs, _LONGEST_WAIT_S)
    silent = RpcUnavailableError("no endpoint")
    for url in settings.cloud.solana_rpc_urls:
        node = HttpRpc(url, timeout_s)
        try:
            return account_in(
                await node.call(
                    "getAccountInfo", wallet, {"commitment": "finalized", "encoding": "base64"}
                )
            )
        except RpcUnavailableError as exc:
            silent = exc
        finally:
            await node.close()
    raise silent
