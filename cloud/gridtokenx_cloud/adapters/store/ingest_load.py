"""All that is known about the lines of one batch, in a dozen statements however many they are."""

import json
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping
from operator import itemgetter
from typing import Literal, NamedTuple

from gridtokenx_cloud.adapters.store.database import Connection, Result, Row
from gridtokenx_cloud.adapters.store.registry_rows import add_history, ask_history, moved_at_ms
from gridtokenx_cloud.adapters.store.stored_seqs import (
    ask_ranges,
    keyed_rows,
    load_lines,
    look_up_by_index,
    ranges_of,
)
from gridtokenx_cloud.ledger import Mark, Span, window
from gridtokenx_cloud.ports.ingest import Books, ClockTie, EpochBook, Identity, StreamKey
from gridtokenx_cloud.remarks import LastSlot
from gridtokenx_cloud.verify import Meter
from gridtokenx_wire.encoding import line_hash, parse_line
from gridtokenx_wire.record import FIRST_PREV, GATEWAY_STREAM, SlotRecord

METER_SQL = (
    "SELECT m.meter_id, m.gateway_id, m.user_id, u.wallet, m.rated_power_w, m.resolution_wh,"
    " m.epoch_policy FROM meters m JOIN users u USING (user_id)"
)
_EPOCH_SQL = """
SELECT e.meter_id, e.epoch, e.status, e.opened_at_ms, e.baseline_wh, e.credited_through_wh,
       e.baseline_reading_id, e.newest_reading_id, e.last_reading_id
FROM {keys} k JOIN meter_epochs e ON e.meter_id = k.meter
"""
# By number and apart from the epochs: whatever the server thinks of how many rows there are, it
# never finds reading the whole table cheaper.
_READINGS_SQL = """
SELECT r.reading_id, r.seq, r.boot_id, r.mono_ms, r.at_ms, r.import_wh, r.export_wh,
       r.active_power_w, r.line
FROM {keys} k JOIN meter_readings r ON r.reading_id = k.id
"""
_SET_BACK_MS = 86_400_000
"""So far a gateway's clock may be set back between two readings."""
# What is stored of an epoch after its last accepted reading: held, or rejected since. Rare, and no
# more of it than an operator leaves lying for days; the time leads to it, of a year of others.
_TRAIL_SQL = """
SELECT r.meter_id, r.epoch, r.reading_id, r.seq, r.boot_id, r.mono_ms, r.at_ms, r.import_wh,
       r.export_wh, r.active_power_w, r.line
FROM (SELECT x.reading_id, row_number() OVER (PARTITION BY x.meter_id, x.epoch ORDER BY x.seq DESC)
             AS place
      FROM {keys} k JOIN meter_readings x ON x.meter_id = k.stream AND x.at_ms >= k.since
           AND x.epoch = k.epoch AND x.seq > k.newest) t
JOIN meter_readings r ON r.reading_id = t.reading_id
WHERE t.place <= 1000 ORDER BY r.meter_id, r.epoch, r.seq
"""
_SAMPLES_SQL = """
SELECT s.meter_id, s.epoch, s.seq, s.at_ms
FROM {keys} k JOIN meter_samples s ON s.meter_id = k.stream AND s.epoch = k.epoch
     AND s.seq = (SELECT max(x.seq) FROM meter_samples x
                  WHERE x.meter_id = k.stream AND x.epoch = k.epoch)
"""
_CLOCKS_SQL = """
SELECT k.gateway, k.boot, coalesce(c.clock, 0) AS clock, coalesce(c.error_ms, 9007199254740992)
       AS error_ms, c.mono_ms, c.wall_ms
FROM {keys} k JOIN gateway_records c ON c.record_id = (
    SELECT r.record_id FROM gateway_records r
    WHERE r.kind = 'clock' AND r.gateway_id = k.gateway AND r.boot_id = k.boot
    ORDER BY coalesce(r.clock, 0) DESC, coalesce(r.error_ms, 9007199254740992), r.mono_ms LIMIT 1)
"""
# A clock record dates what is here of its boot: whoever moves credits of those meters waits.
_DATED_SQL = """
SELECT r.meter_id FROM {keys} b
JOIN meter_readings r ON r.gateway_id = b.gateway AND r.boot_id = b.boot AND r.clock = 0
"""


class _Epoch(NamedTuple):
    """What `_EPOCH_SQL` gives."""

    meter_id: str
    epoch: str
    status: Literal["accepted", "held"]
    opened_at_ms: int
    baseline_wh: int | None
    credited_through_wh: int
    baseline_reading_id: int | None
    newest_reading_id: int | None
    last_reading_id: int | None

    @property
    def key(self) -> StreamKey:
        return self.meter_id, self.epoch


