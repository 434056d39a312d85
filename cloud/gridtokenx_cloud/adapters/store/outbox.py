"""Append to the outbox and to the audit log, inside the caller's transaction."""

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from gridtokenx_cloud.adapters.store.database import Connection
from gridtokenx_cloud.adapters.store.reading_runs import Run, runs_of
from gridtokenx_cloud.events import (
    ADMIN_STREAM,
    MarketEvent,
    MeterReadingReceived,
    user_stream,
    without_id,
)
from gridtokenx_cloud.ports.ingest import NewReading


def append_event(tx: Connection, streams: Iterable[str], event: MarketEvent, at_ms: int) -> None:
    """Write *event* to each stream at its next gapless offset."""
    append_events(tx, [(streams, event)], at_ms)


class _Entry(NamedTuple):
    """What becomes a row: *length* events in each of its streams."""

    streams: tuple[str, ...]
    type: str
    meter_id: str | None
    body: str
    length: int = 1


def append_events(
    tx: Connection,
    told: Iterable[tuple[Iterable[str], MarketEvent]],
    at_ms: int,
    readings: Iterable[NewReading] = (),
) -> None:
    """Write events in order, each at the next gapless offset of its streams.

    That a reading came is told before anything else. One row tells an owner and the staff, and
    many readings of a meter; `SqlEventStore` makes all their events of it again.
    """
    entries = [_entry_of_run(run) for run in runs_of(readings)]
    entries += [_entry(tuple(streams), event, at_ms) for streams, event in told]
    if not entries:
        return
    free = _take_offsets(tx, entries)
    rows: list[tuple[object, ...]] = []
    for streams, name, meter_id, body, length in entries:
        places = {stream: free[stream] for stream in streams}
        free.update({stream: offset + length for stream, offset in places.items()})
        admin_offset = places.pop(ADMIN_STREAM, None)
        if not places and admin_offset is not None:
            places[ADMIN_STREAM] = admin_offset
        for stream, offset in places.items():
            rows.append((stream, offset, admin_offset, length, name, meter_id, body, at_ms))
            admin_offset = None
    tx.executemany(
        "INSERT INTO events (stream, stream_offset, admin_offset, run_length, type, meter_id,"
        " body, created_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )


def _entry_of_run(run: Run) -> _Entry:
    meter = run.meter
    return _Entry(
        (user_stream(meter.user_id), ADMIN_STREAM),
        MeterReadingReceived.type,
        meter.meter_id,
        run.body(),
        len(run.readings),
    )


def _entry(streams: tuple[str, ...], event: MarketEvent, at_ms: int) -> _Entry:
    return _Entry(streams, event.type, getattr(event, "meter_id", None), without_id(event, at_ms))


def _take_offsets(tx: Connection, entries: Iterable[_Entry]) -> dict[str, int]:
    """Move the heads of streams on; return the first offset of each, ours as the only writer."""
    counts: dict[str, int] = {}
    for entry in entries:
        for stream in entry.streams:
            counts[stream] = counts.get(stream, 0) + entry.length
    taken = [(stream, secrets.token_hex(8), new) for stream, new in sorted(counts.items())]
    with tx.together():
        only_writer(tx)
        heads = tx.execute(
            "INSERT INTO event_streams (stream, epoch, last_offset)"  # noqa: S608 - our own columns
            f" SELECT stream, epoch, events FROM {tx.dialect.rows('stream', 'epoch', '#events')} k"
            " WHERE true ON CONFLICT (stream) DO UPDATE"
            " SET last_offset = event_streams.last_offset + excluded.last_offset"
            " RETURNING stream, last_offset",
            (json.dumps(taken),),
        )
    return {stream: last_offset - counts[stream] + 1 for stream, last_offset in heads}


def only_writer(tx: Connection) -> None:
    """Wait until no other transaction is writing events or audit entries.

    Numbers are then given out in the order of the commits, so that nobody who reads on from a
    number misses a smaller one; and each audit entry covers the one before it. Taken last in every
    transaction: who holds it waits for nobody.
    """
    if tx.dialect.journal_lock:
        tx.execute(tx.dialect.journal_lock)


def append_audit(
    tx: Connection,
    *,
    at_ms: int,
    actor: str,
    action: str,
    subject: str,
    detail: Mapping[str, object],
) -> None:
    """Write one audit entry; each hash covers the one before it, so a cut or a change shows."""
    only_writer(tx)
    last = tx.execute("SELECT hash FROM audit_log ORDER BY entry DESC LIMIT 1").fetchone()
    text = json.dumps(detail, sort_keys=True, separators=(",", ":"))
    hashed = chained_hash(last["hash"] if last else "", at_ms, actor, action, subject, text)
    tx.execute(
        "INSERT INTO audit_log (at_ms, actor, action, subject, detail, hash)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (at_ms, actor, action, subject, text, hashed),
    )


def chained_hash(
    before: str, at_ms: int, actor: str, action: str, subject: str, detail: str
) -> str:
    """Return the hash of an audit entry that follows the one whose hash is *before*."""
    chained = "\n".join([before, str(at_ms), actor, action, subject, detail])
    return hashlib.sha256(chained.encode()).hexdigest()
