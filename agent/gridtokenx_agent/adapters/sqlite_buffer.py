"""Records wait here until the cloud says that it has them; SQLite, one writer thread."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from gridtokenx_agent.adapters.buffer_file import RESERVE_MB, OpenFile, open_file
from gridtokenx_agent.adapters.buffer_statements import BufferFile, Change
from gridtokenx_agent.counters import MeterState
from gridtokenx_agent.ports import NewRow, Settled, Waiting
from gridtokenx_wire.receipt import Receipt

P = ParamSpec("P")
T = TypeVar("T")


class SqliteBuffer:
    """`RecordBuffer` and `Outbox` over one file; every call runs on the one writer thread."""

    def __init__(self, opened: OpenFile, resend_after_ms: int) -> None:
        self.moved_aside = opened.moved_aside
        self._file = BufferFile(opened, resend_after_ms)
        self._waiting: list[tuple[Change, asyncio.Future[None]]] = []
        self._committing: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="buffer")

    async def states(self) -> dict[str, MeterState]:
        """See `RecordBuffer.states`."""
        return await self._run(self._file.states)

    @property
    def trouble(self) -> str:
        """Why the last commit was refused; empty while the disk takes rows."""
        return self._file.trouble

    async def commit(
        self, state: MeterState, rows: Sequence[NewRow], refusals: Mapping[str, int]
    ) -> None:
        """See `RecordBuffer.commit`; what comes while the disk is busy shares the next commit."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((Change(state, tuple(rows), dict(refusals)), done))
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit_waiting())
        await done

    async def _commit_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            changes = [change for change, _ in batch]
            ends: Sequence[Exception | None]
            try:
                ends = await self._run(self._file.commit_each, changes)
            except Exception as exc:  # noqa: BLE001 - who waits must learn it, or waits for ever
                ends = [exc] * len(batch)
            for (_, done), end in zip(batch, ends, strict=True):
                if done.cancelled():
                    continue
                if end is None:
                    done.set_result(None)
                else:
                    done.set_exception(end)

    async def due(self, now_ms: int, limit: int, in_flight: Collection[int]) -> list[Waiting]:
        """See `Outbox.due`."""
        return await self._run(self._file.due, now_ms, limit, in_flight)

    async def mark_sent(self, row_ids: Collection[int], now_ms: int) -> None:
        """See `Outbox.mark_sent`."""
        await self._run(self._file.mark_sent, row_ids, now_ms)

    async def mark_refused(self, row_ids: Collection[int], now_ms: int) -> None:
        """See `Outbox.mark_refused`."""
        await self._run(self._file.mark_refused, row_ids, now_ms)

    async def resend_all(self) -> None:
        """See `Outbox.resend_all`."""
        while await self._run(self._file.resend_some):
            pass

    async def settle(self, receipt: Receipt, in_flight: Collection[int]) -> Settled:
        """See `Outbox.settle`."""
        return await self._run(self._file.settle, receipt, in_flight)

    def close(self) -> None:
        """Finish what is under way and give the file back."""
        self._thread.shutdown(wait=True)
        self._file.close()

    async def _run(self, call: Callable[P, T], *args: P.args, **_: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *args)


def open_buffer(
    path: Path,
    gateway_id: str,
    max_mb: int,
    resend_after_s: int,
    wall_ms: int,
    reserve_mb: int = RESERVE_MB,
) -> SqliteBuffer:
    """Open the buffer; see `open_file` for what may go wrong."""
    opened = open_file(path, gateway_id, max_mb, wall_ms, reserve_mb)
    return SqliteBuffer(opened, resend_after_s * 1000)
