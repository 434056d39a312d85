"""JSON-RPC methods that send, simulate and find transactions."""

import base64
from typing import Any

from solders.message import MessageV0, from_bytes_versioned
from solders.transaction import VersionedTransaction

from gridtokenx_cloud.adapters.localnet.chain import Localnet
from gridtokenx_cloud.adapters.localnet.errors import (
    INVALID_PARAMS,
    PREFLIGHT_FAILED,
    SIGNATURE_FAILED,
    VERSION_UNSUPPORTED,
    CutConnectionError,
    RpcError,
)
from gridtokenx_cloud.adapters.localnet.packet import encode_base58, fee_lamports
from gridtokenx_cloud.adapters.localnet.params import (
    Params,
    check_signature,
    in_context,
    parse_pubkey,
    shown_account,
)
from gridtokenx_cloud.adapters.localnet.runtime import Simulation
from gridtokenx_cloud.adapters.localnet.store import Landed

STATUS_CACHE_SLOTS = 300
_MAX_STATUSES = 256
_MAX_SIGNATURES = 1000
_ERROR_TEXTS = {
    "BlockhashNotFound": "Blockhash not found",
    "AlreadyProcessed": "This transaction has already been processed",
    "AccountNotFound": "Attempt to debit an account but found no record of a prior credit.",
    "InsufficientFundsForFee": "Insufficient funds for fee",
}


def _send_transaction(chain: Localnet, params: Params) -> Any:
    if chain.faults.take("lose_sends"):
        raise CutConnectionError
    incoming = params.transaction(0, chain)
    if not params.options.get("skipPreflight"):
        if not all(incoming.tx.verify_with_results()):
            raise RpcError(SIGNATURE_FAILED, "Transaction signature verification failure")
        block = params.view(chain, option="preflightCommitment")
        simulation = chain.simulate(incoming, block, verify=True)
        if simulation.err is not None:
            text = _error_text(simulation.err)
            message = f"Transaction simulation failed: {text}"
            raise RpcError(PREFLIGHT_FAILED, message, _shown_simulation(simulation))
    chain.submit(incoming)
    if chain.faults.take("lose_replies"):
        raise CutConnectionError
    return incoming.signature


def _error_text(err: Any) -> str:
    if isinstance(err, str):
        return _ERROR_TEXTS.get(err, err)
    index, inner = err.get("InstructionError", (None, None))
    if isinstance(inner, dict) and "Custom" in inner:
        return f"Error processing Instruction {index}: custom program error: {inner['Custom']:#x}"
    return str(err) if index is None else f"Error processing Instruction {index}: {inner}"


def _shown_simulation(simulation: Simulation) -> dict[str, Any]:
    return {
        "err": simulation.err,
        "logs": simulation.logs,
        "accounts": None,
        "unitsConsumed": simulation.compute_units,
        "returnData": None,
        "innerInstructions": None,
    }


def _simulate_transaction(chain: Localnet, params: Params) -> Any:
    verify = bool(params.options.get("sigVerify"))
    replace = bool(params.options.get("replaceRecentBlockhash"))
    if verify and replace:
        text = "sigVerify may not be used with replaceRecentBlockhash"
        raise RpcError(INVALID_PARAMS, text)
    incoming = params.transaction(0, chain)
    block = params.view(chain)
    if verify and not all(incoming.tx.verify_with_results()):
        raise RpcError(SIGNATURE_FAILED, "Transaction signature verification failure")
    simulation = chain.simulate(incoming, block, verify=verify, any_blockhash=replace)
    value = _shown_simulation(simulation)
    if replace:
        value["replacementBlockhash"] = {
            "blockhash": str(block.hash),
            "lastValidBlockHeight": chain.last_valid_height(block.hash),
        }
    if wanted := params.options.get("accounts"):
        addresses = [parse_pubkey(text) for text in wanted["addresses"]]
        value["accounts"] = [
            shown_account(simulation.post_accounts.get(key) or chain.account_at(key, block), wanted)
            for key in addresses
        ]
    return in_context(block, value)


def _fee_for_message(chain: Localnet, params: Params) -> Any:
    try:
        message = from_bytes_versioned(params.bytes(0))
    except ValueError as exc:
        raise RpcError(INVALID_PARAMS, f"failed to deserialize message: {exc}") from exc
    block = params.view(chain)
    valid = chain.is_recent(message.recent_blockhash, block, block.height)
    return in_context(block, fee_lamports(message) if valid else None)


def _request_airdrop(chain: Localnet, params: Params) -> Any:
    return chain.airdrop(params.pubkey(0), params.value(1, int))


def _signature_statuses(chain: Localnet, params: Params) -> Any:
    texts = params.value(0, list)
    if len(texts) > _MAX_STATUSES:
        raise RpcError(INVALID_PARAMS, f"Too many inputs provided; max {_MAX_STATUSES}")
    # Named before the look-ups: "not found" must hold for the slot that the reply states.
    block = chain.block_at("processed", _status_lag(chain))
    history = bool(params.options.get("searchTransactionHistory"))
    statuses = [_status(chain, check_signature(text), history=history) for text in texts]
    return in_context(block, statuses)


def _status_lag(chain: Localnet) -> int:
    return chain.faults.status_lag_blocks + chain.faults.behind_blocks


