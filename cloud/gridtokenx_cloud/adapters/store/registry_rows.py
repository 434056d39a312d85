"""Read what the registry says of meters that moved and keys that were replaced."""

import json
from collections.abc import Iterable
from typing import NamedTuple

from gridtokenx_cloud.adapters.store.database import Connection, Result, Row
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


class History(NamedTuple):
    """What the registry was asked for."""

    tenures: Result
    owners: Result
    rotations: Result


def ask_history(
    tx: Connection, meter_ids: Iterable[tuple[str]], gateway_ids: Iterable[tuple[str]]
) -> History:
    """Ask who read and owned these meters when, and when replaced keys end."""
    wanted = f"SELECT name FROM {tx.dialect.rows('name')} k"  # noqa: S608 - our own column
    meters, gateways = json.dumps(list(meter_ids)), json.dumps(list(gateway_ids))
    return History(
        tx.execute(_TENURES_SQL.format(names=wanted), (meters,)),
        tx.execute(_OWNERS_SQL.format(names=wanted), (meters,)),
        tx.execute(_ROTATIONS_SQL.format(names=wanted), (gateways,)),
    )


def add_history(books: Books, history: History) -> None:
    """Add what `ask_history` found."""
    for row in history.tenures:
        earlier = books.tenures.get(row["meter_id"], ())
        books.tenures[row["meter_id"]] = (*earlier, tenure_of(row))
    for row in history.owners:
        owner = Ownership(user_id=row["user_id"], wallet=row["wallet"], from_ms=row["from_ms"])
        books.owners[row["meter_id"]] = (*books.owners.get(row["meter_id"], ()), owner)
    for row in history.rotations:
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
