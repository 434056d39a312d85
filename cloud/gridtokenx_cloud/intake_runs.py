"""The usual line, quickly: a slot reading that follows the last one of its meter, nothing odd.

Almost every line is the next reading of a meter that counts here: its register moved as far as its
power allows, its chain holds, its clock is right. That every rule passes such a line shows from a
few integers, so they are compared in one loop over a meter's lines, and what follows from all of
them together (the span, the range, the last slot) is written once. Whatever is not plainly usual is
left to `Intake.take`, line by line: this module refuses, holds and remarks nothing by itself, and
what it takes comes out as if it had gone the long way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gridtokenx_cloud.ledger import Mark, Span, window
from gridtokenx_cloud.opened import OpenedLine
from gridtokenx_cloud.plausibility import dates_allowed_ms, is_too_strong
from gridtokenx_cloud.ports.ingest import Books, Changes, EpochBook, NewReading, StreamKey
from gridtokenx_cloud.remarks import LastSlot, Remark, is_spike
from gridtokenx_cloud.verify import Meter, ReadingRules
from gridtokenx_wire.encoding import line_hash
from gridtokenx_wire.record import ClockQuality, Quality, SlotRecord


@dataclass(slots=True)
class _Head:
    """The last reading of a meter at whose end a usual line may follow; moves on with each.

    Attributes:
        seq, boot_id, mono_ms, import_wh, export_wh, power_w: As it was read.
        line_hash: Its name in the next one's `prev`.
        through_wh: Register up to which its epoch is credited.
    """

    meter: Meter
    rules: ReadingRules
    seq: int
    line_hash: str
    boot_id: str
    mono_ms: int
    import_wh: int
    export_wh: int
    power_w: int | None
    through_wh: int

    def precedes(self, slot: SlotRecord) -> bool:
        """Return whether no rule and no remark can speak against *slot* as the next reading.

        The rules are those of `plausibility` and `remarks` in their strictest reading.
        """
        stamp = slot.stamp
        passed_ms, moved_wh = stamp.mono_ms - self.mono_ms, slot.export_wh - self.export_wh
        if (
            stamp.seq != self.seq + 1
            or slot.prev != self.line_hash
            or stamp.boot_id != self.boot_id
            or stamp.clock is ClockQuality.UNSYNCHRONISED
            or passed_ms <= 0
            or moved_wh < 0
            or (slot.flags and Quality.POWER_MISMATCH in slot.flags)
        ):
            return False
        power_w, measured_w = slot.live.active_power_w, self.meter.rated_power_w
        if power_w is not None and self.power_w is not None:
            if moved_wh == 0 and slot.import_wh == self.import_wh:
                return False
            measured_w = min(measured_w, max(0, -power_w, -self.power_w))
        return not is_spike(moved_wh, measured_w, passed_ms, self.meter, self.rules)

    def move(self, slot: SlotRecord, line: bytes, credit_wh: int) -> None:
        """Stand at *slot* from now on."""
        stamp = slot.stamp
        self.seq, self.mono_ms, self.line_hash = stamp.seq, stamp.mono_ms, line_hash(line)
        self.import_wh, self.export_wh = slot.import_wh, slot.export_wh
        self.power_w = slot.live.active_power_w
        self.through_wh += credit_wh


@dataclass(slots=True)
class RunIntake:
    """Takes the usual lines at the head of a run."""

    books: Books
    changes: Changes
    rules: ReadingRules
    token: str
    now_ms: int

    def take(self, run: Sequence[OpenedLine], key: StreamKey) -> list[NewReading]:
        """Take as many lines of *run* as are usual, and return what became of them.

        Args:
            run: Slot lines of one gateway, signed by its own key, in the order in which they came.
            key: Their meter and epoch.
        """
        book = self.books.epochs.get(key)
        if book is None or book.span is None or book.status != "accepted":
            return []
        head = self._head(run[0].gateway_id, key, book.span)
        if head is None:
            return []
        found = list(self._judge(run, head))
        if found:
            self._note(found, head, key, book, book.span)
        return found

    def _head(self, gateway_id: str, key: StreamKey, span: Span) -> _Head | None:
        """Return what a usual line is compared with; None where none can be."""
        books, meter_id = self.books, key[0]
        meter, last = books.meters.get(meter_id), books.last_slots.get(key)
        ranges = books.ranges.get(key)
        if meter is None or last is None or not ranges:
            return None
        if (
            meter.gateway_id != gateway_id
            or meter_id in books.owners
            or meter_id in books.tenures
            or not books.windows.get(meter_id, {}).keys() <= {key[1]}
            or not ranges[-1][1] == last.seq == span.newest.seq
        ):
            return None
        return _Head(
            meter=meter,
            rules=self.rules,
            seq=last.seq,
            line_hash=last.line_hash,
            boot_id=last.boot_id,
            mono_ms=last.mono_ms,
            import_wh=last.import_wh,
            export_wh=last.export_wh,
            power_w=last.active_power_w,
            through_wh=span.credited_through_wh,
        )

    def _judge(self, run: Sequence[OpenedLine], head: _Head) -> Iterator[NewReading]:
        """Yield the readings of the lines that are usual, up to the first that is not."""
        meter, rules = head.meter, self.rules
        oldest_ms, newest_ms = dates_allowed_ms(self.now_ms, rules)
        for opened in run:
            slot = opened.found
            if not isinstance(slot, SlotRecord) or not head.precedes(slot):
                return
            credit_wh = slot.export_wh - head.through_wh
            credit_wh -= credit_wh % meter.resolution_wh
            dated_ms = slot.stamp.wall_ms
            if (
                slot.token != self.token
                or credit_wh > rules.max_reading_wh
                or is_too_strong(credit_wh, slot.stamp.mono_ms - head.mono_ms, meter)
                or not oldest_ms <= dated_ms <= newest_ms
            ):
                return
            head.move(slot, opened.line, credit_wh)
            yield NewReading(
                reading_id=next(self.books.reading_ids),
                slot=slot,
                gateway_id=opened.gateway_id,
                meter=meter,
                dated_ms=dated_ms,
                status="accepted",
                credit_wh=credit_wh,
                code=None,
                remarks=Remark.NONE,
                line=opened.line,
            )

    def _note(
        self, found: list[NewReading], head: _Head, key: StreamKey, book: EpochBook, span: Span
    ) -> None:
        """Write what the readings together changed."""
        books, changes = self.books, self.changes
        new = found[-1]
        dated_ms = new.slot.stamp.wall_ms
        newest = Mark(
            reading_id=new.reading_id,
            seq=head.seq,
            export_wh=head.export_wh,
            boot_id=head.boot_id,
            mono_ms=head.mono_ms,
            not_before_ms=dated_ms,
            not_after_ms=dated_ms,
        )
        book.span = Span(
            first=span.first,
            newest=newest,
            baseline_wh=span.baseline_wh,
            credited_through_wh=head.through_wh,
        )
        changes.epochs[key] = book
        changes.newest_moved = True
        changes.readings += found
        books.windows.setdefault(key[0], {})[key[1]] = window(book.span)
        books.last_slots[key] = LastSlot(
            seq=head.seq,
            line_hash=head.line_hash,
            boot_id=head.boot_id,
            mono_ms=head.mono_ms,
            at_ms=dated_ms,
            import_wh=head.import_wh,
            export_wh=head.export_wh,
            active_power_w=head.power_w,
            prev=new.slot.prev,
        )
        for one in found:
            books.lines[(*key, one.slot.stamp.seq)] = one.line
        before = books.ranges[key]
        loaded, _ = changes.ranges.get(key, (before, before))
        books.ranges[key] = (*before[:-1], (before[-1][0], head.seq))
        changes.ranges[key] = (loaded, books.ranges[key])
