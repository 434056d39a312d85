"""How a mint transaction is laid out, how large it is, and how many recipients it carries. Pure."""

from enum import Enum

from gridtokenx_cloud.errors import BatchTooLargeError, EmptyBatchError

USUAL_MEMO_BYTES = 80
TABLE_ADDRESSES = 256
"""Most addresses of one lookup table."""

_ACCOUNT_LOCKS = 64
_OTHER_ACCOUNTS = 5
"""Token, memo, system, mint, marker; bytes end before locks where compute budget is a sixth."""
_SEED_CHARACTERS = 32
_LIMIT_AND_PRICE = 8 + 12


class TransactionFormat(Enum):
    """How the bytes of a transaction are laid out.

    Every cluster takes `LEGACY`. `V0` names mint and recipients by their place in an address
    lookup table. `V1` has four times the room, where the cluster takes it.
    """

    LEGACY = "legacy"
    V0 = "v0"
    V1 = "v1"

    @property
    def max_bytes(self) -> int:
        """Largest transaction that a node takes."""
        return 4096 if self is TransactionFormat.V1 else 1232


def transaction_bytes(
    form: TransactionFormat, recipients: int, memo_bytes: int, signatures: int
) -> int:
    """Return the exact size of a mint transaction.

    One `MintToChecked` per recipient, a memo below 128 bytes, the marker, a compute-unit limit
    and price. The programs are token, memo, system and compute budget; in v1 limit and fee are in
    the header instead.

    Args:
        form: Layout.
        recipients: Token accounts.
        memo_bytes: Of the text.
        signatures: 2, or 1 when the mint authority pays the fees itself.
    """
    # An authority that pays itself is named once by the marker's instruction.
    memo, marker = 3 + memo_bytes, 96 + signatures + _SEED_CHARACTERS
    if form is TransactionFormat.V1:
        addresses = signatures + 3 + 1 + 1 + recipients
        instructions = 17 * recipients + memo + 1 + marker + 1
        return 64 * signatures + 42 + 32 * addresses + instructions + 12
    content = 16 * recipients + memo + marker + _LIMIT_AND_PRICE
    named = signatures + 4 + 1
    if form is TransactionFormat.V0:
        table = 1 + 32 + 1 + (recipients + 1) + 1
        return 1 + 64 * signatures + 5 + 32 * named + 32 + 1 + content + table
    return 1 + 64 * signatures + 4 + 32 * (named + 1 + recipients) + 32 + 1 + content


def max_recipients(
    form: TransactionFormat, signatures: int, memo_bytes: int = USUAL_MEMO_BYTES
) -> int:
    """Return how many recipients one transaction of this format carries."""
    empty = transaction_bytes(form, 0, memo_bytes, signatures)
    per_recipient = transaction_bytes(form, 1, memo_bytes, signatures) - empty
    # 64 entries of the trace are one per instruction; 64 locks end before that in every format.
    locks = _ACCOUNT_LOCKS - signatures - _OTHER_ACCOUNTS
    return min((form.max_bytes - empty) // per_recipient, locks)


def format_for(
    best: TransactionFormat, recipients: int, signatures: int, memo_bytes: int = USUAL_MEMO_BYTES
) -> TransactionFormat:
    """Return the format of one batch: a lookup table only where legacy is too small."""
    fits = recipients <= max_recipients(TransactionFormat.LEGACY, signatures, memo_bytes)
    return TransactionFormat.LEGACY if best is TransactionFormat.V0 and fits else best


def check_recipients(recipients: int, form: TransactionFormat, signatures: int) -> None:
    """Refuse a batch that no transaction can carry.

    Raises:
        EmptyBatchError: Nobody is to receive anything.
        BatchTooLargeError: More recipients than the format carries.
    """
    if recipients < 1:
        raise EmptyBatchError("a batch without recipients can't be minted")
    most = max_recipients(form, signatures)
    if recipients > most:
        raise BatchTooLargeError(recipients, most)