class _Reading(NamedTuple):
    """What `_READINGS_SQL` gives."""

    reading_id: int
    seq: int
    boot_id: str
    mono_ms: int
    at_ms: int
    import_wh: int
    export_wh: int
    active_power_w: int | None
    line: bytes


def load_books(tx: Connection, gateway_ids: Iterable[str], wanted: Iterable[Identity]) -> Books:
    """See `IngestUnit.load`; other writers are kept off until the commit.

    Whoever moves a credit holds its meter, whoever stores a gateway's records the gateway. All take
    gateways before meters, each by name, so that no two wait for each other; what is read after
    that is what the last one of them left.
    """
    identities = list(wanted)
    touched: dict[StreamKey, set[int]] = defaultdict(set)
    for identity in identities:
        touched[identity.key].add(identity.seq)
    gateway_names = _names(gateway_ids)
    if not touched:
        return Books(gateways=_statuses(_lock_gateways(tx, gateway_names)))
    keys = sorted(key for key in touched if not key[0].startswith(GATEWAY_STREAM))
    meter_names = _names(meter_id for meter_id, _ in keys)
    boots = {(i.gateway_id, i.boot_id) for i in identities}
    own: set[tuple[str, str]] = set()
    if len(keys) < len(touched):
        own = {(i.gateway_id, i.boot_id) for i in identities if i.stream.startswith(GATEWAY_STREAM)}
    with tx.together():
        ids = tx.execute(tx.dialect.next_reading_ids, (sum(map(len, touched.values())),))
        gateways = _lock_gateways(tx, gateway_names)
        meters = _lock_meters(tx, meter_names, own)
        history = ask_history(tx, meter_names, gateway_names)
        ranges = ask_ranges(tx, touched)
        epochs = keyed_rows(tx, _EPOCH_SQL, ("meter",), meter_names)
        samples = keyed_rows(tx, _SAMPLES_SQL, ("stream", "epoch"), keys)
        clocks = keyed_rows(tx, _CLOCKS_SQL, ("gateway", "boot"), sorted(boots))
    free_ids = iter([number for (number,) in ids.fetchall()])
    books = Books(reading_ids=free_ids, gateways=_statuses(gateways))
    for row in meters.fetchall():
        meter = Meter(**dict(zip(row.keys(), row, strict=True)))
        books.meters[meter.meter_id] = meter
    add_history(books, history)
    books.ranges = ranges_of(ranges, touched)
    load_lines(tx, books, identities)
    _add_epochs(tx, books, [_Epoch(*row) for row in epochs.fetchall()], set(keys))
    for meter_id, epoch, seq, at_ms in samples:
        books.sample_times[meter_id, epoch] = (seq, at_ms)
    for gateway_id, boot_id, clock, error_ms, mono_ms, wall_ms in clocks:
        books.clock_ties[gateway_id, boot_id] = ClockTie(
            clock=clock, error_ms=error_ms, mono_ms=mono_ms, wall_ms=wall_ms
        )
    return books


def _lock_gateways(tx: Connection, names: list[tuple[str]]) -> Result:
    sql = "SELECT g.gateway_id, g.status FROM {keys} k JOIN gateways g ON g.gateway_id = k.name"
    sql += f" ORDER BY g.gateway_id{tx.dialect.row_lock('g')}"
    return keyed_rows(tx, sql, ("name",), names)


def _statuses(gateways: Result) -> dict[str, str]:
    return dict(map(tuple, gateways.fetchall()))


def _lock_meters(
    tx: Connection, names: list[tuple[str]], clock_boots: Iterable[tuple[str, str]] = ()
) -> Result:
    """Lock these meters, and those that a clock record of these boots may date readings of.

    Returns these meters. They are asked for by a statement of their own: one that waits for a lock
    joins what it waited for to what was there before, and would miss a meter that got another owner
    meanwhile.
    """
    if lock := tx.dialect.row_lock("m"):
        keys, values = f"{tx.dialect.rows('name')} k", [json.dumps(names)]
        if clock_boots:
            boots = tx.dialect.rows("gateway", "boot")
            keys = f"(SELECT name FROM {keys} UNION {_DATED_SQL.format(keys=boots)}) k"  # noqa: S608 - our own names
            values.append(json.dumps(sorted(clock_boots)))
        wanted = f"meters m JOIN {keys} ON k.name = m.meter_id ORDER BY m.meter_id"
        tx.execute(f"SELECT 1 FROM {wanted}{lock}", values)  # noqa: S608 - our own names
    return keyed_rows(tx, f"{METER_SQL} JOIN {{keys}} k ON k.name = m.meter_id", ("name",), names)


