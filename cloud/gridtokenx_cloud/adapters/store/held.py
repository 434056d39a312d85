"""Held readings in SQLite: an operator confirms an epoch, releases or rejects."""

from collections.abc import Iterable
from dataclasses import replace

from gridtokenx_cloud.adapters.store.database import Connection, Database, Row
from gridtokenx_cloud.adapters.store.ingest_load import load_epochs, lock_meter
from gridtokenx_cloud.adapters.store.ingest_rows import save_epochs, settle_covered
from gridtokenx_cloud.adapters.store.outbox import append_audit, append_event
from gridtokenx_cloud.errors import NotFoundError, ValidationError
from gridtokenx_cloud.events import ADMIN_STREAM, MarketEvent, user_stream
from gridtokenx_cloud.ledger import window
from gridtokenx_cloud.plausibility import Verdict, mark_of, validate_reading
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.ports.ingest import EpochBook
from gridtokenx_cloud.reading_events import failed_event, received_event
from gridtokenx_cloud.registry import HeldReading, check_epoch_name, release
from gridtokenx_cloud.remarks import Trail, doubts_on, follow, last_slot
from gridtokenx_cloud.verify import Fault, Meter, ReadingRules, fault
from gridtokenx_wire.encoding import parse_line
from gridtokenx_wire.record import SlotRecord

_HELD_SQL = """
SELECT r.reading_id, r.meter_id, r.epoch, r.seq, r.export_wh, r.reason, r.line,
       r.reading_timestamp_ms, r.submitted_at_ms, r.user_id, u.wallet
FROM meter_readings r JOIN users u ON u.user_id = r.user_id WHERE r.status = 'held'
"""


class SqlHeldReadings:
    """What waits for an operator's word; every word with its audit entry."""

    def __init__(self, database: Database, clock: Clock, *, actor: str) -> None:
        self._database = database
        self._clock = clock
        self._actor = actor

    def list_held(self) -> list[dict[str, object]]:
        """Return every held reading, the oldest first."""
        # In the order of a bare number SQLite would read the whole table.
        rows = self._database.connection.execute(
            "SELECT reading_id, meter_id, epoch, seq, export_wh, reason, reading_timestamp_ms"
            " FROM meter_readings WHERE status = 'held' ORDER BY +reading_id"
        )
        return [dict(row) for row in rows]

    def release(self, reading_id: int) -> int:
        """Credit what the register moved up to a held reading; return the Wh.

        Raises:
            NotFoundError: No such held reading.
            ValidationError: Its epoch is not confirmed, or no credit fits.
        """
        with self._database.transaction() as tx:
            held = _Held(tx, _find(tx, reading_id))
            verdict = release(held.reading, held.book.span, held.others)
            self._settle(tx, held, verdict)
            self._audit(tx, "reading_released", held, {"credit_wh": verdict.credit_wh})
        return verdict.credit_wh

    def reject(self, reading_id: int, reason: str) -> None:
        """Refuse a held reading for good; the next good one credits what the register moved.

        Raises:
            NotFoundError: No such held reading.
            ValidationError: No reason given.
        """
        if not reason.strip():
            raise ValidationError(
                "MissingReason", f"Reading {reading_id} cannot be rejected without a reason."
            )
        with self._database.transaction() as tx:
            held = _Held(tx, _find(tx, reading_id))
            tx.execute(
                "UPDATE meter_readings SET status = 'rejected' WHERE reading_id = ?", (reading_id,)
            )
            told = Fault(held.code, fault(held.code, reason).reason)
            self._tell(tx, held, failed_event(held.meter, reading_id, 0, "rejected", told))
            self._audit(tx, "reading_rejected", held, {"reason": reason})

    def accept_epoch(self, meter_id: str, epoch: str, rules: ReadingRules) -> int:
        """Confirm an epoch and judge what was held for it, in order of `seq`; return how many.

        Raises:
            NotFoundError: No such meter, or it never sent this epoch.
            ValidationError: Not an epoch.
        """
        check_epoch_name(epoch)
        with self._database.transaction() as tx:
            lock_meter(tx, meter_id)
            book = load_epochs(tx, meter_id).get(epoch)
            if book is None:
                raise NotFoundError(
                    f"Meter {meter_id} has sent no reading of epoch {epoch}; "
                    "`gtx-cloud held list` shows what waits."
                )
            book.status = "accepted"
            save_epochs(tx, {(meter_id, epoch): book}, self._clock.now_ms())
            rows = tx.execute(
                f"{_HELD_SQL} AND r.reason = 'UnknownEpoch' AND r.meter_id = ? AND r.epoch = ?"
                " ORDER BY r.seq",
                (meter_id, epoch),
            ).fetchall()
            trail: Trail = ()
            for row in rows:
                held = _Held(tx, row)
                verdict = held.judge(rules, trail)
                trail = follow(trail, held.seen, accepted=verdict.status == "accepted")
                self._settle(tx, held, verdict)
            append_audit(
                tx,
                at_ms=self._clock.now_ms(),
                actor=self._actor,
                action="epoch_accepted",
                subject=meter_id,
                detail={"epoch": epoch, "readings": len(rows)},
            )
        return len(rows)

    def _settle(self, tx: Connection, held: "_Held", verdict: Verdict) -> None:
        code = verdict.fault.code if verdict.fault else None
        tx.execute(
            "UPDATE meter_readings SET status = ?, credit_wh = ?, reason = ? WHERE reading_id = ?",
            (verdict.status, verdict.credit_wh, code, held.reading.reading_id),
        )
        if verdict.span is not None:
            held.book.span = verdict.span
            key = (held.meter.meter_id, held.reading.epoch)
            save_epochs(tx, {key: held.book}, self._clock.now_ms())
            settle_covered(tx, [held.meter.meter_id])
        self._tell(tx, held, *held.events(verdict))

    def _tell(self, tx: Connection, held: "_Held", *events: MarketEvent) -> None:
        streams: Iterable[str] = (user_stream(held.meter.user_id), ADMIN_STREAM)
        for event in events:
            append_event(tx, streams, event, self._clock.now_ms())

    def _audit(self, tx: Connection, action: str, held: "_Held", detail: dict[str, object]) -> None:
        append_audit(
            tx,
            at_ms=self._clock.now_ms(),
            actor=self._actor,
            action=action,
            subject=str(held.reading.reading_id),
            detail={"meter_id": held.meter.meter_id, **detail},
        )


