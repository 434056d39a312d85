"""Parameters of a call: positions, options, commitment, encodings."""

import base64
import binascii
from typing import Any

from solders.account import Account
from solders.hash import Hash
from solders.pubkey import Pubkey
from solders.signature import Signature

from gridtokenx_cloud.adapters.localnet.chain import LAG_BLOCKS, Localnet
from gridtokenx_cloud.adapters.localnet.errors import (
    CONTEXT_SLOT_NOT_REACHED,
    INVALID_PARAMS,
    RpcError,
)
from gridtokenx_cloud.adapters.localnet.packet import (
    BadTransactionError,
    Incoming,
    decode_transaction,
)
from gridtokenx_cloud.adapters.localnet.store import Block

API_VERSION = "4.1.2"


class Params:
    """Positional parameters; the last object holds the options."""

    def __init__(self, values: list[Any]) -> None:
        self.options: dict[str, Any] = {}
        if values and isinstance(values[-1], dict):
            self.options = values[-1]
            values = values[:-1]
        self._values = values

    def value(self, position: int, kind: type) -> Any:
        """Return a positional parameter of that type."""
        value = self._values[position] if position < len(self._values) else None
        if not isinstance(value, kind):
            raise RpcError(INVALID_PARAMS, f"parameter {position} must be a {kind.__name__}")
        return value

    @property
    def selection(self) -> dict[str, Any]:
        """The filter object of a call that has one before its options."""
        return next((value for value in self._values if isinstance(value, dict)), self.options)

    def pubkey(self, position: int) -> Pubkey:
        """Return a positional address."""
        return parse_pubkey(self.value(position, str))

    def hash(self, position: int) -> Hash:
        """Return a positional blockhash."""
        try:
            return Hash.from_string(self.value(position, str))
        except ValueError as exc:
            raise RpcError(INVALID_PARAMS, f"Invalid param: {exc}") from exc

    def bytes(self, position: int) -> bytes:
        """Return a positional base64 text, decoded."""
        text = self.value(position, str)
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as exc:
            raise RpcError(INVALID_PARAMS, f"invalid base64 encoding: {exc}") from exc

    def transaction(self, position: int, chain: Localnet) -> Incoming:
        """Return a positional transaction."""
        if self.options.get("encoding") != "base64":
            raise RpcError(INVALID_PARAMS, "localnet takes transactions with encoding base64 only")
        try:
            return decode_transaction(self.bytes(position), v1=chain.faults.v1)
        except BadTransactionError as exc:
            raise RpcError(INVALID_PARAMS, str(exc)) from exc

    def view(self, chain: Localnet, *, lag_blocks: int = 0, option: str = "commitment") -> Block:
        """Return the block that the call has to be answered at.

        Raises:
            RpcError: The node has not reached `minContextSlot`, or the commitment is unknown.
        """
        commitment = self.options.get(option) or "finalized"
        if commitment not in LAG_BLOCKS:
            raise RpcError(INVALID_PARAMS, f"unknown commitment {commitment!r}")
        block = chain.block_at(commitment, lag_blocks + chain.faults.behind_blocks)
        if block.slot < (self.options.get("minContextSlot") or 0):
            raise RpcError(
                CONTEXT_SLOT_NOT_REACHED,
                "Minimum context slot has not been reached",
                {"contextSlot": block.slot},
            )
        return block

    def history_view(self, chain: Localnet) -> Block:
        """Return the view for a history call, which knows no "processed"."""
        if self.options.get("commitment") == "processed":
            raise RpcError(INVALID_PARAMS, "Method does not support commitment below `confirmed`")
        return self.view(chain)


def parse_pubkey(text: str) -> Pubkey:
    """Return the address; raise `RpcError` when it is none."""
    try:
        return Pubkey.from_string(text)
    except ValueError as exc:
        raise RpcError(INVALID_PARAMS, f"Invalid param: {exc}") from exc


def check_signature(text: Any) -> str:
    """Return the signature text; raise `RpcError` when it is none."""
    try:
        return str(Signature.from_string(text))
    except (TypeError, ValueError) as exc:
        raise RpcError(INVALID_PARAMS, f"Invalid param: {exc}") from exc


def in_context(block: Block, value: Any) -> dict[str, Any]:
    """Wrap a value as most calls return it."""
    return {"context": {"slot": block.slot, "apiVersion": API_VERSION}, "value": value}


def shown_account(account: Account | None, options: dict[str, Any]) -> dict[str, Any] | None:
    """Return an account as JSON-RPC shows it; base64 only."""
    if account is None:
        return None
    if options.get("encoding", "base64") not in ("base64", "jsonParsed"):
        raise RpcError(INVALID_PARAMS, "localnet shows accounts with encoding base64 only")
    data = account.data
    if part := options.get("dataSlice"):
        data = data[part["offset"] : part["offset"] + part["length"]]
    return {
        "data": [base64.b64encode(data).decode(), "base64"],
        "executable": account.executable,
        "lamports": account.lamports,
        "owner": str(account.owner),
        "rentEpoch": account.rent_epoch,
        "space": len(account.data),
    }
