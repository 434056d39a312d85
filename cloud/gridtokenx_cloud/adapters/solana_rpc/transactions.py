"""Mint transactions as bytes. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.message import (
    Message,
    MessageV0,
    MessageV1,
    TransactionConfig,
    to_bytes_versioned,
)
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import ID as SYSTEM
from solders.system_program import (
    CreateAccountWithSeedParams,
    create_account_with_seed,
)
from solders.transaction import VersionedTransaction

from gridtokenx_cloud.errors import SigningKeyError, TransactionTooLargeError, ValidationError
from gridtokenx_cloud.formats import TransactionFormat

TOKEN = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
TOKEN_2022 = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
ASSOCIATED = Pubkey.from_string("ATokenGPvbdGVxr1b2hvZbsiqW5xWH25efTNsLJA8knL")
MEMO = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
COMPUTE_BUDGET = Pubkey.from_string("ComputeBudget111111111111111111111111111111")
TOKEN_PROGRAMS = {"spl-token": TOKEN, "token-2022": TOKEN_2022}

MINT_TO, MINT_TO_CHECKED = 7, 14

AnyMessage = Message | MessageV0 | MessageV1
_MICRO = 10**6
_MINT_TO_CHECKED = bytes([MINT_TO_CHECKED])


@dataclass(frozen=True, slots=True)
class Token:
    """The token that is minted.

    Attributes:
        mint: Its address.
        program: SPL Token or Token-2022.
        decimals: Of the mint; the chain refuses a transaction that names others.
        authority: Who may mint.
        payer: Who pays fees and rent.
    """

    mint: Pubkey
    program: Pubkey
    decimals: int
    authority: Pubkey
    payer: Pubkey

    def account_of(self, wallet: Pubkey) -> Pubkey:
        """Return the wallet's associated token account."""
        seeds = [bytes(wallet), bytes(self.program), bytes(self.mint)]
        return Pubkey.find_program_address(seeds, ASSOCIATED)[0]


class SolanaWallets:
    """`Wallets` for one token."""

    def __init__(self, token: Token) -> None:
        self._token = token
        # Two elliptic-curve checks a wallet, for every reading: worth keeping.
        self._account = lru_cache(maxsize=100_000)(self._derive)

    def token_account(self, wallet: str) -> str:
        """See `Wallets.token_account`."""
        return self._account(wallet)

    def _derive(self, wallet: str) -> str:
        return str(self._token.account_of(wallet_key(wallet)))


def wallet_key(wallet: str) -> Pubkey:
    """Return the key of a wallet.

    Raises:
        ValidationError: `InvalidWalletAddress`; no key, or an address that no key can sign for.
    """
    try:
        key = Pubkey.from_string(wallet)
    except ValueError as exc:
        raise ValidationError(
            "InvalidWalletAddress", f"{wallet!r} is no base58 address of 32 bytes"
        ) from exc
    if not key.is_on_curve():
        raise ValidationError(
            "InvalidWalletAddress",
            f"{wallet} is off the curve (a token account or program address); register the"
            " owner's wallet address",
        )
    return key


@dataclass(frozen=True, slots=True)
class Budget:
    """What a transaction may compute, and what it pays per unit for its place in a block."""

    compute_units: int
    unit_price_micro_lamports: int


@dataclass(frozen=True, slots=True)
class MintContent:
    """What one mint transaction says.

    Attributes:
        payments: (token account, base units), in the order of the instructions.
    """

    memo: str
    marker: Pubkey
    marker_seed: str
    marker_lamports: int
    payments: tuple[tuple[Pubkey, int], ...]


def mint_instructions(token: Token, content: MintContent) -> list[Instruction]:
    """Return marker, one mint per recipient, memo."""
    marker = create_account_with_seed(
        CreateAccountWithSeedParams(
            from_pubkey=token.payer,
            to_pubkey=content.marker,
            base=token.authority,
            seed=content.marker_seed,
            lamports=content.marker_lamports,
            space=0,
            owner=SYSTEM,
        )
    )
    mint = AccountMeta(token.mint, is_signer=False, is_writable=True)
    authority = AccountMeta(token.authority, is_signer=True, is_writable=False)
    end = bytes([token.decimals])
    mints = [
        Instruction(
            token.program,
            _MINT_TO_CHECKED + amount.to_bytes(8, "little") + end,
            [mint, AccountMeta(account, is_signer=False, is_writable=True), authority],
        )
        for account, amount in content.payments
    ]
    # No accounts: the program would ask each of them for a signature.
    memo = Instruction(MEMO, content.memo.encode("ascii"), [])
    return [marker, *mints, memo]