class _Held:
    """A held reading with its meter and its epoch as they are now."""

    def __init__(self, tx: Connection, row: Row) -> None:
        record = parse_line(row["line"])
        if not isinstance(record, SlotRecord):
            raise NotFoundError(f"Reading {row['reading_id']} is no slot reading.")
        self.slot = record
        self.code = row["reason"]
        self.dated_ms: int | None = row["reading_timestamp_ms"]
        self.received_ms: int = row["submitted_at_ms"]
        at_ms = self.received_ms if self.dated_ms is None else self.dated_ms
        self.seen = last_slot(record, row["line"], at_ms)
        meter = lock_meter(tx, row["meter_id"])
        if meter is None:
            raise NotFoundError(f"Meter {row['meter_id']} is not enrolled.")
        # Whose it was when it came: the meter may have another owner now.
        self.meter = replace(Meter(**meter), user_id=row["user_id"], wallet=row["wallet"])
        books = load_epochs(tx, row["meter_id"])
        self.book = books.pop(row["epoch"], EpochBook("held"))
        self.others = [window(book.span) for book in books.values() if book.span is not None]
        self.reading = HeldReading(
            reading_id=row["reading_id"],
            meter=self.meter,
            epoch=row["epoch"],
            epoch_status=self.book.status,
            mark=mark_of(record, row["reading_id"], self.dated_ms, self.received_ms),
            reason=row["reason"],
        )

    def judge(self, rules: ReadingRules, trail: Trail) -> Verdict:
        known = trail if self.book.span is not None else ()
        return validate_reading(
            self.reading.mark,
            self.book.span,
            self.meter,
            interval_s=self.slot.interval_s,
            dated_ms=self.dated_ms,
            now_ms=self.received_ms,
            rules=rules,
            odd=doubts_on(self.slot, self.seen, known, self.meter, rules),
            others=self.others,
        )

    def events(self, verdict: Verdict) -> list[MarketEvent]:
        reading_id = self.reading.reading_id
        told: list[MarketEvent] = [
            received_event(
                self.meter,
                self.slot,
                reading_id,
                self.dated_ms,
                verdict.status,
                verdict.credit_wh,
            )
        ]
        if verdict.fault is not None:
            told.append(
                failed_event(self.meter, reading_id, verdict.claim_wh, "held", verdict.fault)
            )
        return told


def _find(tx: Connection, reading_id: int) -> Row:
    """Return a held reading, its meter locked: its epoch and its status stand until the commit."""
    sql = f"{_HELD_SQL} AND r.reading_id = ?"
    row: Row | None = tx.execute(sql, (reading_id,)).fetchone()
    if row is not None:
        lock_meter(tx, row["meter_id"])
        row = tx.execute(sql, (reading_id,)).fetchone()
    if row is None:
        raise NotFoundError(
            f"Reading {reading_id} is not held; `gtx-cloud held list` shows what is."
        )
    return row
