"""What the ledger and the chain say now; reads only."""

import sqlite3
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class MeterBooks:
    """One meter in the ledger."""

    readings: int
    credited_wh: int
    newest_export_wh: int | None
    active_power_w: int | None


@dataclass(frozen=True)
class Books:
    """The ledger at one moment."""

    readings_accepted: int = 0
    held: int = 0
    rejected: int = 0
    credited_wh: int = 0
    minted_wh: int = 0
    waiting: int = 0
    """Readings with a credit that no finalized mint covers yet."""
    live_batches: int = 0
    transactions: int = 0
    last_signature: str | None = None
    base_units: dict[str, int] = field(default_factory=dict)
    meters: dict[str, MeterBooks] = field(default_factory=dict)

    @property
    def settled(self) -> bool:
        return self.waiting == 0 and self.live_batches == 0


_TOTALS = """
SELECT count(*) FILTER (WHERE status IN ('accepted', 'late')) AS accepted,
       count(*) FILTER (WHERE status = 'held') AS held,
       coalesce(sum(credit_wh), 0) AS credited_wh,
       coalesce(sum(credit_wh) FILTER (WHERE minted = 1), 0) AS minted_wh,
       count(*) FILTER (WHERE credit_wh > 0 AND minted = 0) AS waiting
FROM meter_readings
"""
_METERS = """
SELECT m.meter_id, l.active_power_w,
       (SELECT count(*) FROM meter_readings r WHERE r.meter_id = m.meter_id) AS readings,
       (SELECT coalesce(sum(credit_wh), 0) FROM meter_readings r
        WHERE r.meter_id = m.meter_id) AS credited_wh,
       (SELECT export_wh FROM meter_readings r WHERE r.meter_id = m.meter_id
        AND r.status IN ('accepted', 'late') ORDER BY seq DESC LIMIT 1) AS export_wh
FROM meters m LEFT JOIN meter_live l USING (meter_id)
"""
_OWNERS = """
SELECT u.user_id, coalesce(sum(i.amount_base_units), 0) AS base_units
FROM users u
LEFT JOIN mint_items i ON i.user_id = u.user_id AND i.held_reason IS NULL
     AND i.batch_id IN (SELECT batch_id FROM mint_batches WHERE state = 'final')
GROUP BY u.user_id
"""


def read_books(database: Path) -> Books:
    """Read the ledger without ever keeping its writer waiting."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("BEGIN")
        totals = connection.execute(_TOTALS).fetchone()
        batches = connection.execute(
            "SELECT count(*) FILTER (WHERE state = 'final') AS final,"
            " count(*) FILTER (WHERE state IN ('sealed', 'signed', 'in_flight')) AS live"
            " FROM mint_batches"
        ).fetchone()
        last = connection.execute(
            "SELECT signature FROM mint_batches WHERE state = 'final'"
            " ORDER BY final_at_ms DESC LIMIT 1"
        ).fetchone()
        rejected = connection.execute("SELECT count(*) FROM rejections").fetchone()[0]
        owners = connection.execute(_OWNERS).fetchall()
        meters = connection.execute(_METERS).fetchall()
    finally:
        connection.close()
    return Books(
        readings_accepted=totals["accepted"],
        held=totals["held"],
        rejected=rejected,
        credited_wh=totals["credited_wh"],
        minted_wh=totals["minted_wh"],
        waiting=totals["waiting"],
        live_batches=batches["live"],
        transactions=batches["final"],
        last_signature=last["signature"] if last else None,
        base_units={row["user_id"]: row["base_units"] for row in owners},
        meters={
            row["meter_id"]: MeterBooks(
                readings=row["readings"],
                credited_wh=row["credited_wh"],
                newest_export_wh=row["export_wh"],
                active_power_w=row["active_power_w"],
            )
            for row in meters
        },
    )


def buffer_depth(database: Path) -> int | None:
    """Return how many rows wait in an agent's buffer, None before there is one."""
    if not database.exists():
        return None
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)
    try:
        depth: int = connection.execute("SELECT count(*) FROM outbox").fetchone()[0]
    except sqlite3.OperationalError:
        return None
    finally:
        connection.close()
    return depth
