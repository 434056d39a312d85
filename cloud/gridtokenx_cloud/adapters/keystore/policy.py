"""Signers that read what they sign before they sign it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from solders.instruction import CompiledInstruction
from solders.message import MessageV1, from_bytes_versioned
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM

from gridtokenx_cloud.adapters.solana_rpc.lookup import CLOSE, CREATE, DEACTIVATE, EXTEND, LOOKUP
from gridtokenx_cloud.adapters.solana_rpc.transactions import (
    ASSOCIATED,
    COMPUTE_BUDGET,
    MEMO,
    MINT_TO_CHECKED,
    AnyMessage,
    resolved_keys,
)
from gridtokenx_cloud.errors import SigningKeyError
from gridtokenx_cloud.ports.keys import KeySigner

_DAY_MS = 86_400_000
_MAX_MARKER_LAMPORTS = 2_000_000
_MAX_COMPUTE_UNITS = 1_400_000
_SET_LIMIT, _SET_PRICE = b"\x02", b"\x03"
_CREATE_WITH_SEED = (3).to_bytes(4, "little")
_CREATE_IDEMPOTENT = b"\x01"
_TRANSFER_WITH_SEED = (11).to_bytes(4, "little")
_NO_TABLES: Mapping[str, Sequence[str]] = {}
_NOTHING: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class SignerPolicy:
    """What a signer agrees to, whatever the program asks for.

    Attributes:
        mint: Base58 address of the one token.
        token_program: Base58 address of its program.
        payer: Base58 address of who pays; the rent of markers and tables goes back there.
        max_per_transaction: Base units.
        max_per_day: Base units per UTC day.
        max_unit_price_micro_lamports: Per compute unit; what is above only makes the payer poor.
    """

    mint: str
    token_program: str
    payer: str
    max_per_transaction: int
    max_per_day: int
    max_unit_price_micro_lamports: int = 1_000_000


class PolicySigner:
    """One key behind a policy; shows nothing but its address.

    Args:
        key: Signs what the policy allows.
        policy: What may be signed.
        now_ms: Wall clock, for the daily cap.
        signed_today: Marker -> base units of the batches that were signed on this UTC day before
            the process began.
        on_refused: Told why something was not signed.
    """

    def __init__(
        self,
        key: KeySigner,
        policy: SignerPolicy,
        now_ms: Callable[[], int],
        signed_today: Mapping[str, int] = _NOTHING,
        on_refused: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        self._key = key
        self._policy = policy
        self._now_ms = now_ms
        self._day = now_ms() // _DAY_MS
        # By marker, so that signing a batch again after an expiry does not count twice. A marker
        # that is emptied guards no more, so what was signed with it counts apart from then on.
        self._signed = dict(signed_today)
        self._unguarded = 0
        self._on_refused = on_refused

    def __repr__(self) -> str:
        return f"PolicySigner({self.address})"

    @property
    def address(self) -> str:
        """Base58 public key."""
        return self._key.address

    async def sign(self, message: bytes, tables: Mapping[str, Sequence[str]] = _NO_TABLES) -> bytes:
        """Return the signature over a message the policy allows.

        Args:
            message: What is to be signed.
            tables: Lookup table -> its finalized addresses, for the tables the message names.

        Raises:
            SignerUnavailableError: The service that holds the key did not answer.
            SigningKeyError: It does something else than minting our token, or too much of it.
        """
        try:
            meant = review(message, self._policy, tables)
            self._count(meant)
        except SigningKeyError as exc:
            self._on_refused(str(exc))
            raise
        return await self._key.sign(message)

    def _count(self, meant: "Meaning") -> None:
        """Reserve what is about to be signed; a signature that fails keeps it for its batch."""
        day = self._now_ms() // _DAY_MS
        if day != self._day:
            self._day, self._signed, self._unguarded = day, {}, 0
        for marker in meant.emptied:
            self._unguarded += self._signed.pop(marker, 0)
        if meant.marker is None:
            return
        before = self._signed.get(meant.marker, 0)
        signed = self._signed | {meant.marker: max(meant.amount, before)}
        if sum(signed.values()) + self._unguarded > self._policy.max_per_day:
            raise SigningKeyError(
                f"signer {self.address} refuses {meant.amount} base units: the cap of"
                f" {self._policy.max_per_day} per day (UTC) would be exceeded; raise"
                " BLOCKCHAIN_MAX_TOKENS_PER_DAY or wait for tomorrow"
            )
        self._signed = signed


@dataclass(frozen=True, slots=True)
class _Effect:
    """What an allowed instruction does; *upkeep* = something that no mint needs."""

    marker: Pubkey | None = None
    amount: int = 0
    upkeep: bool = False
    emptied: Pubkey | None = None


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an allowed message does.

    Attributes:
        marker: Of its mint; None = it mints nothing.
        amount: Base units minted.
        emptied: Markers whose rent it takes back.
    """

    marker: str | None
    amount: int
    emptied: tuple[str, ...]


