"""What a landed transaction did for a token, read back from its bytes. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass

from solders.message import to_bytes_versioned
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM
from solders.transaction import VersionedTransaction

from gridtokenx_cloud.adapters.solana_rpc.transactions import MEMO, Token

_BURNS = (b"\x08", b"\x0f")
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


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


def _mints(data: bytes, accounts: Sequence[Pubkey], token: Token) -> bool:
    return data[:1] in (b"\x07", b"\x0e") and len(accounts) > 1 and accounts[0] == token.mint


def _signed_by(tx: VersionedTransaction, key: Pubkey) -> bool:
    message = tx.message
    signers = list(message.account_keys)[: message.header.num_required_signatures]
    if key not in signers:
        return False
    return tx.signatures[signers.index(key)].verify(key, to_bytes_versioned(message))
