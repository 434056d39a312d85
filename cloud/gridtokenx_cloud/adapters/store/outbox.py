"""Append to the outbox and to the audit log, inside the caller's transaction."""

import hashlib
import json
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from gridtokenx_cloud.adapters.store.database import Connection
from gridtokenx_cloud.events import ADMIN_STREAM, MarketEvent, user_stream, without_id
from gridtokenx_cloud.ports.ingest import NewReading
from gridtokenx_cloud.reading_events import received_event


def append_event(tx: Connection, streams: Iterable[str], event: MarketEvent, at_ms: int) -> None:
    """Write *event* to each stream at its next gapless offset."""
    append_events(tx, [(streams, event)], at_ms)


def append_events(
    tx: Connection,
    told: Iterable[tuple[Iterable[str], MarketEvent]],
    at_ms: int,
    readings: Sequence[NewReading] = (),
) -> None:
    """Write events in order, each at the next gapless offset of its streams.

    That a reading came is told before anything else. One row tells an owner and the staff;
    `SqlEventStore` makes two of it again.
    """
    named: list[tuple[tuple[str, ...], MarketEvent]] = [_received(new) for new in readings]
    named += [(tuple(streams), event) for streams, event in told]
    counts = Counter(stream for streams, _ in named for stream in streams)
    if not counts:
        return
    only_writer(tx)
    offsets = _take_offsets(tx, counts)
    rows: list[tuple[object, ...]] = []
    for streams, event in named:
        places = {stream: next(offsets[stream]) for stream in streams}
        admin_offset = places.pop(ADMIN_STREAM, None)
        if not places and admin_offset is not None:
            places[ADMIN_STREAM] = admin_offset
        body, meter_id = without_id(event, at_ms), getattr(event, "meter_id", None)
        for stream, offset in places.items():
            rows.append((stream, offset, admin_offset, event.type, meter_id, body, at_ms))
            admin_offset = None
    tx.executemany(
        "INSERT INTO events (stream, stream_offset, admin_offset, type, meter_id, body,"
        " created_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
        rows,
    )


def _received(new: NewReading) -> tuple[tuple[str, ...], MarketEvent]:
    event = received_event(
        new.meter, new.slot, new.reading_id, new.dated_ms, new.status, new.credit_wh
    )
    return (user_stream(new.meter.user_id), ADMIN_STREAM), event


def _take_offsets(tx: Connection, counts: Mapping[str, int]) -> dict[str, Iterator[int]]:
    """Move the heads of streams on; return the offsets that are ours now."""
    taken = [(stream, secrets.token_hex(8), new) for stream, new in sorted(counts.items())]
    heads = tx.execute(
        "INSERT INTO event_streams (stream, epoch, last_offset)"  # noqa: S608 - our own columns
        f" SELECT stream, epoch, events FROM {tx.dialect.rows('stream', 'epoch', '#events')} k"
        " WHERE true ON CONFLICT (stream) DO UPDATE"
        " SET last_offset = event_streams.last_offset + excluded.last_offset"
        " RETURNING stream, last_offset",
        (json.dumps(taken),),
    ).fetchall()
    return {
        stream: iter(range(last_offset - counts[stream] + 1, last_offset + 1))
        for stream, last_offset in heads
    }


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
