"""`IngestStore` over SQLite: load what a batch touches, save all it changes."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from gridtokenx_cloud.adapters.store.database import Connection, Database, Row
from gridtokenx_cloud.adapters.store.ingest_rows import save_changes
from gridtokenx_cloud.adapters.store.registry_rows import (
    load_history,
    load_last_slot,
    load_windows,
    moved_at_ms,
)
from gridtokenx_cloud.ledger import Mark, Span, covers
from gridtokenx_cloud.ports.ingest import (
    Books,
    Changes,
    EpochBook,
    Identity,
    IngestUnit,
    StreamKey,
)
from gridtokenx_cloud.verify import Meter
from gridtokenx_wire.receipt import Ranges

METER_SQL = (
    "SELECT m.meter_id, m.gateway_id, m.user_id, u.wallet, m.rated_power_w, m.resolution_wh,"
    " m.epoch_policy FROM meters m JOIN users u USING (user_id)"
)

_EPOCH_SQL = """
SELECT e.status, e.baseline_wh, e.credited_through_wh,
       n.reading_id AS n_reading_id, n.seq AS n_seq, n.export_wh AS n_export_wh,
       n.boot_id AS n_boot_id, n.mono_ms AS n_mono_ms,
       n.at_ms AS n_at_ms,
       f.reading_id AS f_reading_id, f.seq AS f_seq, f.export_wh AS f_export_wh,
       f.boot_id AS f_boot_id, f.mono_ms AS f_mono_ms,
       f.at_ms AS f_at_ms
FROM meter_epochs e
LEFT JOIN meter_readings n ON n.reading_id = e.newest_reading_id
LEFT JOIN meter_readings f ON f.meter_id = e.meter_id AND f.epoch = e.epoch
     AND f.seq = e.baseline_seq
WHERE e.meter_id = ? AND e.epoch = ?
"""


class SqliteIngestStore:
    """`IngestStore` in one SQLite file."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def transaction(self) -> Iterator[IngestUnit]:
        """See `IngestStore.transaction`."""
        with self._database.transaction() as tx:
            yield SqliteIngestUnit(tx)


