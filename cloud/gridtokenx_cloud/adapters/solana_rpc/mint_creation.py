"""Makes a token's mint: one transaction, at an address that can be told beforehand.

The address is derived from the mint authority and from what the token is. A second run therefore
finds what a first one made, wherever that was killed; and since one transaction does everything,
a half-made mint does not exist.
"""

import asyncio
import base64
import hashlib
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.message import to_bytes_versioned
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM
from solders.system_program import (
    AllocateWithSeedParams,
    TransferParams,
    allocate_with_seed,
    transfer,
)

from gridtokenx_cloud.adapters.solana_rpc.accounts import Shown
from gridtokenx_cloud.adapters.solana_rpc.mint_account import (
    FIRST_EXTENSION,
    MINT_BYTES,
    MintAccount,
    read_mint,
)
from gridtokenx_cloud.adapters.solana_rpc.rpc import JsonRpc, RpcRefusedError
from gridtokenx_cloud.adapters.solana_rpc.transactions import (
    TOKEN_2022,
    AnyMessage,
    Budget,
    compile_message,
    signed,
)
from gridtokenx_cloud.batching import estimate_fee
from gridtokenx_cloud.errors import ChainMismatchError, RpcUnavailableError, ValidationError
from gridtokenx_cloud.formats import TransactionFormat
from gridtokenx_cloud.ports.keys import KeySigner

_COMPUTE_UNITS = 40_000
_POLL_S = 0.5
_INITIALIZE_MINT_2, _POINTER_EXTENSION = 20, 39
_POINTER_BYTES = 4 + 64
_METADATA_BYTES = 4 + 32 + 32 + 3 * 4 + 4
_LIMITS = {"name": 32, "symbol": 10, "uri": 200}
"""Bytes; what wallets show, and what leaves room for the rest in one transaction."""

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class MintSpec:
    """What is to be made.

    Attributes:
        program: SPL Token or Token-2022.
        decimals: Of the token.
        authority: Who may mint.
        name: With symbol and URI in the mint itself; empty = no metadata.
        number: Tells tokens apart that are otherwise the same.
    """

    program: Pubkey
    decimals: int
    authority: Pubkey
    name: str = ""
    symbol: str = ""
    uri: str = ""
    number: int = 1

    def check(self) -> None:
        """Refuse what the program can't carry.

        Raises:
            ValidationError: `MetadataNotCarried`, `MetadataIncomplete` or `MetadataTooLong`.
        """
        texts = {"name": self.name, "symbol": self.symbol, "uri": self.uri}
        if any(texts.values()) and self.program != TOKEN_2022:
            raise ValidationError(
                "MetadataNotCarried",
                "a mint of the classic token program carries no name, symbol or URI (that takes"
                " another program's accounts); use --program token-2022, or leave them away",
            )
        if bool(self.name) != bool(self.symbol) or (self.uri and not self.name):
            raise ValidationError(
                "MetadataIncomplete", "give --name and --symbol together; --uri needs both"
            )
        for what, text in texts.items():
            if len(text.encode()) > _LIMITS[what]:
                raise ValidationError(
                    "MetadataTooLong",
                    f"the {what} has {len(text.encode())} bytes; at most {_LIMITS[what]}",
                )

    @property
    def seed(self) -> str:
        """What makes the address of the authority's own."""
        fields = ("gridtokenx mint", self.decimals, self.name, self.symbol, self.uri, self.number)
        digest = hashlib.sha256("\0".join(map(str, fields)).encode()).digest()
        return base64.urlsafe_b64encode(digest[:24]).decode()

    @property
    def address(self) -> Pubkey:
        """Where the mint is, or will be."""
        return Pubkey.create_with_seed(self.authority, self.seed, self.program)

    @property
    def allocated_bytes(self) -> int:
        """Size before the metadata; the program makes room for that itself."""
        return FIRST_EXTENSION + _POINTER_BYTES if self.name else MINT_BYTES

    @property
    def paid_bytes(self) -> int:
        """Size for which rent is due."""
        texts = len((self.name + self.symbol + self.uri).encode())
        return self.allocated_bytes + (_METADATA_BYTES + texts if self.name else 0)


@dataclass(frozen=True, slots=True)
class MintCost:
    """What a mint takes from the payer; both 0 when it exists already."""

    rent_lamports: int
    fee_lamports: int
    payer_lamports: int

    @property
    def lamports(self) -> int:
        """The sum."""
        return self.rent_lamports + self.fee_lamports


