"""When a record was made, as far as anything tells; pure.

A reading taken before its gateway's clock was right is dated by a clock record of the same boot:
both tell the same boot-time clock. Of several such records the best one counts, also for readings
that an earlier one dated already.
"""

from dataclasses import dataclass

from gridtokenx_cloud.ports.ingest import Books, Changes, ClockTie, Identity
from gridtokenx_cloud.verify import LAST_DATE_MS
from gridtokenx_wire.record import ClockQuality, ClockRecord, Stamp


@dataclass(slots=True)
class Dating:
    """Dates the records of one batch; each clock record counts for those after it."""

    books: Books
    changes: Changes

    def date(self, identity: Identity, stamp: Stamp) -> int | None:
        """Return the record's own time, None while nothing dates it."""
        if stamp.clock is not ClockQuality.UNSYNCHRONISED:
            return min(stamp.wall_ms, LAST_DATE_MS)
        tie = self.books.clock_ties.get((identity.gateway_id, identity.boot_id))
        if tie is None:
            return None
        return max(0, min(stamp.mono_ms + tie.offset_ms, LAST_DATE_MS))

    def note(self, identity: Identity, record: ClockRecord) -> None:
        """Keep what a clock record says of its boot where it is better than what is known."""
        boot = (identity.gateway_id, identity.boot_id)
        stamp = record.stamp
        found = ClockTie(
            clock=int(stamp.clock),
            error_ms=record.error_ms,
            mono_ms=stamp.mono_ms,
            wall_ms=stamp.wall_ms,
        )
        known = self.books.clock_ties.get(boot)
        if known is None or found.rank < known.rank:
            self.books.clock_ties[boot] = self.changes.clock_ties[boot] = found
