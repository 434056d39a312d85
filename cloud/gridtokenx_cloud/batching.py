"""Which credits share a transaction, how large it is, what it costs, what its memo says."""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gridtokenx_cloud.errors import ValidationError
from gridtokenx_wire import base58

LAMPORTS_PER_SIGNATURE = 5_000
MAX_MEMO_BYTES = 127
"""One length byte, and short enough for every memo program."""

_SEED_CHARACTERS = 32
_SYSTEM_PROGRAM = bytes(32)
_MEMO = re.compile(r"gm1:(\d{1,19}):(\d{1,10}):(\d{1,10}):(\d{1,10}):([A-Za-z0-9_-]{43})\Z")


@dataclass(frozen=True, slots=True)
class MintBatchData:
    """One credit that is to become tokens."""

    reading_id: int
    user_id: str
    wallet_address: str
    meter_id: str
    credit_wh: int
    amount_base_units: int


@dataclass(frozen=True, slots=True)
class MintResult:
    """What became of one credit; matched by `reading_id`, never by position.

    `success` False with `batch_id` set means: sealed, not final yet (its batch is still driven).
    """

    reading_id: int
    success: bool
    error_code: str | None = None
    error: str | None = None
    tx_signature: str | None = None
    batch_id: int | None = None


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one transaction may hold."""

    max_recipients: int
    max_base_units: int


@dataclass(frozen=True, slots=True)
class MintGroup:
    """The credits of one transaction, oldest first."""

    items: tuple[MintBatchData, ...]

    @property
    def wallets(self) -> tuple[str, ...]:
        """The recipients, each once, in the order of their oldest credit."""
        return tuple(dict.fromkeys(item.wallet_address for item in self.items))

    @property
    def total_base_units(self) -> int:
        """Sum over all recipients."""
        return sum(item.amount_base_units for item in self.items)


def optimize_batch(items: Sequence[MintBatchData], limits: BatchLimits) -> list[MintGroup]:
    """Pack credits into as few transactions as first fit finds; the order given is kept.

    Credits of one wallet share one instruction as long as the transaction's cap allows.

    Raises:
        ValidationError: `AmountExceedsMaximum`, one credit alone is above the cap.
    """
    open_groups: list[_OpenGroup] = []
    for item in items:
        if item.amount_base_units > limits.max_base_units:
            raise ValidationError(
                "AmountExceedsMaximum",
                f"reading {item.reading_id}: {item.amount_base_units} base units are above the cap"
                f" of {limits.max_base_units} per transaction",
            )
        group = next((group for group in open_groups if group.takes(item, limits)), None)
        if group is None:
            group = _OpenGroup()
            open_groups.append(group)
        group.add(item)
    return [MintGroup(tuple(group.items)) for group in open_groups]


class _OpenGroup:
    def __init__(self) -> None:
        self.items: list[MintBatchData] = []
        self._wallets: set[str] = set()
        self._total = 0

    def takes(self, item: MintBatchData, limits: BatchLimits) -> bool:
        known = item.wallet_address in self._wallets
        room = known or len(self._wallets) < limits.max_recipients
        return room and self._total + item.amount_base_units <= limits.max_base_units

    def add(self, item: MintBatchData) -> None:
        self.items.append(item)
        self._wallets.add(item.wallet_address)
        self._total += item.amount_base_units


def estimate_fee(signatures: int, price_micro_lamports: int, compute_units: int) -> int:
    """Return the lamports a landed transaction costs; rent is apart, it comes back."""
    return LAMPORTS_PER_SIGNATURE * signatures + -(-price_micro_lamports * compute_units // 10**6)


def unit_price_micro_lamports(
    recent: Iterable[int], floor: int, cap: int, earlier_attempts: int = 0
) -> int:
    """Return the price per compute unit: p75 of recent ones within bounds, x 1.5 per attempt."""
    seen = sorted(recent)
    usual = seen[(len(seen) * 3) // 4] if seen else 0
    price = min(max(usual, floor), cap)
    for _ in range(min(earlier_attempts, 64)):
        price = min(-(-price * 3 // 2), cap)
    return price


def compute_unit_limit(used: int, exhausted_attempts: int = 0) -> int:
    """Return the limit for a transaction that used so much when simulated."""
    limit = max(used * 11 // 10, used + 1_000)
    for _ in range(min(exhausted_attempts, 32)):
        limit = limit * 3 // 2
    return min(limit, 1_400_000)


@dataclass(frozen=True, slots=True)
class BatchMemo:
    """What the chain says about a batch in words: `gm1:...`."""

    batch_id: int
    leaves: int
    window_start_min: int
    window_min: int
    root: bytes

    def text(self) -> str:
        """Return the memo, plain ASCII."""
        root = base64.urlsafe_b64encode(self.root).rstrip(b"=").decode()
        numbers = (self.batch_id, self.leaves, self.window_start_min, self.window_min)
        return f"gm1:{':'.join(map(str, numbers))}:{root}"


def parse_memo(text: str) -> BatchMemo | None:
    """Return the batch a memo speaks of; None for any other text."""
    match = _MEMO.match(text)
    if match is None:
        return None
    batch_id, leaves, start, minutes = (int(part) for part in match.groups()[:4])
    root = base64.urlsafe_b64decode(match[5] + "=")
    return BatchMemo(batch_id, leaves, start, minutes, root)


@dataclass(frozen=True, slots=True, repr=False)
class Markers:
    """Derives the marker of each batch: the account whose existence forbids a second mint.

    Args:
        secret: At least 32 bytes; without it nobody can occupy an address before we do.
        base: Base58 address of the mint authority.
        token: Base58 address of the mint; batches of two tokens never share a marker.
    """

    secret: bytes
    base: str
    token: str

    def seed(self, batch_id: int) -> str:
        """Return the 32-character seed, tied to the batch's id and not to its content."""
        name = f"gm1|mint|{batch_id}|{self.token}".encode()
        digest = hmac.new(self.secret, name, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode()[:_SEED_CHARACTERS]

    def address(self, batch_id: int) -> str:
        """Return the address `CreateAccountWithSeed` makes of base, seed and System Program."""
        seed = self.seed(batch_id).encode()
        derived = hashlib.sha256(base58.decode_key(self.base) + seed + _SYSTEM_PROGRAM).digest()
        return base58.encode_key(derived)
