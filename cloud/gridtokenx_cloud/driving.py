"""The batches that are being driven, each by a task of its own, and what halts new ones."""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any

from gridtokenx_cloud.errors import PermanentError

logger = logging.getLogger(__name__)

WHOLE_STORE = 0
"""Halting by this number keeps also what is sealed already from being signed."""


class Driving:
    """Takes batches up, learns of their ends, and keeps the reasons not to seal new ones.

    Args:
        drive: Brings one batch to its end.
    """

    def __init__(self, drive: Callable[[int], Coroutine[Any, Any, None]]) -> None:
        self._drive = drive
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._halts: dict[int, str] = {}
        self._given_up: set[int] = set()
        self._trouble = asyncio.Event()

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def tasks(self) -> Collection[asyncio.Task[None]]:
        """Those at work."""
        return self._tasks.values()

    @property
    def halted(self) -> tuple[str, ...]:
        """Why no new batch is sealed; empty = all is well."""
        return tuple(f"batch {number}: {reason}" for number, reason in self._halts.items())

    @property
    def stuck(self) -> bool:
        """Whether nothing is driven any more but what only an operator can help."""
        return bool(self._halts) and self._tasks.keys() <= self._halts.keys()

    @property
    def unsigned(self) -> str | None:
        """See `Halts.unsigned`."""
        return self._halts.get(WHOLE_STORE)

    def halt(self, batch_id: int, reason: str) -> None:
        """See `Halts.halt`."""
        if self._halts.get(batch_id) != reason:
            logger.error("minting_halted", extra={"batch_id": batch_id, "reason": reason})
        self._halts[batch_id] = reason
        self._trouble.set()

    def lift(self, batch_id: int) -> None:
        """See `Halts.lift`."""
        if self._halts.pop(batch_id, None) is not None:
            logger.info("minting_resumed", extra={"batch_id": batch_id})

    def take_up(self, batches: Iterable[int], most: int) -> None:
        """Drive these too, up to *most* at once; those given up are an operator's."""
        for batch_id in batches:
            if len(self._tasks) >= most:
                return
            if batch_id not in self._given_up and batch_id not in self._tasks:
                work = self._drive(batch_id)
                self._tasks[batch_id] = asyncio.create_task(work, name=f"batch {batch_id}")

    def reap(self) -> None:
        """Let go of what has ended; an end that waiting can't cure halts the minting."""
        for batch_id, task in list(self._tasks.items()):
            if not task.done():
                continue
            del self._tasks[batch_id]
            try:
                task.result()
            except PermanentError as exc:
                self._given_up.add(batch_id)
                self.halt(batch_id, str(exc))

    async def any_ended(self) -> None:
        """Wait until one ends or is in trouble."""
        self._trouble.clear()
        trouble = asyncio.create_task(self._trouble.wait())
        try:
            awaited = [trouble, *self._tasks.values()]
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            trouble.cancel()

    async def put_down(self) -> None:
        """Stop driving; each batch is taken up again where it stands."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()