def lock_meter(tx: Connection, meter_id: str) -> Row | None:
    """Return a meter, nobody else may move a credit of it until the commit."""
    row: Row | None = _lock_meters(tx, [(meter_id,)]).fetchone()
    return row


def _names(names: Iterable[str]) -> list[tuple[str]]:
    return [(name,) for name in sorted(set(names))]


def _add_epochs(
    tx: Connection, books: Books, rows: list[_Epoch], touched: Container[StreamKey]
) -> None:
    readings = _named_readings(tx, rows, touched)
    waiting: dict[StreamKey, _Reading | None] = {}
    for row in rows:
        book = _book(row, readings)
        if row.key in touched:
            books.epochs[row.key] = book
            if (last := readings.get(row.last_reading_id)) is not None:
                books.last_slots[row.key] = _last_slot(last)
                if book.status == "accepted" and row.newest_reading_id != row.last_reading_id:
                    waiting[row.key] = readings.get(row.newest_reading_id)
        if row.opened_at_ms > moved_at_ms(books, row.meter_id):
            books.meters_with_epochs.add(row.meter_id)
        if book.span is not None:
            books.windows.setdefault(row.meter_id, {})[row.epoch] = window(book.span)
    if waiting:
        _load_trails(tx, books, waiting)


def _load_trails(
    tx: Connection, books: Books, waiting: Mapping[StreamKey, _Reading | None]
) -> None:
    """Load what is stored after the last accepted reading of each epoch, None = it has none yet."""
    trails = {key: [_last_slot(one)] if one else [] for key, one in waiting.items()}
    asked = [
        (*key, newest.seq, newest.at_ms - _SET_BACK_MS) if newest else (*key, -1, 0)
        for key, newest in sorted(waiting.items(), key=itemgetter(0))
    ]
    look_up_by_index(tx)
    for row in keyed_rows(tx, _TRAIL_SQL, ("stream", "epoch", "#newest", "#since"), asked):
        meter_id, epoch, *values = row
        reading = _Reading(*values)
        record = parse_line(reading.line)
        prev = record.prev if isinstance(record, SlotRecord) else FIRST_PREV
        trails[meter_id, epoch].append(_last_slot(reading)._replace(prev=prev))
    books.trails.update(trails)


def _named_readings(
    tx: Connection, epochs: list[_Epoch], with_last: Container[StreamKey] = ()
) -> dict[int | None, _Reading]:
    """Return by number the readings that these epochs name."""
    named = {row.baseline_reading_id for row in epochs} | {row.newest_reading_id for row in epochs}
    named |= {row.last_reading_id for row in epochs if row.key in with_last}
    ids = sorted(number for number in named if number is not None)
    if not ids:
        return {}
    found = keyed_rows(tx, _READINGS_SQL, ("#id",), [(number,) for number in ids]).fetchall()
    return {reading.reading_id: reading for reading in map(_Reading._make, found)}


def load_epochs(tx: Connection, meter_id: str) -> dict[str, EpochBook]:
    """Return what is known of each epoch of a meter."""
    found = keyed_rows(tx, _EPOCH_SQL, ("meter",), [(meter_id,)]).fetchall()
    rows = [_Epoch(*row) for row in found]
    readings = _named_readings(tx, rows)
    return {row.epoch: _book(row, readings) for row in rows}


def _book(row: _Epoch, readings: Mapping[int | None, _Reading]) -> EpochBook:
    if row.baseline_wh is None:
        return EpochBook(row.status)
    span = Span(
        first=_mark(readings[row.baseline_reading_id]),
        newest=_mark(readings[row.newest_reading_id]),
        baseline_wh=row.baseline_wh,
        credited_through_wh=row.credited_through_wh,
    )
    return EpochBook(row.status, span)


def _mark(reading: _Reading) -> Mark:
    return Mark(
        reading_id=reading.reading_id,
        seq=reading.seq,
        export_wh=reading.export_wh,
        boot_id=reading.boot_id,
        mono_ms=reading.mono_ms,
        not_before_ms=reading.at_ms,
        not_after_ms=reading.at_ms,
    )


def _last_slot(reading: _Reading) -> LastSlot:
    return LastSlot(
        seq=reading.seq,
        line_hash=line_hash(reading.line),
        boot_id=reading.boot_id,
        mono_ms=reading.mono_ms,
        at_ms=reading.at_ms,
        import_wh=reading.import_wh,
        export_wh=reading.export_wh,
        active_power_w=reading.active_power_w,
    )
