"""What one slot reading becomes: its credit, its remarks and what is told of it; pure."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from gridtokenx_cloud.events import ADMIN_STREAM, user_stream
from gridtokenx_cloud.ledger import window
from gridtokenx_cloud.opened import OpenedLine
from gridtokenx_cloud.plausibility import Verdict, mark_of, validate_reading
from gridtokenx_cloud.ports.ingest import (
    Books,
    Changes,
    EpochBook,
    Identity,
    NewReading,
    StreamKey,
)
from gridtokenx_cloud.reading_events import failed_event
from gridtokenx_cloud.remarks import LastSlot, Remark, doubts_on, follow, last_slot, remarks_on
from gridtokenx_cloud.verify import Meter, ReadingRules, check_epoch
from gridtokenx_wire.record import SlotRecord


@dataclass(slots=True)
class SlotIntake:
    """Takes the slot readings of one batch that count here, in order."""

    books: Books
    changes: Changes
    rules: ReadingRules
    now_ms: int
    tally: Counter[str]
    remarks: Counter[str]

    def store(
        self,
        opened: OpenedLine,
        slot: SlotRecord,
        identity: Identity,
        meter: Meter,
        dated_ms: int | None,
    ) -> None:
        """Judge and store one reading."""
        reading_id = next(self.books.reading_ids)
        seen = last_slot(slot, opened.line, self.now_ms if dated_ms is None else dated_ms)
        found, odd = self._remark(slot, seen, identity.key, meter)
        verdict = self._verdict(slot, identity, meter, reading_id, dated_ms, odd)
        self._keep(seen, identity.key, verdict)
        self.tally[verdict.status] += 1
        self.changes.readings.append(
            NewReading(
                reading_id=reading_id,
                slot=slot,
                gateway_id=opened.signer,
                meter=meter,
                dated_ms=dated_ms,
                status=verdict.status,
                credit_wh=verdict.credit_wh,
                code=verdict.fault.code if verdict.fault else None,
                remarks=found,
                line=opened.line,
            )
        )
        self.books.lines[(*identity.key, identity.seq)] = opened.line
        self._tell_fault(meter, reading_id, verdict)

    def _remark(
        self, slot: SlotRecord, seen: LastSlot, key: StreamKey, meter: Meter
    ) -> tuple[Remark, Remark]:
        """Return what is odd beside the last stored reading, and since the last accepted one."""
        last, book = self.books.last_slots.get(key), self.books.epochs.get(key)
        beside = () if last is None or last.seq > seen.seq else (last,)
        found = remarks_on(slot, seen, beside, meter, self.rules)
        if found:
            self.remarks.update(str(one.name).lower() for one in found)
        if book is None or book.span is None:
            return found, found & Remark.PHASE_SUM
        trail = self.books.trails.get(key, beside)
        if trail is beside and not found:
            return found, found
        return found, doubts_on(slot, seen, trail, meter, self.rules)

    def _keep(self, seen: LastSlot, key: StreamKey, verdict: Verdict) -> None:
        """Note what the next reading of the epoch is compared with."""
        books = self.books
        last, book = books.last_slots.get(key), books.epochs[key]
        span = book.span
        if book.status == "accepted" and (span is None or seen.seq >= span.newest.seq):
            trail = books.trails.pop(key, () if last is None else (last,))
            trail = follow(trail, seen, accepted=verdict.status == "accepted")
            if len(trail) > 1 or span is None:
                books.trails[key] = trail
        if last is None or last.seq < seen.seq:
            books.last_slots[key] = seen

    def _verdict(
        self,
        slot: SlotRecord,
        identity: Identity,
        meter: Meter,
        reading_id: int,
        dated_ms: int | None,
        odd: Remark,
    ) -> Verdict:
        book = self.books.epochs.get(identity.key)
        unconfirmed = check_epoch(
            meter,
            identity.epoch,
            book.status if book else None,
            has_epochs=meter.meter_id in self.books.meters_with_epochs,
        )
        if book is None:
            book = self._open_epoch(identity, "held" if unconfirmed else "accepted")
        if unconfirmed is not None:
            return Verdict(status="held", fault=unconfirmed)
        windows = self.books.windows.setdefault(identity.stream, {})
        verdict = validate_reading(
            mark_of(slot, reading_id, dated_ms, self.now_ms),
            book.span,
            meter,
            interval_s=slot.interval_s,
            dated_ms=dated_ms,
            now_ms=self.now_ms,
            rules=self.rules,
            odd=odd,
            others=[covered for epoch, covered in windows.items() if epoch != identity.epoch],
        )
        if verdict.span is not None:
            book.span = verdict.span
            windows[identity.epoch] = window(verdict.span)
            self.changes.epochs[identity.key] = book
            self.changes.newest_moved = True
        return verdict

    def _open_epoch(self, identity: Identity, status: Literal["accepted", "held"]) -> EpochBook:
        book = self.books.epochs[identity.key] = EpochBook(status)
        self.changes.epochs[identity.key] = book
        self.books.meters_with_epochs.add(identity.stream)
        return book

    def _tell_fault(self, meter: Meter, reading_id: int, verdict: Verdict) -> None:
        """Tell why a reading is held; that it came is told with its row."""
        if verdict.fault is not None:
            streams = (user_stream(meter.user_id), ADMIN_STREAM)
            told = failed_event(meter, reading_id, verdict.claim_wh, "held", verdict.fault)
            self.changes.events.append((streams, told))
