"""Read what the registry says of meters that moved and keys that were replaced."""

import json
from collections.abc import Iterable, Iterator

from gridtokenx_cloud.adapters.store.database import Connection, Row
from gridtokenx_cloud.ports.ingest import Books
from gridtokenx_cloud.tenure import Ownership, Tenure

_MOST_FORMER_KEYS = 4
TENURE_COLUMNS = "gateway_id, from_ms, until_ms, moved_at_ms"
_TENURES_SQL = """
SELECT meter_id, gateway_id, from_ms, until_ms, moved_at_ms FROM meter_gateways
WHERE meter_id IN ({names}) ORDER BY meter_id, from_ms
"""
_OWNERS_SQL = """
SELECT o.meter_id, o.user_id, u.wallet, o.from_ms FROM meter_owners o
JOIN users u ON u.user_id = o.user_id
WHERE o.meter_id IN ({names}) ORDER BY o.meter_id, o.from_ms
"""
_ROTATIONS_SQL = """
SELECT gateway_id, valid_until_ms FROM gateway_rotations WHERE gateway_id IN ({names})
"""


def load_history(tx: Connection, books: Books) -> None:
    """Add who reads and who owns the meters of *books* when, and when replaced keys end."""
    for row in _rows(tx, _TENURES_SQL, books.meters):
        earlier = books.tenures.get(row["meter_id"], ())
        books.tenures[row["meter_id"]] = (*earlier, tenure_of(row))
    for row in _rows(tx, _OWNERS_SQL, books.meters):
        owner = Ownership(user_id=row["user_id"], wallet=row["wallet"], from_ms=row["from_ms"])
        books.owners[row["meter_id"]] = (*books.owners.get(row["meter_id"], ()), owner)
    for row in _rows(tx, _ROTATIONS_SQL, books.gateways):
        books.key_ends_ms[row["gateway_id"]] = row["valid_until_ms"]


def tenure_of(row: Row) -> Tenure:
    """Return the tenure of a row with `TENURE_COLUMNS`."""
    return Tenure(
        gateway_id=row["gateway_id"],
        from_ms=row["from_ms"],
        until_ms=row["until_ms"],
        moved_at_ms=row["moved_at_ms"],
    )


def moved_at_ms(books: Books, meter_id: str) -> int:
    """Return when the meter was moved to the gateway that reads it now; 0 = never."""
    return max((tenure.moved_at_ms for tenure in books.tenures.get(meter_id, ())), default=0)


def former_keys(connection: Connection, gateway_id: str, now_ms: int) -> list[str]:
    """Return the gateways whose key *gateway_id* replaced and whose time is not over."""
    found: list[str] = []
    while len(found) < _MOST_FORMER_KEYS:
        row = connection.execute(
            "SELECT gateway_id FROM gateway_rotations"
            " WHERE successor_id = ? AND valid_until_ms > ?",
            (found[-1] if found else gateway_id, now_ms),
        ).fetchone()
        if row is None:
            break
        found.append(row["gateway_id"])
    return found


def _rows(tx: Connection, sql: str, names: Iterable[str]) -> Iterator[Row]:
    wanted = f"SELECT name FROM {tx.dialect.rows('name')} k"  # noqa: S608 - our own column
    keys = json.dumps([[name] for name in sorted(names)])
    yield from tx.execute(sql.format(names=wanted), (keys,))
