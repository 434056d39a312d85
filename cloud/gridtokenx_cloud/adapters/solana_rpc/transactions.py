"""Mint transactions as bytes, in both directions. No I/O."""

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
_BURNS = (b"\x08", b"\x0f")
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


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


@dataclass(frozen=True, slots=True)
class MintTransaction:
    """What a transaction did for a token, read back from its bytes.

    Attributes:
        authority_signed: The signature of the mint authority, or of a former one, is in it and
            holds.
        by_former: Not the present authority signed it, but a former one.
        payments: Token account -> base units minted.
        memo: Text of the memo instruction, if any.
        burned: Base units of the token that holders destroyed, calls of other programs included.
        created: Addresses made with `CreateAccountWithSeed` of the authority.
    """

    signature: str
    authority_signed: bool
    by_former: bool
    payments: dict[str, int]
    burned: int
    memo: str | None
    created: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Called:
    """An instruction that a program called: which program, with what, on which accounts."""

    program: int
    accounts: tuple[int, ...]
    data: bytes


def read_transaction(
    raw: bytes,
    token: Token,
    loaded: Sequence[str] = (),
    called: Sequence[Called] = (),
    former: Sequence[Pubkey] = (),
) -> MintTransaction:
    """Decode a landed transaction; mints only at top level, we make no others.

    Args:
        raw: Its bytes.
        token: Whose mints are read.
        loaded: The accounts it named by lookup tables, as the node resolved them.
        called: What its programs called.
        former: The token's earlier authorities.
    """
    tx = VersionedTransaction.from_bytes(raw)
    message = tx.message
    keys = [*message.account_keys, *(Pubkey.from_string(text) for text in loaded)]
    payments: dict[str, int] = {}
    memo: str | None = None
    created: list[str] = []
    burned = sum(
        _burn(token, keys[one.program], [keys[n] for n in one.accounts], one.data) for one in called
    )
    for compiled in message.instructions:
        program = keys[compiled.program_id_index]
        data = bytes(compiled.data)
        accounts = [keys[index] for index in bytes(compiled.accounts) if index < len(keys)]
        burned += _burn(token, program, accounts, data)
        if program == token.program and _mints(data, accounts, token):
            account = str(accounts[1])
            payments[account] = payments.get(account, 0) + int.from_bytes(data[1:9], "little")
        elif program == MEMO:
            memo = data.decode("utf-8", "replace")
        elif program == SYSTEM and data[:4] == (3).to_bytes(4, "little"):
            created.append(str(accounts[1]))
    present = _signed_by(tx, token.authority)
    by_former = not present and any(_signed_by(tx, key) for key in former)
    return MintTransaction(
        signature=str(tx.signatures[0]),
        authority_signed=present or by_former,
        by_former=by_former,
        payments=payments,
        burned=burned,
        memo=memo,
        created=tuple(created),
    )


def _burn(token: Token, program: Pubkey, accounts: Sequence[Pubkey], data: bytes) -> int:
    ours = program == token.program and len(accounts) > 1 and accounts[1] == token.mint
    return int.from_bytes(data[1:9], "little") if ours and data[:1] in _BURNS else 0


def decode_base58(text: str) -> bytes:
    """Return the bytes of a base58 text of any length, as nodes write called instructions."""
    number = 0
    for character in text:
        number = number * 58 + _BASE58.index(character)
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes(-(-number.bit_length() // 8), "big")


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


def _mints(data: bytes, accounts: Sequence[Pubkey], token: Token) -> bool:
    return data[:1] in (b"\x07", b"\x0e") and len(accounts) > 1 and accounts[0] == token.mint


def _signed_by(tx: VersionedTransaction, key: Pubkey) -> bool:
    message = tx.message
    signers = list(message.account_keys)[: message.header.num_required_signatures]
    if key not in signers:
        return False
    return tx.signatures[signers.index(key)].verify(key, to_bytes_versioned(message))
