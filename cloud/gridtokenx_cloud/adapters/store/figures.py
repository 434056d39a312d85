"""What the store can be asked about the state of the work; cheap enough for every 15 seconds."""

from collections.abc import Iterator

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.metrics import Figure

_ONE_NUMBER = (
    (
        "unminted_readings",
        "Credits that are in no batch yet",
        "SELECT count(*) FROM meter_readings"
        " WHERE credit_wh > 0 AND minted = 0 AND batch_id IS NULL",
    ),
    (
        "held_readings",
        "Readings that wait for an operator's decision",
        "SELECT count(*) FROM meter_readings WHERE status = 'held'",
    ),
    (
        "mint_attempts_in_flight",
        "Signed transactions whose end is not known yet",
        "SELECT count(*) FROM mint_attempts WHERE outcome = 'pending'",
    ),
    (
        "energy_minted_wh_total",
        "Energy of all finalized mints, Wh",
        "SELECT COALESCE(SUM(total_wh), 0) FROM mint_batches WHERE state = 'final'",
    ),
    (
        "transaction_fees_lamports_total",
        "Fees of all finalized mints, lamports",
        "SELECT COALESCE(SUM(fee_lamports), 0) FROM mint_batches WHERE state = 'final'",
    ),
    (
        "disputed_batches",
        "Batches that a human must look at",
        "SELECT count(*) FROM mint_batches WHERE state = 'disputed'",
    ),
)
_OLDEST_UNMINTED = (
    "SELECT submitted_at_ms FROM meter_readings WHERE credit_wh > 0 AND minted = 0"
    " AND batch_id IS NULL ORDER BY submitted_at_ms LIMIT 1"
)
_RETRY_QUEUE = (
    "SELECT count(*) - count(parked_at_ms) AS waiting, count(parked_at_ms) AS parked"
    " FROM minting_retry_queue"
)


def store_figures(database: Database, now_ms: int) -> Iterator[Figure]:
    """Yield how much is done, and what waits for whom."""
    read = database.connection
    for name, meaning, query in _ONE_NUMBER:
        yield Figure(name, meaning, read.execute(query).fetchone()[0])
    oldest = read.execute(_OLDEST_UNMINTED).fetchone()
    yield Figure(
        "unminted_oldest_age_seconds",
        "Age of the oldest credit that is in no batch yet",
        max(0, now_ms - oldest["submitted_at_ms"]) // 1000 if oldest else 0,
    )
    queue = read.execute(_RETRY_QUEUE).fetchone()
    for state in ("waiting", "parked"):
        yield Figure(
            "minting_retry_queue",
            "Refused credits: waiting for their time, or parked for an operator",
            queue[state],
            {"state": state},
        )
