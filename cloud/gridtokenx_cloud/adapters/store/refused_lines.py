"""Keep refused lines, each once however often it comes, inside the caller's transaction."""

from collections.abc import Iterable
from operator import itemgetter
from typing import Any

from gridtokenx_cloud.adapters.store.database import Connection, Row
from gridtokenx_cloud.adapters.store.stored_seqs import keyed_rows
from gridtokenx_cloud.ports.ingest import Changes, NewRejection

_DAY_MS = 86_400_000
_SAVE_REJECTION_SQL = """
INSERT INTO rejections (gateway_id, line_hash, line, code, reason, times, first_at_ms, last_at_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (gateway_id, line_hash) DO UPDATE SET
    times = rejections.times + excluded.times, code = excluded.code, reason = excluded.reason,
    last_at_ms = excluded.last_at_ms
"""
# Those that have not come before this commit.
_NEWS_SQL = """
SELECT r.gateway_id, r.line_hash FROM {keys} k JOIN rejections r
ON r.gateway_id = k.gateway AND r.line_hash = k.hash WHERE r.times = k.times
"""
_COUNT_FLOOD_SQL = """
INSERT INTO rejection_floods (gateway_id, day_ms, lines) VALUES (?, ?, ?)
ON CONFLICT (gateway_id, day_ms) DO UPDATE SET lines = rejection_floods.lines + excluded.lines
"""


def keep_refused(
    tx: Connection, changes: Changes
) -> tuple[dict[tuple[str, str], list[NewRejection]], Iterable[Row]]:
    """Keep each refused line once; return them by name, and the names of those that are news.

    The names are there once the statements have been answered; see `Connection.together`.
    """
    refused: dict[tuple[str, str], list[NewRejection]] = {}
    for new in changes.rejections:
        refused.setdefault((new.gateway_id, new.line_hash), []).append(new)
    for gateway_id, lines in sorted(changes.uncounted.items()):
        tx.execute(_COUNT_FLOOD_SQL, (gateway_id, changes.at_ms // _DAY_MS * _DAY_MS, lines))
    if not refused:
        return refused, ()
    ordered = sorted(refused.items(), key=itemgetter(0))
    tx.executemany(_SAVE_REJECTION_SQL, [_rejection(same, changes.at_ms) for _, same in ordered])
    counts = [(*name, len(same)) for name, same in ordered]
    return refused, keyed_rows(tx, _NEWS_SQL, ("gateway", "hash", "#times"), counts)


def _rejection(same: list[NewRejection], at_ms: int) -> tuple[Any, ...]:
    last = same[-1]
    fault = last.fault
    return (
        *(last.gateway_id, last.line_hash, last.line, fault.code, fault.reason),
        *(len(same), at_ms, at_ms),
    )
