"""Turns what happened at one meter into signed rows, each committed with the state behind it."""

import asyncio
import logging
from collections import Counter as Tally
from collections.abc import Callable
from dataclasses import dataclass, replace

from gridtokenx_agent.counters import Counter, EpochReason, MeterState
from gridtokenx_agent.errors import BufferFullError
from gridtokenx_agent.ports import Instant, NewRow, RecordBuffer, RecordSigner
from gridtokenx_agent.profiles import counts_alike
from gridtokenx_wire.encoding import encode_line, line_hash
from gridtokenx_wire.record import (
    FIRST_PREV,
    ClockRecord,
    EventRecord,
    LiveValues,
    Quality,
    Record,
    SampleRecord,
    SlotRecord,
    Stamp,
)

GROUP_ROWS = 20
MOST_ROWS_IN_MEMORY = 2_000
"""Of one meter while the disk takes none: twenty days of quarter hours, 2 MB."""
TRY_AGAIN_MS = 5_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecorderParts:
    """What all recorders of a gateway share.

    Attributes:
        token: Mint address this gateway is enrolled for.
        group_ms: How long samples may wait to share a commit: it spares an SD card.
        new_epoch: Draws 16 hex digits.
        committed: Told after each commit, so that rows leave at once.
    """

    buffer: RecordBuffer
    signer: RecordSigner
    token: str
    group_ms: int
    new_epoch: Callable[[], str]
    committed: Callable[[], None]


