"""Which transaction formats the nodes of a cluster take, asked by simulation."""

import asyncio
import base64

from solders.hash import Hash
from solders.instruction import Instruction
from solders.pubkey import Pubkey

from gridtokenx_cloud.adapters.solana_rpc.rpc import FailoverRpc, JsonRpc, RpcRefusedError
from gridtokenx_cloud.adapters.solana_rpc.transactions import (
    MEMO,
    Budget,
    compile_message,
    unsigned,
)
from gridtokenx_cloud.errors import RpcUnavailableError
from gridtokenx_cloud.formats import TransactionFormat

_REFUSALS = ("UnsupportedVersion", "SanitizeFailure")
_MEMOS = {TransactionFormat.V1: 12}
"""More than 1,232 bytes: a node that knows the version but not its size refuses these."""


async def best_format(rpc: FailoverRpc, payer: Pubkey) -> TransactionFormat:
    """Return the widest format that every node in reach takes.

    Raises:
        RpcUnavailableError: No node is in reach.
    """
    for form in (TransactionFormat.V1, TransactionFormat.V0):
        answers = await asyncio.gather(*(_takes(node, form, payer) for node in rpc.endpoints))
        heard = [answer for answer in answers if answer is not None]
        if not heard:
            raise RpcUnavailableError("no RPC endpoint says which transaction formats it takes")
        if all(heard):
            return form
    return TransactionFormat.LEGACY


async def _takes(node: JsonRpc, form: TransactionFormat, payer: Pubkey) -> bool | None:
    """Tell whether a node takes a format; None when it does not answer."""
    memos = [Instruction(MEMO, b"%0100d" % n, []) for n in range(_MEMOS.get(form, 1))]
    message = compile_message(memos, payer, Hash.default(), form, Budget(200_000, 0))
    text = base64.b64encode(unsigned(message)).decode()
    options = {"encoding": "base64", "sigVerify": False, "replaceRecentBlockhash": True}
    try:
        reply = await node.call("simulateTransaction", text, options)
    except RpcRefusedError:
        return False
    except RpcUnavailableError:
        return None
    # Any other error (a payer without SOL) comes after the format was understood.
    return reply["value"].get("err") not in _REFUSALS
