"""All statements of the buffer's SQLite file; runs on one thread."""

import json
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, TypeVar

from gridtokenx_agent.adapters.buffer_file import OpenFile
from gridtokenx_agent.adapters.buffer_room import ROWS_AT_ONCE, Room
from gridtokenx_agent.adapters.buffer_rows import meter_state, row_values, state_columns
from gridtokenx_agent.adapters.buffer_taken import taken_numbers
from gridtokenx_agent.counters import MeterState
from gridtokenx_agent.errors import AgentError, BufferFullError, StoreError
from gridtokenx_agent.ports import NewRow, Settled, Waiting
from gridtokenx_wire.receipt import LineRejection, Receipt

LONGEST_RESEND_MS = 6 * 3_600_000
_LIVE_SHARE = 0.4
"""Part of a message kept for the newest slots, so that a backlog never delays them."""
_LAY_EVERY = 1_000
"""Commits between two looks whether the reserve can be laid again."""

_SENDABLE = """
    due_ms <= :now AND id NOT IN (SELECT value FROM json_each(:busy))
    AND (kind <> 'slot' OR opens = 1 OR NOT EXISTS (
        SELECT 1 FROM outbox AS opener
        WHERE opener.opens = 1 AND opener.meter_id = outbox.meter_id
          AND opener.epoch = outbox.epoch))
"""


T = TypeVar("T")


class Change(NamedTuple):
    """What one meter has to say in one commit."""

    state: MeterState
    rows: Sequence[NewRow]
    refusals: Mapping[str, int]


class BufferFile:
    """All statements of the buffer; not for two threads at once."""

    def __init__(self, opened: OpenFile, resend_after_ms: int) -> None:
        self._database = opened.database
        self._opened = opened
        self._room = Room(opened.database, opened.max_pages)
        self._resend_after_ms = resend_after_ms
        self._commits = 0
        self.trouble = ""

    def states(self) -> dict[str, MeterState]:
        """See `RecordBuffer.states`."""
        return {row["meter_id"]: meter_state(row) for row in self._database.table("meter").rows}

    def commit(
        self, state: MeterState, rows: Sequence[NewRow], refusals: Mapping[str, int]
    ) -> None:
        """See `RecordBuffer.commit`."""
        self.commit_all([Change(state, rows, refusals)])

    def commit_all(self, changes: Sequence[Change]) -> None:
        """Commit what several meters have to say, all or nothing, at the price of one.

        Raises:
            BufferFullError: Nothing was stored, though all room there is was made.
            StoreError: As `RecordBuffer.commit`; nothing was stored.
        """
        try:
            self._making_room(lambda: self._commit(changes))
        except BufferFullError as exc:
            self.trouble = str(exc)
            raise
        self.trouble = ""
        self._look_after()

    def commit_each(self, changes: Sequence[Change]) -> list[AgentError | None]:
        """Commit all at once, or else each alone; return what became of each."""
        if len(changes) > 1:
            try:
                self.commit_all(changes)
            except StoreError:
                # One of them is wrong; the others must not suffer for it.
                return [end for change in changes for end in self.commit_each([change])]
            except BufferFullError as exc:
                return [exc] * len(changes)
            return [None] * len(changes)
        try:
            self.commit_all(changes)
        except AgentError as exc:
            return [exc]
        return [None]

    def _look_after(self) -> None:
        """Thin what is too much, and lay the reserve again; neither is worth an error."""
        self._commits += 1
        if self._commits % _LAY_EVERY == 0:
            self._opened.reserve.lay()
        with suppress(AgentError):
            self._thin()

    def _making_room(self, work: Callable[[], T]) -> T:
        """Do *work*; if the disk or the file is full, do what helps at once and try again."""
        try:
            return work()
        except BufferFullError:
            self._opened.reserve.give_up()
            with suppress(AgentError):
                self._thin()
            # A file that is broken says so in a moment, to the work itself.
            with suppress(sqlite3.DatabaseError):
                self._room.checkpoint()
            return work()

    def _thin(self) -> None:
        with self._transaction():
            self._room.forget_refused()
            self._room.thin()

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
        return [*newest, *oldest]

    def mark_sent(self, row_ids: Collection[int], now_ms: int) -> None:
        """See `Outbox.mark_sent`."""
        self._making_room(lambda: self._postpone(row_ids, now_ms, sent=True))

    def mark_refused(self, row_ids: Collection[int], now_ms: int) -> None:
        """See `Outbox.mark_refused`."""
        self._making_room(lambda: self._postpone(row_ids, now_ms, sent=False))

    def resend_some(self) -> bool:
        """Make some of the rows due that are not; return whether there may be more.

        Not all at once: a slot that is being recorded would wait for a week's rows.
        """
        return self._making_room(self._make_some_due)

    def _make_some_due(self) -> bool:
        with self._transaction():
            changed = self._database.execute(
                "UPDATE outbox SET due_ms = 0 WHERE id IN "
                "(SELECT id FROM outbox WHERE due_ms > 0 LIMIT ?)",
                (ROWS_AT_ONCE,),
            )
            return bool(changed.rowcount == ROWS_AT_ONCE)

    def settle(self, receipt: Receipt, in_flight: Collection[int]) -> Settled:
        """See `Outbox.settle`."""
        settled = self._making_room(lambda: self._settle(receipt, in_flight))
        if self._opened.reserve.laid:
            with suppress(sqlite3.DatabaseError):
                self._room.shrink()
        return settled

    def _settle(self, receipt: Receipt, in_flight: Collection[int]) -> Settled:
        forgotten = 0
        with self._transaction():
            taken = tuple(taken_numbers(self._database, receipt))
            dead = tuple(entry for entry in receipt.rejected if self._bury(entry))
            for meter_id, epochs in receipt.durable.items():
                for epoch, ranges in epochs.items():
                    for first, last in ranges:
                        forgotten += self._forget(meter_id, epoch, first, last, in_flight)
            # An older one that comes again must not turn the cloud's clock back for commands.
            self._database.execute(
                "INSERT INTO meta (key, value) VALUES ('last_receipt_ms', ?) ON CONFLICT (key) DO "
                "UPDATE SET value = max(CAST(value AS INTEGER), CAST(excluded.value AS INTEGER))",
                (str(receipt.issued_ms),),
            )
        return Settled(forgotten=forgotten, dead=dead, taken=taken)

    def close(self) -> None:
        """Give the file back."""
        self._database.close()
        self._opened.lock.close()

    def _commit(self, changes: Sequence[Change]) -> None:
        with self._transaction():
            for state, rows, refusals in changes:
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
                f"the buffer takes no more ({exc}); free disk space, check that the disk can be "
                "written, or raise buffer.max_mb"
            ) from exc
        except sqlite3.DatabaseError as exc:
            raise self._broken(exc) from exc

    def _broken(self, exc: sqlite3.DatabaseError) -> StoreError:
        with suppress(OSError):
            self._opened.suspect.touch()
        return StoreError(f"the buffer is broken ({exc}); a restart moves it aside")

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
        except sqlite3.OperationalError as exc:
            raise BufferFullError(f"the buffer cannot be read ({exc}); check the disk") from exc
        except sqlite3.DatabaseError as exc:
            raise self._broken(exc) from exc
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


_LARGEST = 2**63 - 1
