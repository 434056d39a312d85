"""Transactions as bytes: limits, accounts, fees. No state."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from solders.account import Account
from solders.address_lookup_table_account import AddressLookupTable
from solders.message import Message, MessageV0, MessageV1, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

MAX_BYTES = 1232
MAX_V1_BYTES = 4096
LAMPORTS_PER_SIGNATURE = 5_000
_MICRO = 1_000_000
_MAX_COMPUTE_UNITS = 1_400_000
_COMPUTE_BUDGET = Pubkey.from_string("ComputeBudget111111111111111111111111111111")
# Calls of these cost 3,000 units of the default limit, all others 200,000.
_BUILTINS = frozenset(
    {
        _COMPUTE_BUDGET,
        Pubkey.from_string("11111111111111111111111111111111"),
        Pubkey.from_string("Vote111111111111111111111111111111111111111"),
        Pubkey.from_string("BPFLoader1111111111111111111111111111111111"),
        Pubkey.from_string("BPFLoader2111111111111111111111111111111111"),
        Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111"),
    }
)

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

AnyMessage = Message | MessageV0 | MessageV1
ReadAccount = Callable[[Pubkey], Account | None]


class BadTransactionError(ValueError):
    """The bytes are no transaction that a node would take."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A well-formed transaction; nothing is known about its effect yet."""

    raw: bytes
    tx: VersionedTransaction
    signature: str
    message_hash: bytes
    version: int | None
    """None = legacy."""

    @property
    def payer(self) -> Pubkey:
        """The account that pays the fee."""
        return self.tx.message.account_keys[0]


def decode_transaction(raw: bytes, *, v1: bool) -> Incoming:
    """Check size, form and version.

    Raises:
        BadTransactionError: The words are those of the real node, as far as they are stable.
    """
    try:
        tx = VersionedTransaction.from_bytes(raw)
    except ValueError as exc:
        raise BadTransactionError(f"failed to deserialize transaction: {exc}") from exc
    message = tx.message
    version = {Message: None, MessageV0: 0, MessageV1: 1}[type(message)]
    limit = MAX_V1_BYTES if version == 1 else MAX_BYTES
    if len(raw) > limit:
        raise BadTransactionError(
            f"decoded solana_transaction::versioned::VersionedTransaction too large: "
            f"{len(raw)} bytes (max: {limit} bytes)"
        )
    if version == 1 and not v1:
        raise BadTransactionError("invalid transaction: Transaction version is unsupported")
    if not tx.signatures or len(tx.signatures) != message.header.num_required_signatures:
        raise BadTransactionError("invalid transaction: wrong number of signatures")
    digest = hashlib.sha256(to_bytes_versioned(message)).digest()
    return Incoming(raw, tx, str(tx.signatures[0]), digest, version)


def split_accounts(
    message: AnyMessage, read_account: ReadAccount
) -> tuple[list[Pubkey], list[Pubkey]]:
    """Return (all accounts in index order, the writable ones), lookup tables resolved.

    A table that does not exist adds nothing: execution then refuses the transaction.
    """
    keys, header = list(message.account_keys), message.header
    signers, unsigned_end = (
        header.num_required_signatures,
        len(keys) - header.num_readonly_unsigned_accounts,
    )
    signed_end = signers - header.num_readonly_signed_accounts
    writable = keys[:signed_end] + keys[signers:unsigned_end]
    loaded_writable, loaded_readonly = _loaded(message, read_account)
    return keys + loaded_writable + loaded_readonly, writable + loaded_writable


def _loaded(message: AnyMessage, read_account: ReadAccount) -> tuple[list[Pubkey], list[Pubkey]]:
    writable: list[Pubkey] = []
    readonly: list[Pubkey] = []
    lookups = message.address_table_lookups if isinstance(message, MessageV0) else []
    for lookup in lookups:
        table = read_account(lookup.account_key)
        addresses = [] if table is None else AddressLookupTable.deserialize(table.data).addresses
        writable += [addresses[i] for i in lookup.writable_indexes if i < len(addresses)]
        readonly += [addresses[i] for i in lookup.readonly_indexes if i < len(addresses)]
    return writable, readonly


def priority_fee_lamports(message: AnyMessage) -> int:
    """Return price x limit rounded up, or for version 1 the total its header names."""
    if isinstance(message, MessageV1):
        return message.config.priority_fee or 0
    price, limit, default_limit = 0, 0, 0
    for instruction in message.instructions:
        program = message.account_keys[instruction.program_id_index]
        data = instruction.data
        default_limit += 3_000 if program in _BUILTINS else 200_000
        if program == _COMPUTE_BUDGET and data[:1] == b"\x02":
            limit = int.from_bytes(data[1:5], "little")
        elif program == _COMPUTE_BUDGET and data[:1] == b"\x03":
            price = int.from_bytes(data[1:9], "little")
    return -(-price * min(limit or default_limit, _MAX_COMPUTE_UNITS) // _MICRO)


def encode_base58(data: bytes) -> str:
    """Return bytes of any length as nodes write the data of an instruction."""
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = _BASE58[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def fee_lamports(message: AnyMessage) -> int:
    """Return what a landed transaction with this message costs."""
    signatures = message.header.num_required_signatures
    return LAMPORTS_PER_SIGNATURE * signatures + priority_fee_lamports(message)
