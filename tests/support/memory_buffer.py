"""`RecordBuffer` and `Outbox` in memory; a contract test holds it to the real one's behaviour."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from gridtokenx_agent.counters import MeterState
from gridtokenx_agent.errors import BufferFullError, StoreError
from gridtokenx_agent.ports import NewRow, Settled, Waiting
from gridtokenx_wire.encoding import line_hash, parse_line
from gridtokenx_wire.receipt import LineRejection, Receipt
from gridtokenx_wire.record import Record


@dataclass
class Held:
    meter_id: str
    row: NewRow
    tries: int = 0
    sent: bool = False
    due_ms: int = 0


@dataclass
class MemoryBuffer:
    resend_after_ms: int = 900_000
    full: bool = False
    rows: dict[int, Held] = field(default_factory=dict)
    dead: dict[str, LineRejection] = field(default_factory=dict)
    known: dict[str, MeterState] = field(default_factory=dict)
    refusals: Counter[str] = field(default_factory=Counter)
    commits: int = 0
    settles: int = 0
    _last_id: int = 0

    @property
    def records(self) -> list[Record]:
        return [parse_line(held.row.line) for held in self.rows.values()]

    async def states(self) -> dict[str, MeterState]:
        return dict(self.known)

    async def commit(
        self, state: MeterState, rows: Sequence[NewRow], refusals: Mapping[str, int]
    ) -> None:
        if self.full:
            raise BufferFullError("the memory buffer is full")
        known = self.known.get(state.meter_id)
        if known is not None:
            behind = state.epoch == known.epoch and state.seq < known.seq
            if behind or any(row.epoch == known.epoch and row.seq <= known.seq for row in rows):
                raise StoreError(f"seq {known.seq} is used already")
        self.known[state.meter_id] = state
        for row in rows:
            self._last_id += 1
            self.rows[self._last_id] = Held(state.meter_id, row)
        self.refusals.update(refusals)
        self.commits += 1

    async def due(self, now_ms: int, limit: int, in_flight: Collection[int]) -> list[Waiting]:
        closed = {(held.meter_id, held.row.epoch) for held in self.rows.values() if held.row.opens}
        ready = {
            row_id: held
            for row_id, held in self.rows.items()
            if held.due_ms <= now_ms
            and row_id not in in_flight
            and (
                held.row.kind != "slot"
                or held.row.opens
                or (held.meter_id, held.row.epoch) not in closed
            )
        }
        fresh = [i for i, held in ready.items() if held.row.kind == "slot" and not held.tries]
        newest = sorted(fresh, reverse=True)[: max(1, int(limit * 0.4))]
        rest = sorted(set(ready) - set(newest), key=lambda i: (ready[i].due_ms, i))
        chosen = [*newest, *rest[: limit - len(newest)]]
        return [Waiting(row_id, self.rows[row_id].row.line) for row_id in chosen]

    async def mark_sent(self, row_ids: Collection[int], now_ms: int) -> None:
        self._postpone(row_ids, now_ms, self.resend_after_ms, sent=True)

    async def mark_refused(self, row_ids: Collection[int], now_ms: int) -> None:
        self._postpone(row_ids, now_ms, min(1000, self.resend_after_ms), sent=False)

    async def resend_all(self) -> None:
        for held in self.rows.values():
            held.due_ms = 0

    async def settle(self, receipt: Receipt, in_flight: Collection[int]) -> Settled:
        self.settles += 1
        rejected = {entry.line: entry for entry in receipt.rejected}
        dead = []
        for row_id, held in list(self.rows.items()):
            entry = rejected.get(line_hash(held.row.line))
            if entry is not None:
                self.dead[entry.line] = entry
                dead.append(entry)
                del self.rows[row_id]
        gone = [
            row_id
            for row_id, held in self.rows.items()
            if receipt.covers(held.meter_id, held.row.epoch, held.row.seq)
            and (held.tries or row_id in in_flight)
        ]
        for row_id in gone:
            del self.rows[row_id]
        return Settled(forgotten=len(gone), dead=tuple(dead))

    def close(self) -> None:
        return

    def _postpone(
        self, row_ids: Collection[int], now_ms: int, first_ms: int, *, sent: bool
    ) -> None:
        for row_id in row_ids:
            held = self.rows.get(row_id)
            if held is not None:
                held.due_ms = now_ms + min(first_ms << min(held.tries, 20), 21_600_000)
                held.tries += 1
                held.sent |= sent
