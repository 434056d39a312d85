"""One batch of lines against the books: what is stored, credited, told and receipted; pure."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from gridtokenx_cloud.answers import Answers
from gridtokenx_cloud.dating import Dating
from gridtokenx_cloud.events import ADMIN_STREAM, MeterReadingReceived, user_stream
from gridtokenx_cloud.intake_live import LiveIntake
from gridtokenx_cloud.intake_runs import RunIntake
from gridtokenx_cloud.intake_slots import SlotIntake
from gridtokenx_cloud.ledger import add_seq, covers
from gridtokenx_cloud.opened import OpenedLine
from gridtokenx_cloud.ports.ingest import Books, Changes, Identity, NewRecord, NewRejection
from gridtokenx_cloud.reading_events import received_event, rejected_event
from gridtokenx_cloud.tenure import may_send, owner_at
from gridtokenx_cloud.throttle import RejectionBudget
from gridtokenx_cloud.verify import (
    Fault,
    Meter,
    ReadingRules,
    check_enrolment,
    check_gateway,
    check_key_end,
    conflict,
)
from gridtokenx_wire.encoding import MAX_LINE_BYTES, line_hash
from gridtokenx_wire.receipt import LineRejection, Receipt
from gridtokenx_wire.record import ClockRecord, Record, SampleRecord, SlotRecord


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
    _keys: dict[str, Fault | None] = field(default_factory=dict)
    _dating: Dating = field(init=False)
    _slots: SlotIntake = field(init=False)
    _live: LiveIntake = field(init=False)
    _runs: RunIntake = field(init=False)

    def __post_init__(self) -> None:
        """Begin with no change."""
        self.changes = Changes(at_ms=self.now_ms)
        self._dating = Dating(self.books, self.changes)
        self._live = LiveIntake(self.books, self.changes, self.now_ms)
        self._runs = RunIntake(self.books, self.changes, self.rules, self.token, self.now_ms)
        self._slots = SlotIntake(
            self.books, self.changes, self.rules, self.now_ms, self.tally, self.remarks
        )

    def take_all(self, lines: Sequence[OpenedLine]) -> None:
        """Judge lines in order: the usual ones of a meter together, each other one alone."""
        at = 0
        while at < len(lines):
            end = _run_end(lines, at)
            if end == at:
                self.take(lines[at])
                at += 1
            while at < end:
                at += self._take_usual(lines[at:end])
                if at < end:
                    self.take(lines[at])
                    at += 1

    def _take_usual(self, run: Sequence[OpenedLine]) -> int:
        """Take the usual lines at the head of a run; return how many they are."""
        first = run[0]
        if first.identity is None or self._check_key(first.gateway_id) is not None:
            return 0
        found = self._runs.take(run, first.identity.key)
        if found:
            self.tally["accepted"] += len(found)
            self._answers.stored(first.gateway_id, first.identity.key)
            for new in found:
                self._live.note(new.slot, new.dated_ms)
        return len(found)

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
        elif opened.identity is not None:
            self._take_record(opened, found, opened.identity)

    def _check_key(self, gateway_id: str) -> Fault | None:
        """Return why no line under this key counts now; looked up once a batch."""
        if gateway_id not in self._keys:
            self._keys[gateway_id] = check_gateway(
                gateway_id, self.books.gateways.get(gateway_id)
            ) or check_key_end(gateway_id, self.books.key_ends_ms.get(gateway_id), self.now_ms)
        return self._keys[gateway_id]

    def _take_record(self, opened: OpenedLine, record: Record, identity: Identity) -> None:
        covered = covers(self.books.ranges.get(identity.key, ()), identity.seq)
        stored = self.books.lines.get((*identity.key, identity.seq)) if covered else None
        archived = covered and (*identity.key, identity.seq) in self.books.archived
        if stored == opened.line or archived:
            self._note_duplicate(opened, identity)
            return
        dated_ms = self._dating.date(identity, record.stamp)
        at_ms = self.now_ms if dated_ms is None else dated_ms
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
        self._store(opened, record, identity, meter, dated_ms)
        self._note_seq(opened.gateway_id, identity)

    def _note_duplicate(self, opened: OpenedLine, identity: Identity) -> None:
        self.tally["duplicate"] += 1
        self._answers.stored(opened.gateway_id, identity.key)

    def _meter_at(self, meter_id: str, at_ms: int) -> Meter | None:
        """Return the meter with its owner of that moment."""
        meter = self.books.meters.get(meter_id)
        owners = self.books.owners.get(meter_id)
        if meter is None or owners is None:
            return meter
        owner = owner_at(owners, at_ms)
        if owner is None:
            return meter
        return replace(meter, user_id=owner.user_id, wallet=owner.wallet)

    def _may_send(self, meter: Meter, gateway_id: str, at_ms: int) -> bool:
        tenures = self.books.tenures.get(meter.meter_id)
        if tenures is None:
            return meter.gateway_id == gateway_id
        return may_send(tenures, gateway_id, at_ms)

    def _store(
        self,
        opened: OpenedLine,
        record: Record,
        identity: Identity,
        meter: Meter | None,
        dated_ms: int | None,
    ) -> None:
        if isinstance(record, SlotRecord):
            if meter is not None:
                self._slots.store(opened, record, identity, meter, dated_ms)
                self._live.note(record, dated_ms)
        elif isinstance(record, SampleRecord):
            self.tally["sample"] += 1
            if meter is not None:
                self._live.note(record, dated_ms)
                self._live.keep_sample(opened, record, identity, dated_ms)
                self.samples.append(received_event(meter, record, None, dated_ms, "accepted", 0))
        else:
            self.tally[record.kind] += 1
            if isinstance(record, ClockRecord):
                self._dating.note(identity, record)
            self.changes.records.append(
                NewRecord(
                    gateway_id=opened.signer,
                    stream=identity.stream,
                    record=record,
                    line=opened.line,
                )
            )

    def _note_seq(self, gateway_id: str, identity: Identity) -> None:
        before = self.books.ranges.get(identity.key, ())
        after = add_seq(before, identity.seq)
        self.books.ranges[identity.key] = after
        loaded, _ = self.changes.ranges.get(identity.key, (before, before))
        self.changes.ranges[identity.key] = (loaded, after)
        self._answers.stored(gateway_id, identity.key)

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


def _run_end(lines: Sequence[OpenedLine], at: int) -> int:
    """Return how far the slot lines from *at* on are of one meter and epoch, under one key."""
    first = lines[at]
    identity, end = first.identity, at
    while end < len(lines):
        opened = lines[end]
        if (
            identity is None
            or opened.identity is None
            or opened.identity.key != identity.key
            or opened.gateway_id != first.gateway_id
            or opened.signed_by is not None
            or not isinstance(opened.found, SlotRecord)
        ):
            break
        end += 1
    return end
