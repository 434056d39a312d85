"""Live values of one batch: samples that are kept, and the newest values of each meter; pure."""

from dataclasses import dataclass

from gridtokenx_cloud.opened import OpenedLine
from gridtokenx_cloud.ports.ingest import Books, Changes, Identity, LiveRow, NewSample
from gridtokenx_wire.record import NO_VALUES, SampleRecord, SlotRecord

SAMPLE_SPACING_MS = 60_000
"""At most one sample row per meter and this time is stored."""


@dataclass(slots=True)
class LiveIntake:
    """Notes the instantaneous values that come with slots and samples."""

    books: Books
    changes: Changes
    now_ms: int

    def note(self, record: SlotRecord | SampleRecord, dated_ms: int | None) -> None:
        """Keep the record's values where they are the newest of their meter."""
        if record.live is NO_VALUES or record.live == NO_VALUES:
            return
        meter_id = record.stamp.meter_id
        wall_ms = self.now_ms if dated_ms is None else min(dated_ms, self.now_ms)
        known = self.changes.live.get(meter_id)
        if known is None or known.wall_ms <= wall_ms:
            self.changes.live[meter_id] = LiveRow(wall_ms=wall_ms, live=record.live)

    def keep_sample(
        self, opened: OpenedLine, sample: SampleRecord, identity: Identity, dated_ms: int | None
    ) -> None:
        """Store a sample unless one of about that time is stored."""
        at_ms = self.now_ms if dated_ms is None else dated_ms
        last = self.books.sample_times.get(identity.key)
        if last is None or (identity.seq > last[0] and abs(at_ms - last[1]) >= SAMPLE_SPACING_MS):
            self.books.sample_times[identity.key] = (identity.seq, at_ms)
            self.changes.samples.append(
                NewSample(sample=sample, dated_ms=dated_ms, line=opened.line)
            )
