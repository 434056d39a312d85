"""Keeps the agent's tasks running: one that ends is started again, and counted."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable

from gridtokenx_agent.errors import AgentError, StoreError

LONGEST_PAUSE_S = 60.0
PROVEN_S = 120.0
_log = logging.getLogger(__name__)

Job = Callable[[], Awaitable[None]]


class Supervisor:
    """Runs jobs by name until they are stopped.

    Only a buffer that can't be used ends the agent: its next start moves the file aside.

    Attributes:
        restarts: How often each job was started again.
    """

    def __init__(self, first_pause_s: float = 1.0) -> None:
        self.restarts: Counter[str] = Counter()
        self._first_pause_s = first_pause_s
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending = False
        self._fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self, name: str, job: Job) -> None:
        """Run *job* from now on; while everything ends nothing begins any more."""
        if self._ending:
            return
        self._tasks[name] = asyncio.create_task(self._keep(name, job), name=name)

    async def stop(self, name: str) -> None:
        """End a job and wait for it; nothing happens when there is none."""
        task = self._tasks.pop(name, None)
        if task is not None:
            await self._end([task])

    async def stop_all(self) -> None:
        """End every job; what they hold is committed and given back."""
        self._ending = True
        tasks = list(self._tasks.values())
        self._tasks.clear()
        await self._end(tasks)
        if not self._fatal.done():
            self._fatal.cancel()

    async def failure(self) -> None:
        """Return never.

        Raises:
            StoreError: What ended the agent.
        """
        await asyncio.shield(self._fatal)

    async def _keep(self, name: str, job: Job) -> None:
        pause_s = self._first_pause_s
        while True:
            began_s = asyncio.get_running_loop().time()
            if not await self._is_due_again(name, job):
                return
            self.restarts[name] += 1
            if asyncio.get_running_loop().time() - began_s > PROVEN_S:
                pause_s = self._first_pause_s
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _is_due_again(self, name: str, job: Job) -> bool:
        """Run *job* until it ends; return whether it should run once more."""
        try:
            await job()
            _log.error("task ended", extra={"task": name})
        except StoreError as exc:
            if not self._fatal.done():
                self._fatal.set_exception(exc)
            return False
        except AgentError as exc:
            _log.error("task failed", extra={"task": name, "reason": str(exc)})
        except Exception:  # noqa: BLE001 - no defect in one task may stop the others
            _log.exception("task failed", extra={"task": name})
        # A library, or a fault on the way out, may have swallowed that it was told to end.
        task = asyncio.current_task()
        return task is None or task.cancelling() == 0

    async def _end(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        for end in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(end, StoreError):
                raise end
            if isinstance(end, Exception):
                _log.error("task did not end cleanly", extra={"reason": repr(end)})
