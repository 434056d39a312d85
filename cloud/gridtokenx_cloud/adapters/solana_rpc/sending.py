"""Signs and sends: prices, blockhashes, and transactions that mint nothing."""

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from solders.hash import Hash
from solders.instruction import Instruction
from solders.message import to_bytes_versioned

from gridtokenx_cloud.adapters.solana_rpc.rpc import (
    FailoverRpc,
    JsonRpc,
    RpcBusyError,
    RpcRefusedError,
)
from gridtokenx_cloud.adapters.solana_rpc.transactions import (
    AnyMessage,
    Budget,
    Token,
    compile_message,
    signed,
)
from gridtokenx_cloud.batching import unit_price_micro_lamports
from gridtokenx_cloud.errors import RpcUnavailableError
from gridtokenx_cloud.formats import TransactionFormat
from gridtokenx_cloud.ports.common import Clock

FINALIZED = {"commitment": "finalized"}
_SEND_TRIES = 3
_MAX_SEND_WAIT_S = 2.0
"""For a node that asks for peace; the same bytes are sent again later anyway."""
_POLL_S = 1.0
_UNITS_PER_INSTRUCTION = 40_000
_BLOCKHASH_AGE_MS, _PRICE_AGE_MS, _RENT_AGE_MS = 2_000, 10_000, 60_000
_NO_TABLES: Mapping[str, Sequence[str]] = {}

Sleep = Callable[[float], Awaitable[None]]
T = TypeVar("T")


class Signer(Protocol):
    """One key behind a policy; `adapters.keystore.PolicySigner` is one."""

    @property
    def address(self) -> str:
        """Base58 public key."""
        ...

    async def sign(self, message: bytes, tables: Mapping[str, Sequence[str]] = _NO_TABLES) -> bytes:
        """Return the 64-byte signature.

        Raises:
            SignerUnavailableError: The service that holds the key did not answer.
            SigningKeyError: The policy forbids it.
        """
        ...


@dataclass(frozen=True, slots=True)
class Recent:
    """A finalized blockhash with its last block, of one reply; no fork can orphan it."""

    blockhash: Hash
    last_valid_block_height: int


class _Kept(Generic[T]):
    """A value of the cluster that need not be read anew for every transaction."""

    def __init__(self, clock: Clock, age_ms: int, read: Callable[[], Awaitable[T]]) -> None:
        self._clock = clock
        self._age_ms = age_ms
        self._read = read
        self._found: tuple[int, T] | None = None

    async def get(self, *, fresh: bool = False) -> T:
        """Return the value; read it when it is too old, or *fresh* is wanted."""
        now_ms = self._clock.now_ms()
        # A clock that was set back must not keep a value for longer.
        if fresh or self._found is None or not 0 <= now_ms - self._found[0] < self._age_ms:
            self._found = (now_ms, await self._read())
        return self._found[1]


class Sender:
    """What every transaction of one token and its two keys needs.

    Attributes:
        signatures: 2, or 1 when authority and payer are one key.
    """

    def __init__(
        self,
        rpc: FailoverRpc,
        token: Token,
        signers: Sequence[Signer],
        clock: Clock,
        price_bounds_micro_lamports: tuple[int, int] = (1_000, 1_000_000),
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self.rpc = rpc
        self.token = token
        self.sleep = sleep
        self._signers = {signer.address: signer for signer in signers}
        self.signatures = len(self._signers)
        self._price_bounds = price_bounds_micro_lamports
        self._recent = _Kept(clock, _BLOCKHASH_AGE_MS, self._read_recent)
        self._fees = _Kept(clock, _PRICE_AGE_MS, self._read_fees)
        self._rent = _Kept(clock, _RENT_AGE_MS, self._read_rent)

    async def recent(self, *, fresh: bool = False) -> Recent:
        """Return a blockhash at most two seconds old; *fresh* = of this moment."""
        return await self._recent.get(fresh=fresh)

    async def unit_price(self, earlier_attempts: int = 0) -> int:
        """Return the price per compute unit, in micro-lamports."""
        fees = await self._fees.get()
        return unit_price_micro_lamports(fees, *self._price_bounds, earlier_attempts)

    async def marker_rent(self) -> int:
        """Return what keeps an empty account, as the cluster takes it today."""
        return await self._rent.get()

    async def _read_recent(self) -> Recent:
        value = (await self.rpc.call("getLatestBlockhash", FINALIZED))["value"]
        return Recent(Hash.from_string(value["blockhash"]), value["lastValidBlockHeight"])

    async def _read_fees(self) -> list[int]:
        written = [str(self.token.mint), str(self.token.payer)]
        recent = await self.rpc.call("getRecentPrioritizationFees", written)
        return [entry["prioritizationFee"] for entry in recent]

    async def _read_rent(self) -> int:
        return int(await self.rpc.call("getMinimumBalanceForRentExemption", 0))

    async def sign(
        self,
        message: AnyMessage,
        form: TransactionFormat,
        tables: Mapping[str, Sequence[str]] = _NO_TABLES,
    ) -> tuple[str, bytes]:
        """Return (signature that names the transaction, bytes).

        Raises:
            SignerUnavailableError: The service that holds a key did not answer.
            SigningKeyError: A signer refuses.
            TransactionTooLargeError: No node would take the bytes.
        """
        body = to_bytes_versioned(message)
        needed = list(message.account_keys)[: message.header.num_required_signatures]
        # One after the other: what the first one refuses, the second is not asked for.
        signatures = [await self._signers[str(key)].sign(body, tables) for key in needed]
        return signed(message, signatures, form)

    async def send(self, raw: bytes) -> None:
        """Hand signed bytes to every node; whatever they answer is no verdict."""
        await asyncio.gather(*(_send(endpoint, raw, self.sleep) for endpoint in self.rpc.endpoints))

    async def until(
        self,
        instructions: Sequence[Instruction],
        done: Callable[[], Awaitable[bool]],
        form: TransactionFormat = TransactionFormat.LEGACY,
    ) -> bool:
        """Send instructions that may be done twice until *done*; false when the try has expired."""
        recent = await self.recent(fresh=True)
        budget = Budget(_UNITS_PER_INSTRUCTION * len(instructions), await self.unit_price())
        message = compile_message(instructions, self.token.payer, recent.blockhash, form, budget)
        _, raw = await self.sign(message, form)
        while True:
            await self.send(raw)
            await self.sleep(_POLL_S)
            if await done():
                return True
            height = await self.rpc.call("getBlockHeight", FINALIZED)
            if height > recent.last_valid_block_height:
                return False


async def _send(endpoint: JsonRpc, raw: bytes, sleep: Sleep) -> None:
    text = base64.b64encode(raw).decode()
    options = {"encoding": "base64", "skipPreflight": True, "maxRetries": 0}
    # Whatever a node says about sending, only the finalized chain tells what happened; and the
    # same bytes can be sent any number of times.
    wait_s = 0.0
    for _ in range(_SEND_TRIES):
        if wait_s:
            await sleep(wait_s)
        try:
            await endpoint.call("sendTransaction", text, options)
        except RpcBusyError as exc:
            # One that rests is not asked; trying again at once would never reach it.
            wait_s = min(exc.retry_after_s, _MAX_SEND_WAIT_S)
        except RpcUnavailableError:
            wait_s = 0.0
        except RpcRefusedError:
            return
        else:
            return
