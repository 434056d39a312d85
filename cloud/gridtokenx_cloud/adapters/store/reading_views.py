"""One reading, one batch, and the energy of a meter by hour, day or month."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from gridtokenx_cloud.adapters.store.database import Database, Row
from gridtokenx_cloud.adapters.store.reading import reading
from gridtokenx_cloud.events import rfc3339
from gridtokenx_cloud.ports.api import (
    BatchView,
    Energy,
    MintingState,
    MintingStatus,
    Period,
    Recipient,
)

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS

_STATUS = """
    SELECT r.reading_id, r.status, r.reason, r.credit_wh, r.minted, r.batch_id,
        b.state AS batch_state, r.mint_tx_signature, q.error_code, q.error_message,
        q.attempts, q.next_retry_at_ms, q.parked_at_ms
    FROM meter_readings r
    LEFT JOIN mint_batches b USING (batch_id)
    LEFT JOIN minting_retry_queue q ON q.reading_id = r.reading_id
    WHERE r.reading_id = :reading AND (:user IS NULL OR r.user_id = :user)
"""
_BATCH = "SELECT * FROM mint_batches WHERE batch_id = ?"
_ITEMS = """
    SELECT user_id, wallet, credit_wh, amount_base_units, held_reason FROM mint_items
    WHERE batch_id = :batch AND (:user IS NULL OR user_id = :user) ORDER BY wallet
"""
_ENERGY = """
    SELECT epoch, at_ms / :width AS period, min(import_wh) AS first_import,
        max(import_wh) AS last_import, min(export_wh) AS first_export,
        max(export_wh) AS last_export, sum(credit_wh) AS credit_wh, count(*) AS readings
    FROM meter_readings
    WHERE meter_id = :meter AND (:user IS NULL OR user_id = :user)
        AND status IN ('accepted', 'late') AND at_ms >= :since AND at_ms < :until
    GROUP BY epoch, at_ms / :width ORDER BY epoch, at_ms / :width
"""
# Registers only rise within an epoch: what stood before is where the first period begins.
_BEFORE = """
    SELECT epoch, import_wh, export_wh FROM meter_readings
    WHERE meter_id = :meter AND (:user IS NULL OR user_id = :user)
        AND status IN ('accepted', 'late') AND at_ms < :since
    ORDER BY at_ms DESC LIMIT 1
"""
_OWNS = "SELECT 1 FROM meters WHERE meter_id = :meter AND (:user IS NULL OR user_id = :user)"


class SqlReadingViews:
    """Part of `Views`; *user_id* None = everybody's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def minting_status(self, reading_id: int, user_id: str | None) -> MintingStatus | None:
        """See `Views.minting_status`."""
        values = {"reading": reading_id, "user": user_id}
        with reading(self._database) as connection:
            row = connection.execute(_STATUS, values).fetchone()
        return None if row is None else _minting_status(row)

    def batch(self, batch_id: int, user_id: str | None) -> BatchView | None:
        """See `Views.batch`."""
        with reading(self._database) as connection:
            row = connection.execute(_BATCH, (batch_id,)).fetchone()
            items = connection.execute(_ITEMS, {"batch": batch_id, "user": user_id}).fetchall()
        if row is None or (user_id is not None and not items):
            return None
        return _batch(row, items)

    def energy(
        self, meter_id: str, user_id: str | None, period: Period, since_ms: int, until_ms: int
    ) -> list[Energy] | None:
        """See `Views.energy`."""
        values = {"meter": meter_id, "user": user_id, "since": since_ms, "until": until_ms}
        width = _HOUR_MS if period == "hour" else _DAY_MS
        with reading(self._database) as connection:
            if connection.execute(_OWNS, {"meter": meter_id, "user": user_id}).fetchone() is None:
                return None
            before = connection.execute(
                _BEFORE, {"meter": meter_id, "user": user_id, "since": since_ms}
            ).fetchone()
            rows = connection.execute(_ENERGY, values | {"width": width}).fetchall()
        return _summed(_rises(rows, before, width), period)


def _minting_status(row: Row) -> MintingStatus:
    parked = row["parked_at_ms"] is not None
    waits = row["batch_id"] is None and row["error_code"] is not None
    return MintingStatus(
        reading_id=row["reading_id"],
        status=_status(row),
        credit_wh=row["credit_wh"],
        batch_id=row["batch_id"],
        batch_state=row["batch_state"],
        transaction_signature=row["mint_tx_signature"],
        error_code=row["error_code"] if waits else row["reason"],
        error_reason=row["error_message"] if waits else None,
        attempts=row["attempts"] if waits else None,
        next_retry_at=rfc3339(row["next_retry_at_ms"]) if waits and not parked else None,
    )


def _status(row: Row) -> MintingState:
    if row["minted"]:
        return "minted"
    if row["status"] == "held":
        return "held"
    if row["credit_wh"] == 0:
        return "nothing_to_mint"
    if row["batch_id"] is not None:
        return "processing"
    return "pending" if row["error_code"] is None else "failed"


def _batch(row: Row, items: Iterable[Row]) -> BatchView:
    return BatchView(
        batch_id=row["batch_id"],
        state=row["state"],
        readings=row["leaf_count"],
        total_wh=row["total_wh"],
        total_base_units=str(row["total_base_units"]),
        memo=row["memo"],
        merkle_root=bytes(row["merkle_root"]).hex(),
        transaction_signature=row["signature"],
        slot=row["slot"],
        fee_lamports=row["fee_lamports"],
        sealed_at=rfc3339(row["sealed_at_ms"]),
        final_at=rfc3339(row["final_at_ms"]) if row["final_at_ms"] is not None else None,
        recipients=tuple(
            Recipient(
                user_id=item["user_id"],
                wallet=item["wallet"],
                credit_wh=item["credit_wh"],
                amount_base_units=str(item["amount_base_units"]),
                held_reason=item["held_reason"],
            )
            for item in items
        ),
    )


def _rises(rows: Iterable[Row], before: Row | None, width: int) -> Iterator[tuple[int, Energy]]:
    """Yield the start of each period, and what the registers of one epoch rose in it."""
    stood: dict[str, tuple[int, int]] = {}
    if before is not None:
        stood[before["epoch"]] = (before["import_wh"], before["export_wh"])
    for row in rows:
        first = (row["first_import"], row["first_export"])
        import_wh, export_wh = stood.get(row["epoch"], first)
        start_ms = row["period"] * width
        yield (
            start_ms,
            Energy(
                start=rfc3339(start_ms),
                import_wh=row["last_import"] - import_wh,
                export_wh=row["last_export"] - export_wh,
                credit_wh=int(row["credit_wh"]),
                readings=row["readings"],
            ),
        )
        stood[row["epoch"]] = (row["last_import"], row["last_export"])


def _summed(rises: Iterable[tuple[int, Energy]], period: Period) -> list[Energy]:
    """Add up the epochs, and the days of a month; the oldest period first."""
    sums: dict[int, Energy] = {}
    for start_ms, one in rises:
        key = _month_ms(start_ms) if period == "month" else start_ms
        known = sums.get(key, Energy(rfc3339(key), 0, 0, 0, 0))
        sums[key] = Energy(
            known.start,
            known.import_wh + one.import_wh,
            known.export_wh + one.export_wh,
            known.credit_wh + one.credit_wh,
            known.readings + one.readings,
        )
    return [sums[key] for key in sorted(sums)]


def _month_ms(at_ms: int) -> int:
    day = datetime.fromtimestamp(at_ms / 1000, UTC)
    return int(datetime(day.year, day.month, 1, tzinfo=UTC).timestamp()) * 1000
