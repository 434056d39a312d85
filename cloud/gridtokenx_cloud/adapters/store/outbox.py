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
    for stream, events in sorted(of_stream.items()):
        row = tx.execute(
            "INSERT INTO event_streams (stream, epoch, last_offset) VALUES (?, ?, ?)"
            " ON CONFLICT (stream) DO UPDATE SET last_offset = last_offset + excluded.last_offset"
            " RETURNING last_offset, epoch",
            (stream, secrets.token_hex(8), len(events)),
        ).fetchone()
        epoch, first = row["epoch"], row["last_offset"] - len(events) + 1
        tx.executemany(
            "INSERT INTO events (stream, stream_offset, type, meter_id, body, created_at_ms)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            [
                (
                    stream,
                    offset,
                    event.type,
                    getattr(event, "meter_id", None),
                    with_id(body, f"{epoch}-{stream}-{offset}"),
                    at_ms,
                )
                for offset, (event, body) in enumerate(events, first)
            ],
        )


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
    last = tx.execute("SELECT hash FROM audit_log ORDER BY entry DESC LIMIT 1").fetchone()
    text = json.dumps(detail, sort_keys=True, separators=(",", ":"))
    chained = "\n".join([last["hash"] if last else "", str(at_ms), actor, action, subject, text])
    tx.execute(
        "INSERT INTO audit_log (at_ms, actor, action, subject, detail, hash)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (at_ms, actor, action, subject, text, hashlib.sha256(chained.encode()).hexdigest()),
    )
