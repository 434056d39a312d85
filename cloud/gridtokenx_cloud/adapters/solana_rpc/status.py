"""What became of attempts: one look at the chain answers for all that wait."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from gridtokenx_cloud.adapters.solana_rpc.rpc import JsonRpc
from gridtokenx_cloud.errors import RpcUnavailableError
from gridtokenx_cloud.mint_state import ChainError, StatusFinal, StatusSeen, StatusUnknown

Status = StatusUnknown | StatusSeen | StatusFinal

MOST_SIGNATURES = 256
_FINALIZED = {"commitment": "finalized"}


@dataclass(frozen=True, slots=True)
class Finalized:
    """How far the finalized chain was, by one reply."""

    slot: int
    height: int


@dataclass(frozen=True, slots=True)
class Look:
    """A status, and how far the finalized chain was before it was read.

    Both are 0 for a signature that is known: nothing is concluded from its age.
    """

    slot: int
    height: int
    status: Status


@dataclass(slots=True, eq=False)
class _Round:
    """The signatures of one look; it takes more until its first call goes out."""

    wanted: list[str] = field(default_factory=list)
    task: "asyncio.Task[dict[str, Look]] | None" = None


class StatusPoll:
    """Asks once for every signature that is asked about at the same time."""

    def __init__(self, rpc: JsonRpc, window_s: float = 0.0) -> None:
        self._rpc = rpc
        self._window_s = window_s
        self._open: _Round | None = None

    async def look(self, signature: str) -> Look:
        """Return what the chain knows of a signature.

        Raises:
            RpcUnavailableError: No usable answer.
        """
        current = self._open
        if current is None or current.task is None or len(current.wanted) >= MOST_SIGNATURES:
            current = self._open = _Round()
            current.task = asyncio.create_task(self._read(current))
        current.wanted.append(signature)
        # One that stops waiting must not take the answer from the others.
        return (await asyncio.shield(current.task))[signature]

    async def _read(self, current: _Round) -> dict[str, Look]:
        await asyncio.sleep(self._window_s)
        if self._open is current:
            self._open = None
        found = await self._ask(current.wanted, Finalized(0, 0))
        unknown = [name for name, look in found.items() if isinstance(look.status, StatusUnknown)]
        if unknown:
            # One reply for both: a height newer than the slot would make an old "unknown" look
            # new. And before the statuses, which then are at least as new.
            epoch = await self._rpc.call("getEpochInfo", _FINALIZED)
            reached = Finalized(epoch["absoluteSlot"], epoch["blockHeight"])
            found |= await self._ask(unknown, reached)
        return found

    async def _ask(self, signatures: list[str], reached: Finalized) -> dict[str, Look]:
        reply = await self._rpc.call(
            "getSignatureStatuses", signatures, {"searchTransactionHistory": True}
        )
        context, entries = reply["context"]["slot"], reply["value"]
        if len(entries) != len(signatures):
            raise RpcUnavailableError("getSignatureStatuses answered for other transactions")
        return {
            signature: Look(reached.slot, reached.height, _status(entry, context))
            for signature, entry in zip(signatures, entries, strict=True)
        }


def _status(entry: dict[str, Any] | None, context_slot: int) -> Status:
    if entry is None:
        return StatusUnknown(context_slot)
    if entry.get("confirmationStatus") != "finalized":
        return StatusSeen()
    return StatusFinal(entry["slot"], chain_error(entry.get("err")))


def chain_error(err: Any) -> ChainError | None:
    """Return a transaction's `err` as a node writes it."""
    if err is None:
        return None
    if isinstance(err, str):
        return ChainError(None, err)
    name, detail = next(iter(err.items()))
    if name != "InstructionError":
        return ChainError(None, name)
    index, cause = detail
    if isinstance(cause, dict):
        kind, value = next(iter(cause.items()))
        return ChainError(index, value if kind == "Custom" else kind)
    return ChainError(index, cause)