def review(
    message: bytes, policy: SignerPolicy, tables: Mapping[str, Sequence[str]] = _NO_TABLES
) -> Meaning:
    """Return what a message means that only does what minting needs.

    Raises:
        SigningKeyError: Names the instruction that is not allowed.
    """
    try:
        parsed = from_bytes_versioned(message)
    except ValueError as exc:
        raise SigningKeyError("the signer refuses bytes that are no transaction message") from exc
    keys = resolved_keys(parsed, tables)
    _check_price(parsed, policy)
    effects: list[_Effect] = []
    for number, instruction in enumerate(parsed.instructions):
        effect = _allowed(instruction, keys, policy)
        if effect is None:
            program = keys[instruction.program_id_index]
            raise SigningKeyError(f"the signer refuses instruction {number} of program {program}")
        effects.append(effect)
    return _weighed(effects, policy)


def _check_price(message: AnyMessage, policy: SignerPolicy) -> None:
    # The one format that has its price beside the instructions: lamports for the whole.
    price = policy.max_unit_price_micro_lamports
    most = -(-_MAX_COMPUTE_UNITS * price // 10**6)
    if isinstance(message, MessageV1) and (message.config.priority_fee or 0) > most:
        raise SigningKeyError(
            f"the signer refuses a priority fee of {message.config.priority_fee} lamports; at"
            f" {price} micro-lamports per unit (BLOCKCHAIN_PRIORITY_FEE_CAP_MICRO_LAMPORTS) it is"
            f" at most {most}"
        )


def _weighed(effects: Sequence[_Effect], policy: SignerPolicy) -> Meaning:
    total = sum(effect.amount for effect in effects)
    markers = [effect.marker for effect in effects if effect.marker]
    if total > policy.max_per_transaction:
        raise SigningKeyError(
            f"the signer refuses {total} base units in one transaction; the cap is"
            f" {policy.max_per_transaction} (BLOCKCHAIN_MAX_TOKENS_PER_TRANSACTION)"
        )
    if len(markers) != bool(total):
        raise SigningKeyError(
            f"the signer refuses {len(markers)} markers with {total} base units; a mint has one"
            " marker, nothing else has any"
        )
    # A transaction that made a marker and emptied it again would leave the next mint unguarded.
    if total and any(effect.upkeep for effect in effects):
        raise SigningKeyError("the signer refuses a mint that does something else beside")
    emptied = tuple(str(effect.emptied) for effect in effects if effect.emptied)
    return Meaning(str(markers[0]) if markers else None, total, emptied)


def _allowed(
    instruction: CompiledInstruction, keys: list[Pubkey], policy: SignerPolicy
) -> _Effect | None:
    """Return what an instruction does, or None when it is not allowed."""
    program, data = keys[instruction.program_id_index], bytes(instruction.data)
    accounts = [keys[index] for index in bytes(instruction.accounts)]
    if program == MEMO or (program == COMPUTE_BUDGET and _cheap(data, policy)):
        return _Effect()
    if program == ASSOCIATED:
        known = data == _CREATE_IDEMPOTENT and len(accounts) == 6
        return _Effect(upkeep=True) if known and str(accounts[3]) == policy.mint else None
    if str(program) == policy.token_program:
        known = len(data) == 10 and data[0] == MINT_TO_CHECKED and len(accounts) == 3
        amount = int.from_bytes(data[1:9], "little")
        return _Effect(amount=amount) if known and str(accounts[0]) == policy.mint else None
    if program == SYSTEM and _makes_marker(data):
        return _Effect(marker=accounts[1])
    if program == SYSTEM and _empties_marker(data, accounts, policy):
        return _Effect(upkeep=True, emptied=accounts[0])
    kept = program == LOOKUP and _keeps_table(data, accounts, policy)
    return _Effect(upkeep=True) if kept else None


def _cheap(data: bytes, policy: SignerPolicy) -> bool:
    price = int.from_bytes(data[1:], "little")
    return data[:1] == _SET_LIMIT or (
        data[:1] == _SET_PRICE and price <= policy.max_unit_price_micro_lamports
    )


def _empties_marker(data: bytes, accounts: Sequence[Pubkey], policy: SignerPolicy) -> bool:
    # TransferWithSeed: from, base, to.
    known = data[:4] == _TRANSFER_WITH_SEED and len(accounts) == 3
    return known and str(accounts[2]) == policy.payer


def _keeps_table(data: bytes, accounts: Sequence[Pubkey], policy: SignerPolicy) -> bool:
    kind = int.from_bytes(data[:4], "little")
    if len(data) < 4 or kind not in (CREATE, EXTEND, DEACTIVATE, CLOSE) or len(accounts) < 2:
        return False
    # The payer owns the table and pays for it, and what it held comes back to the payer.
    return all(str(account) in (policy.payer, str(SYSTEM)) for account in accounts[1:])


def _makes_marker(data: bytes) -> bool:
    # CreateAccountWithSeed: base, seed (u64 length), lamports, space 0, owner System. Only so
    # much may be locked as keeps an empty account at the dearest rent there was.
    if data[:4] != _CREATE_WITH_SEED or len(data) != 4 + 32 + 8 + 32 + 8 + 8 + 32:
        return False
    lamports = int.from_bytes(data[76:84], "little")
    space = int.from_bytes(data[84:92], "little")
    return space == 0 and lamports <= _MAX_MARKER_LAMPORTS and data[92:] == bytes(SYSTEM)
