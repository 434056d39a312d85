"""Records wait here until the cloud says that it has them; SQLite, one writer thread."""

import asyncio
import json
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from gridtokenx_agent.adapters.buffer_file import OpenFile, open_file
from gridtokenx_agent.adapters.buffer_rows import meter_state, row_values, state_columns
from gridtokenx_agent.clock import DAY_MS
from gridtokenx_agent.counters import MeterState
from gridtokenx_agent.errors import BufferFullError, StoreError
from gridtokenx_agent.ports import NewRow, Settled, Waiting
from gridtokenx_wire.receipt import LineRejection, Receipt

LONGEST_RESEND_MS = 6 * 3_600_000
_LIVE_SHARE = 0.4
"""Part of a message kept for the newest slots, so that a backlog never delays them."""
_CHECK_EVERY = 100
"""Commits between two looks at the file's size."""

_SENDABLE = """
    due_ms <= :now AND id NOT IN (SELECT value FROM json_each(:busy))
    AND (kind <> 'slot' OR opens = 1 OR NOT EXISTS (
        SELECT 1 FROM outbox AS opener
        WHERE opener.opens = 1 AND opener.meter_id = outbox.meter_id
          AND opener.epoch = outbox.epoch))
"""

P = ParamSpec("P")
T = TypeVar("T")