def _status(chain: Localnet, signature: str, *, history: bool) -> dict[str, Any] | None:
    lag_blocks = _status_lag(chain)
    landed = None if chain.faults.hide_statuses else chain.store.by_signature(signature)
    if landed is None or landed.height > chain.block_at("processed", lag_blocks).height:
        return None
    rooted = chain.block_at("finalized", lag_blocks)
    cached = landed.slot > rooted.slot - STATUS_CACHE_SLOTS
    if not cached and (chain.faults.hide_history or not history):
        return None
    status = _confirmation(chain, landed)
    confirmations = chain.block_at("processed", lag_blocks).height - landed.height
    return {
        "slot": landed.slot,
        "confirmations": None if status == "finalized" else confirmations,
        "err": landed.err,
        "status": {"Ok": None} if landed.err is None else {"Err": landed.err},
        "confirmationStatus": status,
    }


def _confirmation(chain: Localnet, landed: Landed) -> str:
    for commitment in ("finalized", "confirmed"):
        if landed.height <= chain.block_at(commitment, _status_lag(chain)).height:
            return commitment
    return "processed"


def _signatures_for_address(chain: Localnet, params: Params) -> Any:
    block = params.history_view(chain)
    limit = params.options.get("limit") or _MAX_SIGNATURES
    if not 0 < limit <= _MAX_SIGNATURES:
        raise RpcError(INVALID_PARAMS, f"Invalid limit; max {_MAX_SIGNATURES}")
    address = params.pubkey(0)
    if chain.faults.hide_history:
        return []
    before, until = params.options.get("before"), params.options.get("until")
    return [
        {
            "signature": landed.signature,
            "slot": landed.slot,
            "err": landed.err,
            "memo": None,
            "blockTime": landed.unix_s,
            "confirmationStatus": _confirmation(chain, landed),
        }
        for landed in chain.store.by_address(address, block.slot, before, until, limit)
    ]


def _transaction(chain: Localnet, params: Params) -> Any:
    encoding = params.options.get("encoding", "json")
    if encoding not in _ENCODINGS:
        raise RpcError(INVALID_PARAMS, f"localnet shows transactions as {', '.join(_ENCODINGS)}")
    block = params.history_view(chain)
    landed = chain.store.by_signature(check_signature(params.value(0, str)))
    if landed is None or landed.height > block.height or chain.faults.hide_history:
        return None
    highest = params.options.get("maxSupportedTransactionVersion")
    if landed.version is not None and (highest is None or landed.version > highest):
        raise RpcError(
            VERSION_UNSUPPORTED,
            f"Transaction version ({landed.version}) is not supported by the requesting client. "
            "Please try the request again with the following configuration parameter: "
            f'"maxSupportedTransactionVersion": {landed.version}',
        )
    shown = {key: value for key, value in landed.meta.items() if key != "accounts"}
    return {
        "slot": landed.slot,
        "blockTime": landed.unix_s,
        "version": "legacy" if landed.version is None else landed.version,
        "transaction": _ENCODINGS[encoding](landed.raw),
        "meta": {
            **shown,
            "loadedAddresses": _loaded_addresses(landed),
            "status": {"Ok": None} if landed.err is None else {"Err": landed.err},
            "innerInstructions": [],
            "preTokenBalances": [],
            "postTokenBalances": [],
            "rewards": [],
        },
    }


def _as_base64(raw: bytes) -> Any:
    return [base64.b64encode(raw).decode(), "base64"]


def _as_json(raw: bytes) -> Any:
    tx = VersionedTransaction.from_bytes(raw)
    message, header = tx.message, tx.message.header
    return {
        "signatures": [str(signature) for signature in tx.signatures],
        "message": {
            "header": {
                "numRequiredSignatures": header.num_required_signatures,
                "numReadonlySignedAccounts": header.num_readonly_signed_accounts,
                "numReadonlyUnsignedAccounts": header.num_readonly_unsigned_accounts,
            },
            "accountKeys": [str(key) for key in message.account_keys],
            "recentBlockhash": str(message.recent_blockhash),
            "instructions": [
                {
                    "programIdIndex": one.program_id_index,
                    "accounts": list(one.accounts),
                    "data": encode_base58(bytes(one.data)),
                    "stackHeight": 1,
                }
                for one in message.instructions
            ],
        },
    }


_ENCODINGS = {"base64": _as_base64, "json": _as_json}


def _loaded_addresses(landed: Landed) -> dict[str, list[str]]:
    message = VersionedTransaction.from_bytes(landed.raw).message
    loaded = landed.meta["accounts"][len(message.account_keys) :]
    lookups = message.address_table_lookups if isinstance(message, MessageV0) else []
    writable = sum(len(lookup.writable_indexes) for lookup in lookups)
    return {"writable": loaded[:writable], "readonly": loaded[writable:]}


TRANSACTION_METHODS = {
    "sendTransaction": _send_transaction,
    "simulateTransaction": _simulate_transaction,
    "getFeeForMessage": _fee_for_message,
    "requestAirdrop": _request_airdrop,
    "getSignatureStatuses": _signature_statuses,
    "getSignaturesForAddress": _signatures_for_address,
    "getTransaction": _transaction,
}
