"""Credits that a rule or the chain refused: when they are tried again, and who is told."""

from collections.abc import Sequence

from gridtokenx_cloud.adapters.store.database import Connection
from gridtokenx_cloud.adapters.store.outbox import append_event
from gridtokenx_cloud.events import (
    ADMIN_STREAM,
    MintingFailed,
    kwh_text,
    rfc3339,
    user_stream,
)
from gridtokenx_cloud.ports.mint import Refusal
from gridtokenx_cloud.tokenization import RetryPolicy, is_parked, retry_delay_s


def refuse_rows(
    tx: Connection,
    readings: Sequence[int],
    refusal: Refusal,
    policy: RetryPolicy,
    now_ms: int,
    batch_id: int | None,
) -> list[int]:
    """Queue each reading for its next try and tell its owner; return those that had enough."""
    parked: list[int] = []
    for reading_id in readings:
        known = tx.execute(
            "SELECT attempts FROM minting_retry_queue WHERE reading_id = ?", (reading_id,)
        ).fetchone()
        attempts = 1 + (known["attempts"] if known else 0)
        due_ms: int | None = now_ms + 1000 * retry_delay_s(attempts, policy)
        tx.execute(
            "INSERT INTO minting_retry_queue (reading_id, error_code, error_message, attempts,"
            " next_retry_at_ms, parked_at_ms, created_at_ms, updated_at_ms)"
            " VALUES (:reading, :code, :reason, :attempts, :due, :parked, :now, :now)"
            " ON CONFLICT (reading_id) DO UPDATE SET error_code = excluded.error_code,"
            " error_message = excluded.error_message, attempts = excluded.attempts,"
            " next_retry_at_ms = excluded.next_retry_at_ms,"
            " parked_at_ms = excluded.parked_at_ms, updated_at_ms = excluded.updated_at_ms",
            {
                "reading": reading_id,
                "code": refusal.code,
                "reason": refusal.reason,
                "attempts": attempts,
                "due": due_ms,
                "parked": now_ms if is_parked(attempts, policy) else None,
                "now": now_ms,
            },
        )
        if is_parked(attempts, policy):
            parked.append(reading_id)
            due_ms = None
        event = _failure(tx, reading_id, refusal, batch_id, attempts - 1, due_ms)
        append_event(tx, (user_stream(event.user_id), ADMIN_STREAM), event, now_ms)
    return parked


def _failure(
    tx: Connection,
    reading_id: int,
    refusal: Refusal,
    batch_id: int | None,
    retry_count: int,
    due_ms: int | None,
) -> MintingFailed:
    row = tx.execute("SELECT * FROM mint_queue WHERE reading_id = ?", (reading_id,)).fetchone()
    return MintingFailed(
        reading_id=reading_id,
        batch_id=batch_id,
        user_id=row["user_id"],
        wallet_address=row["wallet_address"],
        meter_id=row["meter_id"],
        kwh_amount=kwh_text(row["credit_wh"]),
        error_code=refusal.code,
        error_reason=refusal.reason,
        retry_count=retry_count,
        next_retry_at=None if due_ms is None else rfc3339(due_ms),
    )