class Recorder:
    """The stream of records of one meter; owned by one task."""

    def __init__(
        self, parts: RecorderParts, meter_id: str, profile: str, state: MeterState | None
    ) -> None:
        self._parts = parts
        self._pending: list[NewRow] = []
        self._due_ms = 0
        self._refusals: Tally[str] = Tally()
        self._full = False
        self._fresh = state is None
        self._profile = profile
        self.state = state or MeterState(
            meter_id=meter_id, epoch=parts.new_epoch(), profile=profile
        )

    @property
    def stalled(self) -> bool:
        """Whether rows wait in memory because the disk takes none."""
        return self._full

    @property
    def due_ms(self) -> int | None:
        """Boot time by which `flush` must be called; None when nothing waits."""
        return self._due_ms if self._pending else None

    async def open(self, at: Instant) -> None:
        """Begin the first epoch, or a new one where the profile is another than before."""
        if self._fresh:
            self._fresh = False
            self._event("EpochStarted", EpochReason.FIRST_CONTACT, at)
            await self.flush(at)
        elif not counts_alike(self.state.profile, self._profile):
            # What the identity register of the other profile said is no identity for this one.
            self.state = replace(self.state, identity="")
            await self.start_epoch(EpochReason.PROFILE_CHANGED, self._profile, at)
        else:
            self.state = replace(self.state, profile=self._profile)

    async def start_epoch(self, reason: EpochReason, detail: str, at: Instant) -> None:
        """Begin a new epoch; nothing is counted from the old one to the new one."""
        self.state = replace(
            self.state,
            epoch=self._parts.new_epoch(),
            profile=self._profile,
            seq=0,
            prev=FIRST_PREV,
            counter=None,
        )
        self._event("EpochStarted", f"{reason}: {detail}" if detail else reason, at)
        await self.flush(at)

    async def slot(
        self, counter: Counter, interval_s: int, flags: Quality, live: LiveValues
    ) -> None:
        """Record a good reading at a slot's edge; *counter* becomes the base."""
        opens = self.state.prev == FIRST_PREV
        record = SlotRecord(
            stamp=self._stamp(counter.at),
            interval_s=interval_s,
            import_wh=counter.import_.total_wh,
            export_wh=counter.export.total_wh,
            token=self._parts.token,
            prev=self.state.prev,
            flags=flags,
            live=live,
        )
        line = self._append(record, opens=opens)
        self.state = replace(
            self.state,
            prev=line_hash(line),
            counter=counter,
            slot_wall_ms=counter.at.wall_ms,
            unit="ok",
        )
        await self.flush(counter.at)

    async def sample(self, at: Instant, flags: Quality, live: LiveValues) -> None:
        """Record values between slots; they wait for others to share a commit with."""
        self._append(SampleRecord(stamp=self._stamp(at), flags=flags, live=live))
        if len(self._pending) >= GROUP_ROWS or self._parts.group_ms == 0:
            await self.flush(at)

    async def event(self, name: str, detail: str, at: Instant, unit: str | None = None) -> None:
        """Record that something happened; *unit* is the meter's new state."""
        if unit is not None:
            self.state = replace(self.state, unit=unit)
        self._event(name, detail, at)
        await self.flush(at)

    async def clock(self, at: Instant, error_ms: int) -> None:
        """Record that the wall clock is right."""
        self._append(ClockRecord(stamp=self._stamp(at), error_ms=error_ms))
        await self.flush(at)

    def skip_to(self, epoch: str, seq: int) -> None:
        """Leave out numbers that the cloud has already, though this buffer never gave them.

        An older copy of the card was put back: under its next numbers the cloud holds other lines,
        and would refuse every new one until they are used up.
        """
        if epoch == self.state.epoch and seq > self.state.seq:
            _log.error(
                "the cloud has lines this buffer never sent; numbers are left out: was an older "
                "copy put back, or does another gateway run with this key?",
                extra={"meter_id": self.state.meter_id, "from": self.state.seq, "to": seq},
            )
            self.state = replace(self.state, seq=seq)

    def identify(self, identity: str) -> None:
        """Keep what the identity register says, with the next commit."""
        self.state = replace(self.state, identity=identity)

    def count_refusal(self, code: str) -> None:
        """Count a refused value, with the next commit."""
        self._refusals[code] += 1

    async def flush(self, at: Instant) -> None:
        """Commit what is pending; rows the disk does not take stay in memory and are tried again.

        They are not sent meanwhile: a `seq` that left must never be used again.
        """
        if not self._pending and not self._refusals:
            return
        job = asyncio.ensure_future(self._commit(at))
        try:
            await asyncio.shield(job)
        except asyncio.CancelledError:
            # Stopped in the middle of a commit: know how it ended, or its rows come twice.
            await job
            raise

    async def _commit(self, at: Instant) -> None:
        try:
            await self._parts.buffer.commit(self.state, self._pending, self._refusals)
        except BufferFullError as exc:
            self._wait_for_the_disk(at, str(exc))
            return
        if self._full:
            self._full = False
            _log.info("buffer takes rows again", extra=self._fields(at))
        self._pending = []
        self._refusals = Tally()
        self._parts.committed()

    def _wait_for_the_disk(self, at: Instant, reason: str) -> None:
        """Keep rows in memory: no samples, and of ever older slots ever fewer.

        The counters in them are totals, so what is left out costs resolution, no energy.
        """
        if not self._full:
            self._full = True
            _log.error("buffer full", extra=self._fields(at, reason=reason))
            self._event("BufferFull", reason, at)
        self._due_ms = at.mono_ms + TRY_AGAIN_MS
        if len(self._pending) > GROUP_ROWS:
            self._pending = [row for row in self._pending if row.kind != "sample"]
        if len(self._pending) > MOST_ROWS_IN_MEMORY:
            older, newer = _halves(self._pending)
            older = [row for number, row in enumerate(older) if row.opens or number % 2]
            self._pending = [*older, *newer]

    def _event(self, name: str, detail: str, at: Instant) -> None:
        text = "".join(sign if " " <= sign <= "~" else "?" for sign in detail[:200])
        self._append(EventRecord(stamp=self._stamp(at), event=name, detail=text))

    def _append(self, record: Record, *, opens: bool = False) -> bytes:
        stamp = record.stamp
        line = encode_line(record, self._parts.signer.sign)
        if not self._pending:
            self._due_ms = stamp.mono_ms + self._parts.group_ms
        self._pending.append(
            NewRow(
                epoch=stamp.epoch,
                seq=stamp.seq,
                kind=record.kind,
                wall_ms=stamp.wall_ms,
                line=line,
                opens=opens,
            )
        )
        self.state = replace(self.state, seq=stamp.seq)
        return line

    def _stamp(self, at: Instant) -> Stamp:
        return Stamp(
            meter_id=self.state.meter_id,
            epoch=self.state.epoch,
            seq=self.state.seq + 1,
            boot_id=at.boot_id,
            mono_ms=at.mono_ms,
            wall_ms=at.wall_ms,
            clock=at.clock,
        )

    def _fields(self, at: Instant, **more: str) -> dict[str, object]:
        return {"meter_id": self.state.meter_id, "mono_ms": at.mono_ms, **more}


def _halves(rows: list[NewRow]) -> tuple[list[NewRow], list[NewRow]]:
    middle = len(rows) // 2
    return rows[:middle], rows[middle:]
