"""JSON-RPC methods over a chain: parameters in, result out, no transport."""

from collections.abc import Callable, Mapping
from typing import Any

from gridtokenx_cloud.adapters.localnet.chain import GENESIS_SLOT, Localnet
from gridtokenx_cloud.adapters.localnet.errors import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    NODE_UNHEALTHY,
    CutConnectionError,
    RpcError,
)
from gridtokenx_cloud.adapters.localnet.faults import Faults
from gridtokenx_cloud.adapters.localnet.params import API_VERSION, Params, in_context
from gridtokenx_cloud.adapters.localnet.rpc_accounts import ACCOUNT_METHODS
from gridtokenx_cloud.adapters.localnet.rpc_transactions import TRANSACTION_METHODS

Method = Callable[[Localnet, Params], Any]

_SLOTS_PER_EPOCH = 432_000
_UNHEALTHY_SLOTS = 128


def _latest_blockhash(chain: Localnet, params: Params) -> Any:
    block = params.view(chain)
    return in_context(
        block,
        {
            "blockhash": str(block.hash),
            "lastValidBlockHeight": chain.last_valid_height(block.hash),
        },
    )


def _epoch_info(chain: Localnet, params: Params) -> Any:
    block = params.view(chain)
    epoch, slot_index = divmod(block.slot, _SLOTS_PER_EPOCH)
    return {
        "absoluteSlot": block.slot,
        "blockHeight": block.height,
        "epoch": epoch,
        "slotIndex": slot_index,
        "slotsInEpoch": _SLOTS_PER_EPOCH,
        "transactionCount": None,
    }


def _health(chain: Localnet, _params: Params) -> Any:
    behind = chain.faults.behind_blocks
    if behind >= _UNHEALTHY_SLOTS:
        message = f"Node is behind by {behind} slots"
        raise RpcError(NODE_UNHEALTHY, message, {"numSlotsBehind": behind})
    return "ok"


def _block_time(chain: Localnet, params: Params) -> Any:
    return chain.unix_time_of(params.value(0, int))


def _first_available_block(chain: Localnet, _params: Params) -> Any:
    # Blocks are kept for as long as their hashes matter; without history only those count.
    return chain.oldest.slot if chain.faults.hide_history else GENESIS_SLOT


def _is_blockhash_valid(chain: Localnet, params: Params) -> Any:
    block = params.view(chain)
    return in_context(block, chain.is_recent(params.hash(0), block, block.height))


def _prioritization_fees(chain: Localnet, _params: Params) -> Any:
    # An idle cluster: nobody has to pay for a place.
    tip = chain.tip
    return [{"slot": tip.slot, "prioritizationFee": 0}]


def _set_faults(chain: Localnet, params: Params) -> Any:
    try:
        chain.faults.update(params.options)
    except ValueError as exc:
        raise RpcError(INVALID_PARAMS, str(exc)) from exc
    return True


def _advance(chain: Localnet, params: Params) -> Any:
    chain.advance(params.value(0, int))
    return chain.tip.slot


def _drop_fork(chain: Localnet, params: Params) -> Any:
    try:
        chain.drop_fork(params.value(0, int))
    except ValueError as exc:
        raise RpcError(INVALID_PARAMS, str(exc)) from exc
    return chain.tip.slot


def _drop_connections(_chain: Localnet, _params: Params) -> Any:
    raise CutConnectionError(everyone=True)


METHODS: Mapping[str, Method] = {
    "getHealth": _health,
    "getVersion": lambda _chain, _params: {"solana-core": API_VERSION, "feature-set": 0},
    "getGenesisHash": lambda chain, _params: str(chain.genesis_hash),
    "getSlot": lambda chain, params: params.view(chain).slot,
    "getBlockHeight": lambda chain, params: params.view(chain).height,
    "getLatestBlockhash": _latest_blockhash,
    "getEpochInfo": _epoch_info,
    "getBlockTime": _block_time,
    "getFirstAvailableBlock": _first_available_block,
    "isBlockhashValid": _is_blockhash_valid,
    "getRecentPrioritizationFees": _prioritization_fees,
    "gtx_setFaults": _set_faults,
    "gtx_advance": _advance,
    "gtx_dropFork": _drop_fork,
    "gtx_dropConnections": _drop_connections,
    **ACCOUNT_METHODS,
    **TRANSACTION_METHODS,
}


def answer(chain: Localnet, request: Any, faults: Faults | None = None) -> dict[str, Any]:
    """Answer one JSON-RPC request object.

    Args:
        chain: What it is about.
        request: One object.
        faults: Of the node that answers; None = the chain's own.

    Raises:
        CutConnectionError: A fault says that the client shall hear nothing.
    """
    params = request.get("params") or [] if isinstance(request, dict) else None
    if not isinstance(params, list) or not isinstance(request.get("method"), str):
        return _error(None, RpcError(-32600, "Invalid request"))
    identity, name = request.get("id"), request["method"]
    method = METHODS.get(name)
    if method is None:
        return _error(identity, RpcError(METHOD_NOT_FOUND, f"Method not found: {name}"))
    try:
        with chain.seen_by(faults):
            result = method(chain, Params(params))
    except RpcError as exc:
        return _error(identity, exc)
    return {"jsonrpc": "2.0", "id": identity, "result": result}


def _error(identity: Any, error: RpcError) -> dict[str, Any]:
    shown = {"code": error.code, "message": error.message}
    if error.data is not None:
        shown["data"] = error.data
    return {"jsonrpc": "2.0", "id": identity, "error": shown}
