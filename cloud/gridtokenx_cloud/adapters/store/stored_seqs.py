"""Which seq of each stream are stored, and the lines stored under them."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gridtokenx_cloud.adapters.store.database import Connection, Result
from gridtokenx_cloud.ledger import covers
from gridtokenx_cloud.ports.ingest import Books, Identity, StreamKey
from gridtokenx_wire.receipt import Ranges

# Ranges do not overlap: of those that begin before the asked for only the last one can reach it.
_RANGES_SQL = """
SELECT r.stream, r.epoch, r.first_seq, r.last_seq
FROM {keys} k JOIN seq_ranges r ON r.stream = k.stream AND r.epoch = k.epoch
     AND r.first_seq <= k.high AND r.first_seq >= coalesce(
         (SELECT max(p.first_seq) FROM seq_ranges p
          WHERE p.stream = k.stream AND p.epoch = k.epoch AND p.first_seq <= k.low), k.low)
WHERE r.last_seq >= k.low
"""
_LINES_SQL = """
SELECT r.meter_id, r.epoch, r.seq, r.line FROM {keys} k JOIN meter_readings r
     ON r.meter_id = k.stream AND r.at_ms = k.at_ms AND r.seq = k.seq AND r.epoch = k.epoch
"""
# Looks through all that a meter's index has.
_LINES_OF_ANY_TIME_SQL = """
SELECT r.meter_id, r.epoch, r.seq, r.line FROM {keys} k
JOIN meter_readings r ON r.meter_id = k.stream AND r.seq BETWEEN k.low AND k.high
"""
# Their lines have left for the archive, where they can't be compared with.
_ARCHIVED_SQL = """
SELECT k.stream, k.epoch, k.seq FROM {keys} k JOIN meter_epochs e
     ON e.meter_id = k.stream AND e.epoch = k.epoch AND e.archived_through_seq >= k.seq
"""


def keyed_rows(
    tx: Connection, sql: str, columns: tuple[str, ...], keys: Iterable[tuple[Any, ...]]
) -> Result:
    """Run *sql* with a table of these *keys* in it."""
    return tx.execute(sql.format(keys=tx.dialect.rows(*columns)), (json.dumps(list(keys)),))


def look_up_by_index(tx: Connection) -> None:
    """Keep the database from reading a whole table for a few rows of it, up to the commit."""
    if tx.dialect.by_index:
        tx.execute(tx.dialect.by_index)


def ask_ranges(tx: Connection, touched: Mapping[StreamKey, set[int]]) -> Result:
    """Ask, for each stream, for the stored ranges that hold or touch one of its `seq`."""
    asked = [
        (*key, low - 1, high + 1)
        for key, seqs in sorted(touched.items())
        for low, high in _runs(sorted(seqs))
    ]
    return keyed_rows(tx, _RANGES_SQL, ("stream", "epoch", "#low", "#high"), asked)


def ranges_of(rows: Result, touched: Iterable[StreamKey]) -> dict[StreamKey, Ranges]:
    """Return what `ask_ranges` found, ascending, for each stream."""
    found: dict[StreamKey, set[tuple[int, int]]] = {key: set() for key in touched}
    for stream, epoch, first, last in rows.fetchall():
        found[stream, epoch].add((first, last))
    return {key: tuple(sorted(ranges)) for key, ranges in found.items()}


def _runs(seqs: list[int]) -> Iterator[tuple[int, int]]:
    low = high = seqs[0]
    for seq in seqs[1:]:
        if seq > high + 1:
            yield low, high
            low = seq
        high = seq
    yield low, high


def load_lines(tx: Connection, books: Books, identities: Iterable[Identity]) -> None:
    """Load what is stored under these names.

    A line that comes again has the time of the stored one, by which it is found. Of other lines
    under a stored name, and of lines without a time, there are few.
    """
    again = {(i.key, i.seq, i.told_ms) for i in identities if covers(books.ranges[i.key], i.seq)}
    told = sorted((*key, seq, told_ms) for key, seq, told_ms in again if told_ms is not None)
    if told:
        for row in keyed_rows(tx, _LINES_SQL, ("stream", "epoch", "#seq", "#at_ms"), told):
            books.lines[row["meter_id"], row["epoch"], row["seq"]] = row["line"]
    gone = _not_found(books, again)
    if gone:
        asked: dict[str, set[int]] = defaultdict(set)
        for stream, _, seq in gone:
            asked[stream].add(seq)
        runs = [(name, *run) for name, seqs in asked.items() for run in _runs(sorted(seqs))]
        look_up_by_index(tx)
        for row in keyed_rows(tx, _LINES_OF_ANY_TIME_SQL, ("stream", "#low", "#high"), runs):
            books.lines[row["meter_id"], row["epoch"], row["seq"]] = row["line"]
    if gone := _not_found(books, again):
        found = keyed_rows(tx, _ARCHIVED_SQL, ("stream", "epoch", "#seq"), gone)
        books.archived = {(row["stream"], row["epoch"], row["seq"]) for row in found}


def _not_found(
    books: Books, again: Iterable[tuple[StreamKey, int, int | None]]
) -> list[tuple[str, str, int]]:
    return sorted({(*key, seq) for key, seq, _ in again} - books.lines.keys())
