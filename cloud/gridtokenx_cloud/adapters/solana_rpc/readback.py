"""What a landed transaction did for a token, read back from its bytes. No I/O."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from solders.message import to_bytes_versioned
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM
from solders.transaction import VersionedTransaction

from gridtokenx_cloud.adapters.solana_rpc.transactions import MEMO, Token

_MINTS, _BURNS = (b"\x07", b"\x0e"), (b"\x08", b"\x0f")
_BATCH = b"\xff"
_TokenCall = tuple[bytes, tuple[Pubkey, ...]]
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class MintTransaction:
    """What a transaction did for a token, read back from its bytes.

    Attributes:
        authority_signed: The signature of the mint authority, or of a former one, is in it and
            holds.
        by_former: Not the present authority signed it, but a former one.
        payments: Token account -> base units minted, calls of other programs included.
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
    """Decode a landed transaction, whatever programs did it in whatever way.

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
    memo: str | None = None
    created: list[str] = []
    of_token: list[_TokenCall] = []
    for one in called:
        if keys[one.program] == token.program:
            of_token += _token_calls(one.data, [keys[n] for n in one.accounts])
    for compiled in message.instructions:
        program = keys[compiled.program_id_index]
        data = bytes(compiled.data)
        accounts = [keys[index] for index in bytes(compiled.accounts) if index < len(keys)]
        if program == token.program:
            of_token += _token_calls(data, accounts)
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
        payments=_payments(of_token, token),
        burned=sum(_burned(call, token) for call in of_token),
        memo=memo,
        created=tuple(created),
    )


def _token_calls(data: bytes, accounts: Sequence[Pubkey]) -> Iterator[_TokenCall]:
    """Yield what the token program is asked to do; one instruction may hold several."""
    if data[:1] != _BATCH:
        yield data, tuple(accounts)
        return
    at, taken = 1, 0
    while at + 2 <= len(data):
        count, length = data[at], data[at + 1]
        yield data[at + 2 : at + 2 + length], tuple(accounts[taken : taken + count])
        at, taken = at + 2 + length, taken + count


def _payments(calls: Sequence[_TokenCall], token: Token) -> dict[str, int]:
    payments: dict[str, int] = {}
    for data, accounts in calls:
        if data[:1] in _MINTS and len(accounts) > 1 and accounts[0] == token.mint:
            account = str(accounts[1])
            payments[account] = payments.get(account, 0) + int.from_bytes(data[1:9], "little")
    return payments


def _burned(call: _TokenCall, token: Token) -> int:
    data, accounts = call
    ours = len(accounts) > 1 and accounts[1] == token.mint
    return int.from_bytes(data[1:9], "little") if ours and data[:1] in _BURNS else 0


def decode_base58(text: str) -> bytes:
    """Return the bytes of a base58 text of any length, as nodes write called instructions."""
    number = 0
    for character in text:
        number = number * 58 + _BASE58.index(character)
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes(-(-number.bit_length() // 8), "big")


def _signed_by(tx: VersionedTransaction, key: Pubkey) -> bool:
    message = tx.message
    signers = list(message.account_keys)[: message.header.num_required_signatures]
    if key not in signers:
        return False
    return tx.signatures[signers.index(key)].verify(key, to_bytes_versioned(message))
