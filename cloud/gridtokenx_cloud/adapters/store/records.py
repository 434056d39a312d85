"""What operators look at: the state of the work, the audit log, the API tokens."""

import json

from gridtokenx_cloud.adapters.store.access import SqlAccess
from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.outbox import append_audit, chained_hash
from gridtokenx_cloud.adapters.store.reading import reading
from gridtokenx_cloud.events import rfc3339
from gridtokenx_cloud.ports.common import Clock

_LAST_BATCHES = 10
_DAY_S = 86_400
_UNMINTED_SQL = """
SELECT count(*) AS readings, coalesce(sum(credit_wh), 0) AS wh, min(submitted_at_ms) AS oldest_ms
FROM meter_readings WHERE credit_wh > 0 AND minted = 0 AND batch_id IS NULL
"""
_RETRIES_SQL = """
SELECT count(*) - count(parked_at_ms) AS waiting, count(parked_at_ms) AS parked
FROM minting_retry_queue
"""
_BATCHES_SQL = """
SELECT batch_id, state, total_wh, leaf_count, sealed_at_ms, final_at_ms, signature
FROM mint_batches ORDER BY batch_id DESC LIMIT ?
"""
_HELD_SQL = """
SELECT reason, count(*) AS readings FROM meter_readings WHERE status = 'held' GROUP BY reason
"""
# Two halves, so that each finds its partial index: in no batch yet, and in one on its way.
_UNMINTED_METERS_SQL = """
SELECT w.meter_id, w.user_id, sum(w.credit_wh) AS credit_wh, min(w.submitted_at_ms) AS oldest_at_ms,
    sum(w.in_batch) AS in_batch, count(q.parked_at_ms) AS parked,
    count(q.reading_id) - count(q.parked_at_ms) AS retrying,
    count(*) - sum(w.in_batch) - count(q.reading_id) AS free,
    min(q.error_code) AS first_error, max(q.error_code) AS last_error,
    (SELECT coalesce(sum(o.credit_wh), 0) FROM mint_queue o WHERE o.user_id = w.user_id) AS owner_wh
FROM (
    SELECT reading_id, meter_id, user_id, credit_wh, submitted_at_ms, 0 AS in_batch
    FROM meter_readings WHERE credit_wh > 0 AND minted = 0 AND batch_id IS NULL
    UNION ALL
    SELECT r.reading_id, r.meter_id, r.user_id, r.credit_wh, r.submitted_at_ms, 1
    FROM mint_batches b JOIN meter_readings r USING (batch_id)
    WHERE b.state <> 'final' AND r.credit_wh > 0 AND r.minted = 0) w
LEFT JOIN minting_retry_queue q ON q.reading_id = w.reading_id AND w.in_batch = 0
WHERE (w.meter_id, w.user_id) > (?, ?)
GROUP BY w.meter_id, w.user_id ORDER BY w.meter_id, w.user_id LIMIT ?
"""
_AUDIT_SQL = """
SELECT entry, at_ms, actor, action, subject, detail, hash FROM audit_log
WHERE entry < ? ORDER BY entry DESC LIMIT ?
"""
_CHAIN_SQL = """
SELECT entry, at_ms, actor, action, subject, detail, hash FROM audit_log ORDER BY entry
"""
_BEYOND_EVERY_ENTRY = 2**62


class SqlRecords:
    """Reads, but for notes of deeds that change nothing else."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def status(self) -> dict[str, object]:
        """See `Records.status`."""
        with reading(self._database) as connection:
            unminted = connection.execute(_UNMINTED_SQL).fetchone()
            retries = connection.execute(_RETRIES_SQL).fetchone()
            held = connection.execute(_HELD_SQL).fetchall()
            batches = connection.execute(_BATCHES_SQL, (_LAST_BATCHES,)).fetchall()
        oldest_ms = unminted["oldest_ms"]
        age_ms = 0 if oldest_ms is None else max(0, self._clock.now_ms() - oldest_ms)
        return {
            "unminted_readings": unminted["readings"],
            "unminted_wh": int(unminted["wh"]),
            "unminted_oldest_age_s": age_ms // 1000,
            "retries_waiting": retries["waiting"],
            "retries_parked": retries["parked"],
            "held_readings": {row["reason"]: row["readings"] for row in held},
            "last_batches": [
                {
                    "batch_id": row["batch_id"],
                    "state": row["state"],
                    "readings": row["leaf_count"],
                    "total_wh": row["total_wh"],
                    "sealed_at": rfc3339(row["sealed_at_ms"]),
                    "final_at": rfc3339(row["final_at_ms"]) if row["final_at_ms"] else None,
                    "transaction_signature": row["signature"],
                }
                for row in batches
            ],
        }

    def unminted(self, behind: tuple[str, str], limit: int) -> list[dict[str, object]]:
        """See `Records.unminted`."""
        with reading(self._database) as connection:
            rows = connection.execute(_UNMINTED_METERS_SQL, (*behind, limit)).fetchall()
        found = []
        for row in rows:
            values = dict(row)
            codes = {values.pop("first_error"), values.pop("last_error")} - {None}
            found.append(values | {"errors": sorted(codes)})
        return found

    def note(self, actor: str, action: str, subject: str) -> None:
        """See `Records.note`."""
        with self._database.transaction() as tx:
            at_ms = self._clock.now_ms()
            append_audit(tx, at_ms=at_ms, actor=actor, action=action, subject=subject, detail={})

    def audit_page(self, before: int | None, limit: int) -> list[dict[str, object]]:
        """See `Records.audit_page`."""
        behind = _BEYOND_EVERY_ENTRY if before is None else before
        with reading(self._database) as connection:
            rows = connection.execute(_AUDIT_SQL, (behind, limit)).fetchall()
        return [
            {
                "entry": row["entry"],
                "at": rfc3339(row["at_ms"]),
                "actor": row["actor"],
                "action": row["action"],
                "subject": row["subject"],
                "detail": json.loads(row["detail"]),
                "hash": row["hash"],
            }
            for row in rows
        ]

    def broken_audit_entry(self) -> int | None:
        """Return the first audit entry whose hash does not cover it and those before; None = whole.

        Entries cut off at the end do not show: compare the last hash with one noted elsewhere.
        """
        before = ""
        with reading(self._database) as connection:
            for row in connection.execute(_CHAIN_SQL):
                fields = (row[name] for name in ("actor", "action", "subject", "detail"))
                if row["hash"] != chained_hash(before, row["at_ms"], *fields):
                    return int(row["entry"])
                before = row["hash"]
        return None


class SqlApiTokens:
    """`ApiTokens` over the access tables, for one operator."""

    def __init__(self, access: SqlAccess, *, actor: str) -> None:
        self._access = access
        self._actor = actor

    def rows(self) -> list[dict[str, object]]:
        """See `ApiTokens.rows`."""
        return [
            {
                "label": token.label,
                "role": token.role,
                "user_id": token.user_id,
                "created_at": rfc3339(token.created_at_ms),
                "expires_at": rfc3339(token.expires_at_ms) if token.expires_at_ms else None,
                "revoked_at": rfc3339(token.revoked_at_ms) if token.revoked_at_ms else None,
            }
            for token in self._access.list_tokens()
        ]

    def create(self, label: str, role: str, user_id: str | None, days: int | None) -> str:
        """See `ApiTokens.create`."""
        ttl_s = None if days is None else days * _DAY_S
        return self._access.create_token(label, role, user_id, ttl_s, self._actor)

    def revoke(self, label: str) -> None:
        """See `ApiTokens.revoke`."""
        self._access.revoke_token(label, self._actor)
