"""An event loop whose clock jumps: sockets are real, waiting is free.

Whenever nothing is ready, time moves to the next timer at once. Data on a loopback socket is there
before the writer goes on, so nothing is ever late because of the machine. Not for threads: while
one works, the clock would run ahead of it.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from gridtokenx_agent.clock import Instant
from gridtokenx_wire.record import ClockQuality
from tests.support.fake_bus import BOOT_ID

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is None:
            ready = super().select(60.0)
            assert ready, "everything waits, and no timer runs"
            return ready
        self.now_s += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


def run_in_virtual_time(job: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(job)


class LoopClock:
    """`Clock` on the running loop's time; its wall clock starts on a full quarter of an hour."""

    start_mono_ms = 1_000_000
    start_wall_ms = 1_767_225_600_000

    def now(self) -> Instant:
        elapsed_ms = round(asyncio.get_running_loop().time() * 1000)
        return Instant(
            boot_id=BOOT_ID,
            mono_ms=self.start_mono_ms + elapsed_ms,
            wall_ms=self.start_wall_ms + elapsed_ms,
            clock=ClockQuality.SYNCHRONISED,
        )

    async def sleep_until(self, mono_ms: int) -> None:
        await asyncio.sleep(max(0, mono_ms - self.now().mono_ms) / 1000)
