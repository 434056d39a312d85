"""Append to the outbox and to the audit log, inside the caller's transaction."""

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping

from gridtokenx_cloud.adapters.store.database import Connection
from gridtokenx_cloud.events import MarketEvent, with_id, without_id


def append_event(tx: Connection, streams: Iterable[str], event: MarketEvent, at_ms: int) -> None:
    """Write *event* to each stream at its next gapless offset."""
    append_events(tx, [(streams, event)], at_ms)


def append_events(
    tx: Connection, told: Iterable[tuple[Iterable[str], MarketEvent]], at_ms: int
) -> None:
    """Write events in order, each to its streams at their next gapless offsets."""
    of_stream: dict[str, list[tuple[MarketEvent, str]]] = {}
    for streams, event in told:
        body = without_id(event, at_ms)
        for stream in streams:
            of_stream.setdefault(stream, []).append((event, body))
    if not of_stream:
        return
    only_writer(tx)
    taken = [(stream, secrets.token_hex(8), len(new)) for stream, new in sorted(of_stream.items())]
    heads = tx.execute(
        "INSERT INTO event_streams (stream, epoch, last_offset)"  # noqa: S608 - our own columns
        f" SELECT stream, epoch, events FROM {tx.dialect.rows('stream', 'epoch', '#events')} k"
        " WHERE true ON CONFLICT (stream) DO UPDATE"
        " SET last_offset = event_streams.last_offset + excluded.last_offset"
        " RETURNING stream, epoch, last_offset",
        (json.dumps(taken),),
    ).fetchall()
    rows: list[tuple[object, ...]] = []
    for stream, epoch, last_offset in sorted(tuple(head) for head in heads):
        events = of_stream[stream]
        for offset, (event, body) in enumerate(events, last_offset - len(events) + 1):
            named = with_id(body, f"{epoch}-{stream}-{offset}")
            meter_id = getattr(event, "meter_id", None)
            rows.append((stream, offset, event.type, meter_id, named, at_ms))
    tx.executemany(
        "INSERT INTO events (stream, stream_offset, type, meter_id, body, created_at_ms)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        rows,
    )


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
