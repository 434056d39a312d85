"""What a check before minting asks the store; one moment, no lock."""

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.foreign_mints import foreign_base_units
from gridtokenx_cloud.ports.upkeep import Books

_DAY_MS = 86_400_000


def read_books(database: Database, now_ms: int) -> Books:
    """Return the sums, the first mint and the lookup tables on record."""
    with database.snapshot() as read:
        sums = read.execute(
            "SELECT COALESCE(SUM(CASE WHEN state = 'final' THEN total_base_units END), 0) AS final,"
            " COALESCE(SUM(CASE WHEN state NOT IN ('final', 'void') THEN total_base_units END), 0)"
            " AS live FROM mint_batches"
        ).fetchone()
        day = read.execute(
            "SELECT count(*) AS mints, COALESCE(SUM(fee_lamports), 0) AS lamports"
            " FROM mint_batches WHERE state = 'final' AND final_at_ms >= ?",
            (now_ms - _DAY_MS,),
        ).fetchone()
        first = read.execute(
            "SELECT signature FROM mint_batches WHERE state = 'final' ORDER BY batch_id LIMIT 1"
        ).fetchone()
        foreign = foreign_base_units(read)
        tables = read.execute(
            "SELECT address FROM lookup_tables WHERE state = 'active' ORDER BY address"
        ).fetchall()
    return Books(
        minted_base_units=int(sums["final"]),
        open_base_units=int(sums["live"]),
        oldest_signature=first["signature"] if first else None,
        day_lamports=int(day["lamports"]),
        day_transactions=day["mints"],
        tables=tuple(row["address"] for row in tables),
        foreign_base_units=foreign,
    )