def create_account_instruction(token: Token, wallet: Pubkey) -> Instruction:
    """Return the creation of a wallet's token account that succeeds if it is there already."""
    accounts = [
        AccountMeta(token.payer, is_signer=True, is_writable=True),
        AccountMeta(token.account_of(wallet), is_signer=False, is_writable=True),
        AccountMeta(wallet, is_signer=False, is_writable=False),
        AccountMeta(token.mint, is_signer=False, is_writable=False),
        AccountMeta(SYSTEM, is_signer=False, is_writable=False),
        AccountMeta(token.program, is_signer=False, is_writable=False),
    ]
    return Instruction(ASSOCIATED, bytes([1]), accounts)


def compile_message(
    instructions: Sequence[Instruction],
    payer: Pubkey,
    blockhash: Hash,
    form: TransactionFormat,
    budget: Budget,
    table: AddressLookupTableAccount | None = None,
) -> AnyMessage:
    """Return the message; limit and price go where its format has them, after all else."""
    units, price = budget.compute_units, budget.unit_price_micro_lamports
    if form is TransactionFormat.V1:
        config = TransactionConfig(
            priority_fee=-(-units * price // _MICRO), compute_unit_limit=units
        )
        return MessageV1.try_compile(payer, list(instructions), blockhash, config)
    complete = [*instructions, set_compute_unit_limit(units), set_compute_unit_price(price)]
    if form is TransactionFormat.V0:
        return MessageV0.try_compile(payer, complete, [table] if table else [], blockhash)
    return Message.new_with_blockhash(complete, payer, blockhash)


def unsigned(message: AnyMessage) -> bytes:
    """Return the transaction without signatures, for simulation."""
    signatures = [Signature.default()] * message.header.num_required_signatures
    return bytes(VersionedTransaction.populate(message, signatures))


def signed(
    message: AnyMessage, signatures: Sequence[bytes], form: TransactionFormat
) -> tuple[str, bytes]:
    """Return (signature that names the transaction, bytes), each signature verified here.

    Raises:
        SigningKeyError: A signer returned a signature that does not hold.
        TransactionTooLargeError: No node would take the bytes.
    """
    made = [Signature.from_bytes(signature) for signature in signatures]
    body = to_bytes_versioned(message)
    for key, signature in zip(message.account_keys, made, strict=False):
        if not signature.verify(key, body):
            raise SigningKeyError(f"the signer of {key} returned a signature that does not verify")
    raw = bytes(VersionedTransaction.populate(message, made))
    if len(raw) > form.max_bytes:
        raise TransactionTooLargeError(
            f"{len(raw)} bytes; a {form.value} transaction has at most {form.max_bytes}"
        )
    return str(made[0]), raw


def resolved_keys(message: AnyMessage, tables: Mapping[str, Sequence[str]]) -> list[Pubkey]:
    """Return the accounts a message names, in the order its instructions count them.

    Raises:
        SigningKeyError: It names a place in a table that *tables* does not have.
    """
    lookups = message.address_table_lookups if isinstance(message, MessageV0) else []
    writable: list[Pubkey] = []
    readonly: list[Pubkey] = []
    for lookup in lookups:
        table = tables.get(str(lookup.account_key), ())
        places = (bytes(lookup.writable_indexes), bytes(lookup.readonly_indexes))
        if max((*places[0], *places[1]), default=-1) >= len(table):
            raise SigningKeyError(
                f"a message names accounts of lookup table {lookup.account_key} that can't be seen"
            )
        writable += [Pubkey.from_string(table[place]) for place in places[0]]
        readonly += [Pubkey.from_string(table[place]) for place in places[1]]
    return [*message.account_keys, *writable, *readonly]