class MintCreation:
    """Makes one mint, once.

    Args:
        rpc: The way to the cluster.
        spec: What to make.
        payer: Pays rent and fee.
        authority: Lends its address, so it signs.
        unit_price_micro_lamports: For a place in a block.
        sleep: Waits.
    """

    def __init__(
        self,
        rpc: JsonRpc,
        spec: MintSpec,
        payer: KeySigner,
        authority: KeySigner,
        unit_price_micro_lamports: int = 1_000,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        spec.check()
        self._rpc = rpc
        self._spec = spec
        self._signers = {one.address: one for one in (payer, authority)}
        self._payer = Pubkey.from_string(payer.address)
        self._budget = Budget(_COMPUTE_UNITS, unit_price_micro_lamports)
        self._sleep = sleep

    async def cost(self) -> MintCost:
        """Return what `make` will take, as the cluster prices it today."""
        account = await self._account("confirmed")
        reply = await self._rpc.call("getBalance", str(self._payer), {"commitment": "confirmed"})
        if self._made(account):
            return MintCost(0, 0, int(reply["value"]))
        price = self._budget.unit_price_micro_lamports
        fee = estimate_fee(len(self._signers), price, _COMPUTE_UNITS)
        return MintCost(await self._missing_rent(account), fee, int(reply["value"]))

    async def make(self) -> Pubkey:
        """Return the mint's address once it is finalized.

        Raises:
            ChainMismatchError: Something else is at its address.
            RpcRefusedError: The cluster refuses the transaction.
            RpcUnavailableError: The transaction has expired; run it again.
        """
        if not self._made(await self._account("confirmed")):
            return await self._send_until_final()
        while not self._made(await self._account("finalized")):
            await self._sleep(_POLL_S)
        return self._spec.address

    async def _send_until_final(self) -> Pubkey:
        value = (await self._rpc.call("getLatestBlockhash", {"commitment": "finalized"}))["value"]
        account = await self._account("confirmed")
        instructions = self._instructions(await self._missing_rent(account))
        blockhash = Hash.from_string(value["blockhash"])
        form = TransactionFormat.LEGACY
        raw = await self._signed(
            compile_message(instructions, self._payer, blockhash, form, self._budget)
        )
        while True:
            await self._send(raw)
            if self._made(await self._account("finalized")):
                return self._spec.address
            height = await self._rpc.call("getBlockHeight", {"commitment": "finalized"})
            if height > value["lastValidBlockHeight"]:
                raise RpcUnavailableError(
                    "the mint's transaction has expired; run the same command again"
                )
            await self._sleep(_POLL_S)

    async def _signed(self, message: AnyMessage) -> bytes:
        body = to_bytes_versioned(message)
        needed = list(message.account_keys)[: message.header.num_required_signatures]
        signatures = [await self._signers[str(key)].sign(body) for key in needed]
        return signed(message, signatures, TransactionFormat.LEGACY)[1]

    async def _send(self, raw: bytes) -> None:
        text = base64.b64encode(raw).decode()
        options = {"encoding": "base64", "preflightCommitment": "confirmed"}
        try:
            await self._rpc.call("sendTransaction", text, options)
        except RpcRefusedError:
            # Also refused once it has landed, now or in an earlier run.
            if not self._made(await self._account("confirmed")):
                raise

    async def _account(self, commitment: str) -> Shown:
        options = {"commitment": commitment, "encoding": "base64"}
        reply = await self._rpc.call("getAccountInfo", str(self._spec.address), options)
        found: Shown = reply["value"]
        return found

    async def _missing_rent(self, account: Shown) -> int:
        rent = await self._rpc.call("getMinimumBalanceForRentExemption", self._spec.paid_bytes)
        # Somebody may have sent SOL there beforehand; that must not stop anything.
        return max(0, int(rent) - (0 if account is None else int(account["lamports"])))

    def _made(self, account: Shown) -> bool:
        if account is None or account["owner"] == str(SYSTEM):
            return False
        _must_be(self._spec, read_mint(self._spec.address, account))
        return True

    def _instructions(self, rent_lamports: int) -> list[Instruction]:
        spec, address = self._spec, self._spec.address
        room = allocate_with_seed(
            AllocateWithSeedParams(
                address=address,
                base=spec.authority,
                seed=spec.seed,
                space=spec.allocated_bytes,
                owner=spec.program,
            )
        )
        paid = transfer(
            TransferParams(from_pubkey=self._payer, to_pubkey=address, lamports=rent_lamports)
        )
        data = bytes([_INITIALIZE_MINT_2, spec.decimals]) + bytes(spec.authority) + b"\x00"
        initialize = Instruction(spec.program, data, [_written(address)])
        # The pointer has to be there before the mint is one, the metadata after.
        before, after = _metadata_instructions(spec) if spec.name else ([], [])
        return [paid, room, *before, initialize, *after]


def _must_be(spec: MintSpec, found: MintAccount) -> None:
    """Refuse a mint that is not what was to be made: its authority may have moved on since."""
    if (found.decimals, found.authority) != (spec.decimals, spec.authority):
        raise ChainMismatchError(
            f"{spec.address} is a mint with {found.decimals} decimals and authority"
            f" {found.authority}; another --number makes a new one"
        )


def _written(key: Pubkey) -> AccountMeta:
    return AccountMeta(key, is_signer=False, is_writable=True)


def _read(key: Pubkey, *, signs: bool = False) -> AccountMeta:
    return AccountMeta(key, is_signer=signs, is_writable=False)


def _metadata_instructions(spec: MintSpec) -> tuple[list[Instruction], list[Instruction]]:
    """Return what comes before and after the mint is initialized.

    Nobody can move the pointer, and nobody can change the metadata afterwards: a key that mints
    every few minutes must not be able to rename the token, nor leave that power behind when it
    is replaced.
    """
    address, authority, nobody = spec.address, spec.authority, bytes(32)
    pointer = bytes([_POINTER_EXTENSION, 0]) + nobody + bytes(address)
    texts = b"".join(_text(text) for text in (spec.name, spec.symbol, spec.uri))
    named = [_written(address), _read(authority), _read(address), _read(authority, signs=True)]
    fixed = [_written(address), _read(authority, signs=True)]
    return [Instruction(spec.program, pointer, [_written(address)])], [
        Instruction(spec.program, _interface("initialize_account") + texts, named),
        Instruction(spec.program, _interface("update_the_authority") + nobody, fixed),
    ]


def _interface(instruction: str) -> bytes:
    """Return the eight bytes that name an instruction of the token metadata interface."""
    return hashlib.sha256(f"spl_token_metadata_interface:{instruction}".encode()).digest()[:8]


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<I", len(encoded)) + encoded