class SqliteIngestUnit:
    """`IngestUnit` inside one write transaction."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def load(self, gateway_ids: Iterable[str], wanted: Iterable[Identity]) -> Books:
        """See `IngestUnit.load`."""
        touched: dict[StreamKey, set[int]] = defaultdict(set)
        boots: set[tuple[str, str]] = set()
        for identity in wanted:
            touched[identity.key].add(identity.seq)
            boots.add((identity.gateway_id, identity.boot_id))
        meter_ids = {stream for stream, _ in touched}
        lock_registry(self._tx, gateway_ids, meter_ids)
        books = Books(reading_ids=self._free_reading_ids(sum(map(len, touched.values()))))
        self._load_registry(books, gateway_ids, meter_ids)
        load_history(self._tx, books)
        for key, seqs in touched.items():
            self._load_stream(books, key, seqs)
        for boot in boots:
            row = self._row(
                "SELECT wall_ms - mono_ms AS offset_ms FROM gateway_records"
                " WHERE kind = 'clock' AND gateway_id = ? AND boot_id = ?"
                " ORDER BY mono_ms LIMIT 1",
                boot,
            )
            if row is not None:
                books.clock_offsets[boot] = row["offset_ms"]
        return books

    def _free_reading_ids(self, count: int) -> Iterator[int]:
        if count == 0:
            return iter(())
        rows = self._tx.execute(self._tx.dialect.next_reading_ids, (count,)).fetchall()
        return iter([row[0] for row in rows])

    def _row(self, sql: str, values: tuple[Any, ...]) -> Row | None:
        row: Row | None = self._tx.execute(sql, values).fetchone()
        return row

    def _load_registry(
        self, books: Books, gateway_ids: Iterable[str], meter_ids: Iterable[str]
    ) -> None:
        for gateway_id in set(gateway_ids):
            row = self._row("SELECT status FROM gateways WHERE gateway_id = ?", (gateway_id,))
            if row is not None:
                books.gateways[gateway_id] = row["status"]
        for meter_id in meter_ids:
            row = self._row(f"{METER_SQL} WHERE m.meter_id = ?", (meter_id,))
            if row is not None:
                books.meters[meter_id] = Meter(**row)

    def _load_stream(self, books: Books, key: StreamKey, seqs: set[int]) -> None:
        books.ranges[key] = load_ranges(self._tx, key, seqs)
        for seq in sorted(seqs):
            if not covers(books.ranges[key], seq):
                continue
            row = self._row(
                "SELECT line FROM meter_readings WHERE meter_id = ? AND epoch = ? AND seq = ?",
                (*key, seq),
            )
            if row is not None:
                books.lines[(*key, seq)] = row["line"]
        if key[0] not in books.meters:
            return
        self._load_meter(books, key)

    def _load_meter(self, books: Books, key: StreamKey) -> None:
        if last := load_last_slot(self._tx, key):
            books.last_slots[key] = last
        if key[0] not in books.windows:
            books.windows[key[0]] = load_windows(self._tx, key[0])
        if book := load_epoch(self._tx, key):
            books.epochs[key] = book
        if book or self._row(
            "SELECT 1 FROM meter_epochs WHERE meter_id = ? AND opened_at_ms >= ? LIMIT 1",
            (key[0], moved_at_ms(books, key[0])),
        ):
            books.meters_with_epochs.add(key[0])
        row = self._row(
            "SELECT seq, at_ms"
            " FROM meter_samples WHERE meter_id = ? AND epoch = ? ORDER BY seq DESC LIMIT 1",
            key,
        )
        if row is not None:
            books.sample_times[key] = (row["seq"], row["at_ms"])

    def save(self, changes: Changes) -> None:
        """See `IngestUnit.save`."""
        save_changes(self._tx, changes)


def lock_registry(tx: Connection, gateway_ids: Iterable[str], meter_ids: Iterable[str]) -> None:
    """Keep other writers off what hangs on these gateways and meters until the commit.

    Whoever moves a credit holds its meter, whoever stores a gateway's records holds the gateway.
    All take gateways before meters, each by name, so that no two wait for each other.
    """
    if not tx.dialect.locks_rows:
        return
    for table, column, names in (
        ("gateways", "gateway_id", gateway_ids),
        ("meters", "meter_id", meter_ids),
    ):
        # Table and column are literals of this module.
        tx.execute(
            f"SELECT 1 FROM {table} t JOIN {tx.dialect.rows('name')} k ON k.name = t.{column}"  # noqa: S608
            f" ORDER BY t.{column}{tx.dialect.row_lock('t')}",
            (json.dumps([[name] for name in sorted(set(names))]),),
        )


def load_ranges(tx: Connection, key: StreamKey, seqs: set[int]) -> Ranges:
    """Return the stored ranges that hold or touch one of *seqs*, ascending."""
    found: set[tuple[int, int]] = set()
    for low, high in _runs(sorted(seqs)):
        rows = tx.execute(
            "SELECT first_seq, last_seq FROM seq_ranges WHERE stream = ? AND epoch = ?"
            " AND first_seq <= ? ORDER BY first_seq DESC",
            (*key, high + 1),
        )
        for row in rows:
            if row["last_seq"] < low - 1:
                break
            found.add((row["first_seq"], row["last_seq"]))
    return tuple(sorted(found))


def _runs(seqs: list[int]) -> Iterator[tuple[int, int]]:
    low = high = seqs[0]
    for seq in seqs[1:]:
        if seq > high + 1:
            yield low, high
            low = seq
        high = seq
    yield low, high


def load_epoch(tx: Connection, key: StreamKey) -> EpochBook | None:
    """Return what is known of one epoch of a meter."""
    row = tx.execute(_EPOCH_SQL, key).fetchone()
    if row is None:
        return None
    if row["baseline_wh"] is None:
        return EpochBook(row["status"])
    span = Span(
        first=_mark(row, "f"),
        newest=_mark(row, "n"),
        baseline_wh=row["baseline_wh"],
        credited_through_wh=row["credited_through_wh"],
    )
    return EpochBook(row["status"], span)


def _mark(row: Row, which: str) -> Mark:
    return Mark(
        reading_id=row[f"{which}_reading_id"],
        seq=row[f"{which}_seq"],
        export_wh=row[f"{which}_export_wh"],
        boot_id=row[f"{which}_boot_id"],
        mono_ms=row[f"{which}_mono_ms"],
        not_before_ms=row[f"{which}_at_ms"],
        not_after_ms=row[f"{which}_at_ms"],
    )
