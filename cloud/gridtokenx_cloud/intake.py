"""One batch of lines against the books: what is stored, credited, told and receipted; pure."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from gridtokenx_cloud.answers import Answers
from gridtokenx_cloud.events import (
    ADMIN_STREAM,
    MeterReadingReceived,
    user_stream,
)
from gridtokenx_cloud.ledger import add_seq, covers
from gridtokenx_cloud.ledger import window as window_of
from gridtokenx_cloud.opened import OpenedLine, identity_of
from gridtokenx_cloud.plausibility import Verdict, mark_of, validate_reading
from gridtokenx_cloud.ports.ingest import (
    Books,
    Changes,
    EpochBook,
    Identity,
    LiveRow,
    NewReading,
    NewRecord,
    NewRejection,
    NewSample,
)
from gridtokenx_cloud.reading_events import failed_event, received_event, rejected_event
from gridtokenx_cloud.remarks import Remark, last_slot, remarks_on
from gridtokenx_cloud.tenure import may_send, owner_at
from gridtokenx_cloud.throttle import RejectionBudget
from gridtokenx_cloud.verify import (
    LAST_DATE_MS,
    Fault,
    Meter,
    ReadingRules,
    check_enrolment,
    check_epoch,
    check_gateway,
    check_key_end,
    conflict,
)
from gridtokenx_wire.encoding import MAX_LINE_BYTES, line_hash
from gridtokenx_wire.receipt import LineRejection, Receipt
from gridtokenx_wire.record import (
    ClockQuality,
    ClockRecord,
    LiveValues,
    Record,
    SampleRecord,
    SlotRecord,
)

SAMPLE_SPACING_MS = 60_000
"""At most one sample row per meter and this time is stored."""


@dataclass(slots=True)
class Intake:
    """Takes the lines of one batch in order; each one sees what those before it changed."""

    books: Books
    rules: ReadingRules
    token: str
    now_ms: int
    kept: RejectionBudget = field(default_factory=RejectionBudget)
    changes: Changes = field(init=False)
    tally: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    samples: list[MeterReadingReceived] = field(default_factory=list)
    _answers: Answers = field(default_factory=Answers)

    def __post_init__(self) -> None:
        """Begin with no change."""
        self.changes = Changes(at_ms=self.now_ms)

    def take(self, opened: OpenedLine) -> None:
        """Judge one line and note what follows from it."""
        found = opened.found
        foreign = None
        if opened.addressable:
            foreign = self._check_key(opened.gateway_id)
            if foreign is None and opened.signed_by is not None:
                foreign = self._check_key(opened.signed_by)
        if foreign is not None:
            self._reject(opened, foreign, None)
        elif isinstance(found, Fault):
            self._reject(opened, found, None)
        else:
            identity = identity_of(opened.gateway_id, found, opened.signer)
            self._take_record(opened, found, identity)

    def _check_key(self, gateway_id: str) -> Fault | None:
        return check_gateway(gateway_id, self.books.gateways.get(gateway_id)) or check_key_end(
            gateway_id, self.books.key_ends_ms.get(gateway_id), self.now_ms
        )

    def _take_record(self, opened: OpenedLine, record: Record, identity: Identity) -> None:
        covered = covers(self.books.ranges.get(identity.key, ()), identity.seq)
        stored = self.books.lines.get((*identity.key, identity.seq)) if covered else None
        archived = (*identity.key, identity.seq) in self.books.archived
        if stored == opened.line or archived:
            self._note_duplicate(opened, identity)
            return
        at_ms = self._moment(identity, record)
        meter = self._meter_at(record.stamp.meter_id, at_ms)
        sends = meter is not None and self._may_send(meter, opened.signer, at_ms)
        refused = check_enrolment(
            record, meter, self.token, gateway_id=opened.signer, may_send=sends
        )
        if refused is None and covered:
            if stored is None and not isinstance(record, SlotRecord):
                self._note_duplicate(opened, identity)
                return
            refused = conflict(record)
        if refused is not None:
            self._reject(opened, refused, meter if sends else None)
            return
        self._store(opened, record, identity, meter)
        self._note_seq(opened.gateway_id, identity)

    def _note_duplicate(self, opened: OpenedLine, identity: Identity) -> None:
        self.tally["duplicate"] += 1
        self._answers.stored(opened.gateway_id, identity.key)

    def _meter_at(self, meter_id: str, at_ms: int) -> Meter | None:
        """Return the meter with its owner of that moment."""
        meter = self.books.meters.get(meter_id)
        owner = owner_at(self.books.owners.get(meter_id, ()), at_ms)
        if meter is None or owner is None:
            return meter
        return replace(meter, user_id=owner.user_id, wallet=owner.wallet)

    def _may_send(self, meter: Meter, gateway_id: str, at_ms: int) -> bool:
        tenures = self.books.tenures.get(meter.meter_id)
        if tenures is None:
            return meter.gateway_id == gateway_id
        return may_send(tenures, gateway_id, at_ms)

    def _store(
        self, opened: OpenedLine, record: Record, identity: Identity, meter: Meter | None
    ) -> None:
        if isinstance(record, SlotRecord) and meter is not None:
            self._store_slot(opened, record, identity, meter)
        elif isinstance(record, SampleRecord):
            self._store_sample(opened, record, identity, meter)
        elif not isinstance(record, SlotRecord):
            self.tally[record.kind] += 1
            if isinstance(record, ClockRecord):
                self._note_clock(identity, record)
            self.changes.records.append(
                NewRecord(
                    gateway_id=opened.signer,
                    stream=identity.stream,
                    record=record,
                    line=opened.line,
                )
            )

    def _store_slot(
        self, opened: OpenedLine, slot: SlotRecord, identity: Identity, meter: Meter
    ) -> None:
        dated_ms = self._date(identity, slot)
        reading_id = next(self.books.reading_ids)
        verdict = self._verdict(slot, identity, meter, reading_id, dated_ms)
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
                remarks=self._remark(opened, slot, identity, meter),
                line=opened.line,
            )
        )
        self.books.lines[(*identity.key, identity.seq)] = opened.line
        self._note_live(meter.meter_id, slot, dated_ms)
        self._tell_slot(slot, meter, reading_id, dated_ms, verdict)

    def _remark(
        self, opened: OpenedLine, slot: SlotRecord, identity: Identity, meter: Meter
    ) -> Remark:
        at_ms = self._moment(identity, slot)
        last = self.books.last_slots.get(identity.key)
        found = remarks_on(slot, last, at_ms, meter)
        self.remarks.update(str(one.name).lower() for one in found)
        if last is None or last.seq < identity.seq:
            self.books.last_slots[identity.key] = last_slot(slot, opened.line, at_ms)
        return found

    def _verdict(
        self,
        slot: SlotRecord,
        identity: Identity,
        meter: Meter,
        reading_id: int,
        dated_ms: int | None,
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
        verdict = validate_reading(
            mark_of(slot, reading_id, dated_ms, self.now_ms),
            book.span,
            meter,
            interval_s=slot.interval_s,
            dated_ms=dated_ms,
            now_ms=self.now_ms,
            rules=self.rules,
            others=[
                window
                for epoch, window in self.books.windows.get(identity.stream, {}).items()
                if epoch != identity.epoch
            ],
        )
        if verdict.span is not None:
            book.span = verdict.span
            known = self.books.windows.setdefault(identity.stream, {})
            known[identity.epoch] = window_of(verdict.span)
            self.changes.epochs[identity.key] = book
            self.changes.newest_moved |= verdict.status == "accepted"
        return verdict

    def _open_epoch(self, identity: Identity, status: Literal["accepted", "held"]) -> EpochBook:
        book = self.books.epochs[identity.key] = EpochBook(status)
        self.changes.epochs[identity.key] = book
        self.books.meters_with_epochs.add(identity.stream)
        return book

    def _tell_slot(
        self,
        slot: SlotRecord,
        meter: Meter,
        reading_id: int,
        dated_ms: int | None,
        verdict: Verdict,
    ) -> None:
        streams = (user_stream(meter.user_id), ADMIN_STREAM)
        self.changes.events.append(
            (
                streams,
                received_event(
                    meter, slot, reading_id, dated_ms, verdict.status, verdict.credit_wh
                ),
            )
        )
        if verdict.fault is not None:
            told = failed_event(meter, reading_id, verdict.claim_wh, "held", verdict.fault)
            self.changes.events.append((streams, told))

    def _store_sample(
        self, opened: OpenedLine, sample: SampleRecord, identity: Identity, meter: Meter | None
    ) -> None:
        self.tally["sample"] += 1
        if meter is None:
            return
        dated_ms = self._date(identity, sample)
        self._note_live(meter.meter_id, sample, dated_ms)
        self.samples.append(received_event(meter, sample, None, dated_ms, "accepted", 0))
        at_ms = self.now_ms if dated_ms is None else dated_ms
        last = self.books.sample_times.get(identity.key)
        if last is None or (identity.seq > last[0] and abs(at_ms - last[1]) >= SAMPLE_SPACING_MS):
            self.books.sample_times[identity.key] = (identity.seq, at_ms)
            self.changes.samples.append(
                NewSample(sample=sample, dated_ms=dated_ms, line=opened.line)
            )

    def _note_live(
        self, meter_id: str, record: SlotRecord | SampleRecord, dated_ms: int | None
    ) -> None:
        if record.live == LiveValues():
            return
        wall_ms = min(self.now_ms if dated_ms is None else dated_ms, self.now_ms)
        known = self.changes.live.get(meter_id)
        if known is None or known.wall_ms <= wall_ms:
            self.changes.live[meter_id] = LiveRow(wall_ms=wall_ms, live=record.live)

    def _note_clock(self, identity: Identity, record: ClockRecord) -> None:
        boot = (identity.gateway_id, identity.boot_id)
        if boot not in self.books.clock_offsets:
            offset_ms = record.stamp.wall_ms - record.stamp.mono_ms
            self.books.clock_offsets[boot] = self.changes.clock_offsets[boot] = offset_ms

    def _note_seq(self, gateway_id: str, identity: Identity) -> None:
        before = self.books.ranges.get(identity.key, ())
        after = add_seq(before, identity.seq)
        self.books.ranges[identity.key] = after
        loaded, _ = self.changes.ranges.get(identity.key, (before, before))
        self.changes.ranges[identity.key] = (loaded, after)
        self._answers.stored(gateway_id, identity.key)

    def _moment(self, identity: Identity, record: Record) -> int:
        """Return a record's own time, or now while nothing dates it."""
        dated_ms = self._date(identity, record)
        return self.now_ms if dated_ms is None else dated_ms

    def _date(self, identity: Identity, record: Record) -> int | None:
        stamp = record.stamp
        if stamp.clock is not ClockQuality.UNSYNCHRONISED:
            return min(stamp.wall_ms, LAST_DATE_MS)
        offset_ms = self.books.clock_offsets.get((identity.gateway_id, identity.boot_id))
        if offset_ms is None:
            return None
        return corrected_ms(stamp.mono_ms, offset_ms)

    def _reject(self, opened: OpenedLine, refused: Fault, meter: Meter | None) -> None:
        self.tally["rejected"] += 1
        self.tally[f"rejected:{refused.code}"] += 1
        name = line_hash(opened.line)
        if opened.addressable and opened.gateway_id in self.books.gateways:
            self._answers.refused(
                opened.gateway_id,
                LineRejection(line=name, code=refused.code, reason=refused.reason),
            )
        if not self.kept.allows(opened.gateway_id, self.now_ms):
            counted = self.changes.uncounted
            counted[opened.gateway_id] = counted.get(opened.gateway_id, 0) + 1
            return
        meter_id = None
        if not isinstance(opened.found, Fault):
            meter_id = opened.found.stamp.meter_id
        self.changes.rejections.append(
            NewRejection(
                gateway_id=opened.gateway_id,
                line_hash=name,
                line=opened.line[:MAX_LINE_BYTES],
                fault=refused,
                streams=(user_stream(meter.user_id), ADMIN_STREAM) if meter else (ADMIN_STREAM,),
                event=rejected_event(meter_id, meter, refused),
            )
        )

    def receipts(self) -> Iterator[Receipt]:
        """Return what each gateway of the batch is told after the commit."""
        return self._answers.receipts(self.books.ranges, self.now_ms)


def corrected_ms(mono_ms: int, offset_ms: int) -> int:
    """Return the true time of a reading of a boot whose clock offset is known."""
    return max(0, min(mono_ms + offset_ms, LAST_DATE_MS))