class BufferFile:
    """All statements of the buffer; not for two threads at once."""

    def __init__(self, opened: OpenFile, resend_after_ms: int) -> None:
        self._database = opened.database
        self._opened = opened
        self._resend_after_ms = resend_after_ms
        self._commits = 0

    def states(self) -> dict[str, MeterState]:
        """See `RecordBuffer.states`."""
        return {row["meter_id"]: meter_state(row) for row in self._database.table("meter").rows}

    def commit(
        self, state: MeterState, rows: Sequence[NewRow], refusals: Mapping[str, int]
    ) -> None:
        """See `RecordBuffer.commit`."""
        self._commits += 1
        if self._commits % _CHECK_EVERY == 0:
            self._thin()
        try:
            self._commit(state, rows, refusals)
        except BufferFullError:
            self._thin()
            self._commit(state, rows, refusals)

    def due(self, now_ms: int, limit: int, in_flight: Collection[int]) -> list[Waiting]:
        """See `Outbox.due`."""
        values = {"now": now_ms, "busy": json.dumps(list(in_flight))}
        newest = self._select(
            f"kind = 'slot' AND tries = 0 AND {_SENDABLE} ORDER BY id DESC",
            {**values, "limit": max(1, int(limit * _LIVE_SHARE))},
        )
        values["busy"] = json.dumps([*in_flight, *(row.row_id for row in newest)])
        oldest = self._select(
            f"{_SENDABLE} ORDER BY due_ms, id", {**values, "limit": limit - len(newest)}
        )
        return sorted((*newest, *oldest), key=lambda row: row.row_id)

    def mark_sent(self, row_ids: Collection[int], now_ms: int) -> None:
        """See `Outbox.mark_sent`."""
        self._postpone(row_ids, now_ms, sent=True)

    def mark_refused(self, row_ids: Collection[int], now_ms: int) -> None:
        """See `Outbox.mark_refused`."""
        self._postpone(row_ids, now_ms, sent=False)

    def resend_all(self) -> None:
        """See `Outbox.resend_all`."""
        with self._transaction():
            self._database.execute("UPDATE outbox SET due_ms = 0 WHERE due_ms > 0")

    def settle(self, receipt: Receipt, in_flight: Collection[int]) -> Settled:
        """See `Outbox.settle`."""
        forgotten = 0
        with self._transaction():
            dead = tuple(entry for entry in receipt.rejected if self._bury(entry))
            for meter_id, epochs in receipt.durable.items():
                for epoch, ranges in epochs.items():
                    for first, last in ranges:
                        forgotten += self._forget(meter_id, epoch, first, last, in_flight)
            self._database.execute(
                "INSERT OR REPLACE INTO meta (key, value) VALUES ('last_receipt_ms', ?)",
                (str(receipt.issued_ms),),
            )
        return Settled(forgotten=forgotten, dead=dead)

    def close(self) -> None:
        """Give the file back."""
        self._database.close()
        self._opened.lock.close()

    def _commit(
        self, state: MeterState, rows: Sequence[NewRow], refusals: Mapping[str, int]
    ) -> None:
        with self._transaction():
            self._refuse_used_seq(state, rows)
            self._database.table("meter").upsert(state_columns(state), pk="meter_id")
            self._database.table("outbox").insert_all(
                row_values(state.meter_id, row) for row in rows
            )
            for code, count in refusals.items():
                self._database.execute(
                    "INSERT INTO refusal VALUES (?, ?, ?) ON CONFLICT (meter_id, code) "
                    "DO UPDATE SET count = count + excluded.count",
                    (state.meter_id, code, count),
                )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            with self._database.atomic():
                yield
        except sqlite3.OperationalError as exc:
            raise BufferFullError(
                f"the buffer takes no more ({exc}); free disk space or raise buffer.max_mb"
            ) from exc
        except sqlite3.DatabaseError as exc:
            raise StoreError(f"the buffer is broken ({exc}); a restart moves it aside") from exc

    def _refuse_used_seq(self, state: MeterState, rows: Sequence[NewRow]) -> None:
        """Raise when a `seq` of the committed epoch would be used a second time."""
        known = self._database.execute(
            "SELECT epoch, seq FROM meter WHERE meter_id = ?", (state.meter_id,)
        ).fetchone()
        if known is None:
            return
        epoch, last = known
        behind = state.epoch == epoch and state.seq < last
        if behind or any(row.epoch == epoch and row.seq <= last for row in rows):
            raise StoreError(f"meter {state.meter_id}: seq {last} of epoch {epoch} is used already")

    def _select(self, condition: str, values: dict[str, Any]) -> list[Waiting]:
        statement = f"SELECT id, line FROM outbox WHERE {condition} LIMIT :limit"  # noqa: S608 - constants
        try:
            found = self._database.execute(statement, values).fetchall()
        except sqlite3.DatabaseError as exc:
            raise StoreError(f"the buffer cannot be read ({exc}); check the disk") from exc
        return [Waiting(row_id, line) for row_id, line in found]

    def _postpone(self, row_ids: Collection[int], now_ms: int, *, sent: bool) -> None:
        first_ms = self._resend_after_ms if sent else min(1000, self._resend_after_ms)
        with self._transaction():
            self._database.execute(
                "UPDATE outbox SET tries = tries + 1, sent = max(sent, :sent), "
                "due_ms = :now + min(:first << min(tries, 20), :longest) "
                "WHERE id IN (SELECT value FROM json_each(:ids))",
                {
                    "sent": int(sent),
                    "now": now_ms,
                    "first": first_ms,
                    "longest": LONGEST_RESEND_MS,
                    "ids": json.dumps(list(row_ids)),
                },
            )

    def _bury(self, entry: LineRejection) -> bool:
        """Move one rejected line among the dead; False when it is not here any more."""
        self._database.execute(
            "INSERT OR IGNORE INTO dead SELECT line_hash, meter_id, epoch, seq, kind, ?, ?, line "
            "FROM outbox WHERE line_hash = ?",
            (entry.code, entry.reason, entry.line),
        )
        gone = self._database.execute("DELETE FROM outbox WHERE line_hash = ?", (entry.line,))
        return bool(gone.rowcount)

    def _forget(
        self, meter_id: str, epoch: str, first: int, last: int, in_flight: Collection[int]
    ) -> int:
        # Only what was sent: a receipt for a row that never left is about other bytes.
        gone = self._database.execute(
            "DELETE FROM outbox WHERE meter_id = ? AND epoch = ? AND seq BETWEEN ? AND ? "
            "AND (tries > 0 OR id IN (SELECT value FROM json_each(?)))",
            (meter_id, epoch, min(first, _LARGEST), min(last, _LARGEST), json.dumps([*in_flight])),
        )
        return int(gone.rowcount)

    def _thin(self) -> None:
        """Drop samples as the file fills; slots, events and clock records never."""
        (pages,) = self._database.execute("PRAGMA page_count").fetchone()
        (free,) = self._database.execute("PRAGMA freelist_count").fetchone()
        percent = (pages - free) * 100 // self._opened.max_pages
        for threshold, bucket_ms, age_ms in _THINNING:
            if percent >= threshold:
                self._thin_samples(bucket_ms, age_ms)
                return

    def _thin_samples(self, bucket_ms: int, age_ms: int) -> None:
        """Keep the first sample of each bucket among those older than *age_ms*."""
        with self._transaction():
            self._database.execute(
                "DELETE FROM outbox WHERE kind = 'sample' AND wall_ms <= "
                "  (SELECT max(wall_ms) FROM outbox) - :age AND (:bucket = 0 OR id NOT IN ("
                "  SELECT min(id) FROM outbox WHERE kind = 'sample' "
                "  GROUP BY meter_id, epoch, wall_ms / max(:bucket, 1)))",
                {"age": age_ms, "bucket": bucket_ms},
            )


_LARGEST = 2**63 - 1
_THINNING = ((95, 0, 0), (85, 900_000, 0), (70, 60_000, DAY_MS))
"""From this percentage of the bound on: one sample per bucket, of those older than the age."""


class SqliteBuffer:
    """`RecordBuffer` and `Outbox` over one file; every call runs on the one writer thread."""

    def __init__(self, opened: OpenFile, resend_after_ms: int) -> None:
        self.moved_aside = opened.moved_aside
        self._file = BufferFile(opened, resend_after_ms)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="buffer")

    async def states(self) -> dict[str, MeterState]:
        """See `RecordBuffer.states`."""
        return await self._run(self._file.states)

    async def commit(
        self, state: MeterState, rows: Sequence[NewRow], refusals: Mapping[str, int]
    ) -> None:
        """See `RecordBuffer.commit`."""
        await self._run(self._file.commit, state, rows, refusals)

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
        await self._run(self._file.resend_all)

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
    path: Path, gateway_id: str, max_mb: int, resend_after_s: int, wall_ms: int
) -> SqliteBuffer:
    """Open the buffer; see `open_file` for what may go wrong."""
    return SqliteBuffer(open_file(path, gateway_id, max_mb, wall_ms), resend_after_s * 1000)
