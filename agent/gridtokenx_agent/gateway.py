"""The gateway's own stream of records: clock records and its events, from several tasks."""

import asyncio

from gridtokenx_agent.clock import ClockWatch, watch_clock
from gridtokenx_agent.ports import Clock, TrueTime
from gridtokenx_agent.recorder import Recorder


class GatewayStream:
    """Gives a `Recorder`, which is one task's, to all of them, one at a time."""

    def __init__(self, recorder: Recorder, clock: Clock, truth: TrueTime) -> None:
        self._recorder = recorder
        self._clock = clock
        self._truth = truth
        self._lock = asyncio.Lock()
        self._told: ClockWatch | None = None

    async def open(self) -> None:
        """Begin the stream's first epoch, if there is none."""
        async with self._lock:
            await self._recorder.open(self._clock.now())

    async def event(self, name: str, detail: str) -> None:
        """Record that something happened to the gateway."""
        async with self._lock:
            await self._recorder.event(name, detail, self._clock.now())

    def skip_to(self, epoch: str, seq: int) -> None:
        """See `Recorder.skip_to`."""
        self._recorder.skip_to(epoch, seq)

    async def watch_clock(self) -> None:
        """Tell when the wall clock became true or was set; and commit what still waits."""
        async with self._lock:
            at = self._clock.now()
            self._told, tell = watch_clock(self._told, at)
            if tell:
                await self._recorder.clock(at, self._truth.error_ms())
            await self._recorder.flush(at)
