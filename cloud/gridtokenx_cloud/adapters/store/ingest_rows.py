"""Write the changes of one batch, inside the caller's transaction."""

import json
from collections.abc import Iterable, Mapping
from operator import itemgetter
from types import MappingProxyType
from typing import Any

from gridtokenx_cloud.adapters.store.database import Connection
from gridtokenx_cloud.adapters.store.outbox import append_events
from gridtokenx_cloud.adapters.store.refused_lines import keep_refused
from gridtokenx_cloud.ports.ingest import (
    Changes,
    EpochBook,
    NewReading,
    NewRecord,
    NewSample,
    StreamKey,
)
from gridtokenx_cloud.verify import LAST_DATE_MS
from gridtokenx_wire.record import ClockRecord, EventRecord

_SAVE_EPOCH_SQL = """
INSERT INTO meter_epochs (meter_id, epoch, status, baseline_wh, baseline_seq,
    baseline_reading_id, credited_through_wh, newest_seq, newest_reading_id, opened_at_ms,
    last_seq, last_reading_id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (meter_id, epoch) DO UPDATE SET
    status = excluded.status, baseline_wh = excluded.baseline_wh,
    baseline_seq = excluded.baseline_seq, baseline_reading_id = excluded.baseline_reading_id,
    credited_through_wh = excluded.credited_through_wh,
    newest_seq = excluded.newest_seq, newest_reading_id = excluded.newest_reading_id,
    last_seq = CASE WHEN excluded.last_seq > coalesce(meter_epochs.last_seq, -1)
        THEN excluded.last_seq ELSE meter_epochs.last_seq END,
    last_reading_id = CASE WHEN excluded.last_seq > coalesce(meter_epochs.last_seq, -1)
        THEN excluded.last_reading_id ELSE meter_epochs.last_reading_id END
"""
# Of epochs in which nothing else changed.
_SAVE_LAST_SQL = """
UPDATE meter_epochs SET last_seq = k.seq, last_reading_id = k.id FROM {keys} k
WHERE meter_epochs.meter_id = k.meter AND meter_epochs.epoch = k.epoch
    AND coalesce(meter_epochs.last_seq, -1) < k.seq
"""
_SAVE_RANGE_SQL = """
INSERT INTO seq_ranges (stream, epoch, first_seq, last_seq) VALUES (?, ?, ?, ?)
ON CONFLICT (stream, epoch, first_seq) DO UPDATE SET last_seq = excluded.last_seq
"""
_SAVE_READING_SQL = """
INSERT INTO meter_readings (reading_id, meter_id, epoch, seq, gateway_id, user_id,
    reading_timestamp_ms, submitted_at_ms, interval_s, import_wh, export_wh, clock, flags,
    boot_id, mono_ms, active_power_w, credit_wh, status, reason, remarks, line)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_SAVE_SAMPLE_SQL = """
INSERT INTO meter_samples (meter_id, epoch, seq, reading_timestamp_ms, submitted_at_ms,
    active_power_w, voltage_mv, current_ma, frequency_mhz, line)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_SAVE_RECORD_SQL = """
INSERT INTO gateway_records (gateway_id, stream, epoch, seq, kind, boot_id, mono_ms, wall_ms,
    event, detail, submitted_at_ms, line, clock, error_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_SAVE_LIVE_SQL = """
INSERT INTO meter_live (meter_id, wall_ms, submitted_at_ms, active_power_w, voltage_mv,
                        current_ma, frequency_mhz)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (meter_id) DO UPDATE SET
    wall_ms = excluded.wall_ms, submitted_at_ms = excluded.submitted_at_ms,
    active_power_w = excluded.active_power_w, voltage_mv = excluded.voltage_mv,
    current_ma = excluded.current_ma, frequency_mhz = excluded.frequency_mhz
