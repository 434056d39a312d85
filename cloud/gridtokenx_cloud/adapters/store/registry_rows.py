"""Read what the registry says of meters that moved and keys that were replaced."""

from collections.abc import Iterable, Iterator

from gridtokenx_cloud.adapters.store.database import Connection, Row
from gridtokenx_cloud.ledger import Window
from gridtokenx_cloud.ports.ingest import Books, StreamKey
from gridtokenx_cloud.remarks import LastSlot
from gridtokenx_cloud.tenure import Ownership, Tenure
from gridtokenx_wire.encoding import line_hash

_MOST_NAMES = 500
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
_WINDOWS_SQL = """
SELECT e.epoch, f.at_ms AS first_ms, n.at_ms AS newest_ms FROM meter_epochs e
JOIN meter_readings n ON n.reading_id = e.newest_reading_id
JOIN meter_readings f ON f.meter_id = e.meter_id AND f.epoch = e.epoch AND f.seq = e.baseline_seq
WHERE e.meter_id = ? AND e.baseline_wh IS NOT NULL
"""
_LAST_SLOT_SQL = """
SELECT seq, boot_id, mono_ms, at_ms, import_wh, export_wh, active_power_w, line
FROM meter_readings WHERE meter_id = ? AND epoch = ? ORDER BY seq DESC LIMIT 1
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


def load_last_slot(tx: Connection, key: StreamKey) -> LastSlot | None:
    """Return the stored slot with the highest `seq` of an epoch."""
    row = tx.execute(_LAST_SLOT_SQL, key).fetchone()
    if row is None:
        return None
    return LastSlot(
        seq=row["seq"],
        line_hash=line_hash(row["line"]),
        boot_id=row["boot_id"],
        mono_ms=row["mono_ms"],
        at_ms=row["at_ms"],
        import_wh=row["import_wh"],
        export_wh=row["export_wh"],
        active_power_w=row["active_power_w"],
    )


def load_windows(tx: Connection, meter_id: str) -> dict[str, Window]:
    """Return what each epoch of a meter covers that has credited readings."""
    rows = tx.execute(_WINDOWS_SQL, (meter_id,)).fetchall()
    return {row["epoch"]: (row["first_ms"], max(row["first_ms"], row["newest_ms"])) for row in rows}


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
    ordered = sorted(names)
    for start in range(0, len(ordered), _MOST_NAMES):
        part = ordered[start : start + _MOST_NAMES]
        yield from tx.execute(sql.format(names=", ".join("?" * len(part))), part)