WHERE excluded.wall_ms >= meter_live.wall_ms
"""
# What waits only for a better reading is covered once a newer one of its epoch is credited and the
# registers of both agree; what is from before the baseline is not, and stays with the operator.
_COVERED_TO_LATE_SQL = """
UPDATE meter_readings INDEXED BY meter_readings_held SET status = 'late', reason = NULL
WHERE status = 'held' AND reason IN ('ReadingTooOld', 'Spike', 'Stuck', 'ChainGap', 'PhaseSum')
AND meter_id IN (SELECT meter_id FROM {meters} k) AND EXISTS (
    SELECT 1 FROM meter_epochs e
    JOIN meter_readings b ON b.reading_id = e.baseline_reading_id
    JOIN meter_readings n ON n.reading_id = e.newest_reading_id
    WHERE e.meter_id = meter_readings.meter_id AND e.epoch = meter_readings.epoch
    AND meter_readings.seq BETWEEN b.seq AND n.seq
    AND meter_readings.export_wh BETWEEN b.export_wh AND n.export_wh)
"""
# Whoever locks several readings does so by number.
_DATE_SQL = """
WITH dated AS (
    SELECT reading_id FROM meter_readings r
    WHERE gateway_id = :gateway AND boot_id = :boot AND clock = 0 ORDER BY reading_id{lock})
UPDATE meter_readings SET reading_timestamp_ms = CASE
    WHEN mono_ms + :offset_ms < 0 THEN 0
    WHEN mono_ms + :offset_ms > :last_ms THEN :last_ms
    ELSE mono_ms + :offset_ms END
WHERE reading_id IN (SELECT reading_id FROM dated)
"""


def save_changes(tx: Connection, changes: Changes) -> None:
    """Write every change and its events."""
    at_ms = changes.at_ms
    tx.executemany(_SAVE_READING_SQL, [_reading(row, at_ms) for row in changes.readings])
    tx.executemany(_SAVE_SAMPLE_SQL, [_sample(row, at_ms) for row in changes.samples])
    tx.executemany(_SAVE_RECORD_SQL, [_record(row, at_ms) for row in changes.records])
    with tx.together():
        _save_ranges(tx, changes)
        last = _last_readings(changes)
        save_epochs(tx, changes.epochs, at_ms, last)
        _save_last(tx, {key: one for key, one in last.items() if key not in changes.epochs})
        _save_live(tx, changes)
        _date_by_clocks(tx, changes)
        if changes.newest_moved:
            settle_covered(tx, {meter_id for meter_id, _ in changes.epochs})
        refused, news = keep_refused(tx, changes)
    new_names = {(gateway_id, line_hash) for gateway_id, line_hash in news}
    told = [(same[0].streams, same[0].event) for name, same in refused.items() if name in new_names]
    append_events(tx, [*changes.events, *told], at_ms, changes.readings)


def _date_by_clocks(tx: Connection, changes: Changes) -> None:
    for (gateway_id, boot_id), tie in sorted(changes.clock_ties.items(), key=itemgetter(0)):
        tx.execute(
            _DATE_SQL.format(lock=tx.dialect.row_lock("r")),
            {
                "offset_ms": tie.offset_ms,
                "last_ms": LAST_DATE_MS,
                "gateway": gateway_id,
                "boot": boot_id,
            },
        )


def settle_covered(tx: Connection, meter_ids: Iterable[str]) -> None:
    """Let held readings be late whose energy a newer one has credited."""
    meters = [[meter_id] for meter_id in sorted(meter_ids)]
    sql = _COVERED_TO_LATE_SQL.format(meters=tx.dialect.rows("meter_id"))
    tx.execute(sql, (json.dumps(meters),))


def save_epochs(
    tx: Connection,
    books: Mapping[StreamKey, EpochBook],
    at_ms: int,
    last: Mapping[StreamKey, tuple[int, int]] = MappingProxyType({}),
) -> None:
    """Write epochs of meters, with the `seq` and number of their last readings if those moved."""
    rows = [
        (*_epoch(key, book, at_ms), *last.get(key, (None, None)))
        for key, book in sorted(books.items(), key=itemgetter(0))
    ]
    tx.executemany(_SAVE_EPOCH_SQL, rows)


def _epoch(key: StreamKey, book: EpochBook, at_ms: int) -> tuple[Any, ...]:
    span = book.span
    values: tuple[int | None, ...] = (None,) * 6
    if span is not None:
        values = (
            span.baseline_wh,
            span.first.seq,
            span.first.reading_id,
            span.credited_through_wh,
            span.newest.seq,
            span.newest.reading_id,
        )
    return (*key, book.status, *values, at_ms)


def _last_readings(changes: Changes) -> dict[StreamKey, tuple[int, int]]:
    """Return the highest new `seq` of each epoch, and its reading's number."""
    last: dict[StreamKey, tuple[int, int]] = {}
    for new in changes.readings:
        stamp = new.slot.stamp
        key, one = (stamp.meter_id, stamp.epoch), (stamp.seq, new.reading_id)
        last[key] = max(one, last.get(key, one))
    return last


def _save_last(tx: Connection, last: Mapping[StreamKey, tuple[int, int]]) -> None:
    if last:
        sql = _SAVE_LAST_SQL.format(keys=tx.dialect.rows("meter", "epoch", "#seq", "#id"))
        tx.execute(sql, (json.dumps([[*key, *one] for key, one in sorted(last.items())]),))


def _save_ranges(tx: Connection, changes: Changes) -> None:
    gone: list[tuple[str, str, int]] = []
    grown: list[tuple[str, str, int, int]] = []
    for key, (before, after) in sorted(changes.ranges.items()):
        kept = {first for first, _ in after}
        gone += [(*key, first) for first, _ in before if first not in kept]
        grown += [(*key, first, last) for first, last in sorted(set(after) - set(before))]
    tx.executemany("DELETE FROM seq_ranges WHERE stream = ? AND epoch = ? AND first_seq = ?", gone)
    tx.executemany(_SAVE_RANGE_SQL, grown)


def _reading(new: NewReading, at_ms: int) -> tuple[Any, ...]:
    slot, stamp = new.slot, new.slot.stamp
    return (
        new.reading_id,
        stamp.meter_id,
        stamp.epoch,
        stamp.seq,
        new.gateway_id,
        new.meter.user_id,
        new.dated_ms,
        at_ms,
        slot.interval_s,
        slot.import_wh,
        slot.export_wh,
        int(stamp.clock),
        int(slot.flags),
        stamp.boot_id,
        stamp.mono_ms,
        slot.live.active_power_w,
        new.credit_wh,
        new.status,
        new.code,
        int(new.remarks),
        new.line,
    )


def _save_live(tx: Connection, changes: Changes) -> None:
    tx.executemany(
        _SAVE_LIVE_SQL,
        [
            (
                meter_id,
                row.wall_ms,
                changes.at_ms,
                row.live.active_power_w,
                row.live.voltage_mv,
                row.live.current_ma,
                row.live.frequency_mhz,
            )
            for meter_id, row in sorted(changes.live.items())
        ],
    )


def _sample(new: NewSample, at_ms: int) -> tuple[Any, ...]:
    stamp, live = new.sample.stamp, new.sample.live
    return (
        stamp.meter_id,
        stamp.epoch,
        stamp.seq,
        new.dated_ms,
        at_ms,
        live.active_power_w,
        live.voltage_mv,
        live.current_ma,
        live.frequency_mhz,
        new.line,
    )


def _record(new: NewRecord, at_ms: int) -> tuple[Any, ...]:
    record, stamp = new.record, new.record.stamp
    event = record if isinstance(record, EventRecord) else None
    return (
        new.gateway_id,
        new.stream,
        stamp.epoch,
        stamp.seq,
        record.kind,
        stamp.boot_id,
        stamp.mono_ms,
        stamp.wall_ms,
        event.event if event else None,
        event.detail if event else None,
        at_ms,
        new.line,
        int(stamp.clock),
        record.error_ms if isinstance(record, ClockRecord) else None,
    )
