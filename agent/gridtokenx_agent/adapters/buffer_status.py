"""What is in the buffer, read by another process while the agent runs."""

import sqlite3
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gridtokenx_agent.errors import StoreError

_KINDS = ("slot", "sample", "event", "clock")
_MOST_DEAD_SHOWN = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterStatus:
    """One meter; Wh are those of the last good slot, None before the first."""

    meter_id: str
    epoch: str
    seq: int
    import_wh: int | None
    export_wh: int | None
    last_slot_wall_ms: int | None
    state: str
    refused: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLine:
    """A line the cloud refused."""

    meter_id: str
    epoch: str
    seq: int
    kind: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferStatus:
    """Everything `gtx-agent status` tells."""

    gateway_id: str
    pending: dict[str, int]
    sent_unconfirmed: int
    dead: int
    last_receipt_ms: int | None
    dead_lines: tuple[DeadLine, ...]
    meters: tuple[MeterStatus, ...]

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def read_status(path: Path) -> BufferStatus:
    """Read the buffer without disturbing the agent that owns it.

    Raises:
        StoreError: There is no buffer, or it cannot be read.
    """
    if not path.is_file():
        raise StoreError(f"there is no buffer {path} yet; start `gtx-agent run`")
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("BEGIN")
            return _status(connection)
        finally:
            connection.close()
    except sqlite3.DatabaseError as exc:
        raise StoreError(f"buffer {path} cannot be read: {exc}") from exc


def _status(connection: sqlite3.Connection) -> BufferStatus:
    meta = {row["key"]: row["value"] for row in connection.execute("SELECT * FROM meta")}
    depth = dict(connection.execute("SELECT kind, count(*) FROM outbox GROUP BY kind").fetchall())
    (sent,) = connection.execute("SELECT count(*) FROM outbox WHERE sent = 1").fetchone()
    (dead,) = connection.execute("SELECT count(*) FROM dead").fetchone()
    dead_rows = connection.execute(
        "SELECT meter_id, epoch, seq, kind, code, reason FROM dead ORDER BY rowid DESC LIMIT ?",
        (_MOST_DEAD_SHOWN,),
    )
    last = meta.get("last_receipt_ms")
    return BufferStatus(
        gateway_id=meta["gateway_id"],
        pending={kind: depth.get(kind, 0) for kind in _KINDS},
        sent_unconfirmed=sent,
        dead=dead,
        last_receipt_ms=int(last) if last is not None else None,
        dead_lines=tuple(DeadLine(**dict(row)) for row in dead_rows),
        meters=tuple(
            _meter(connection, row)
            for row in connection.execute(
                "SELECT * FROM meter WHERE meter_id NOT LIKE '\\_%' ESCAPE '\\' ORDER BY meter_id"
            )
        ),
    )


def _meter(connection: sqlite3.Connection, row: sqlite3.Row) -> MeterStatus:
    refused = connection.execute(
        "SELECT code, count FROM refusal WHERE meter_id = ?", (row["meter_id"],)
    ).fetchall()
    known = row["boot_id"] is not None
    return MeterStatus(
        meter_id=row["meter_id"],
        epoch=row["epoch"],
        seq=row["seq"],
        import_wh=row["import_raw_wh"] + row["import_turned_wh"] if known else None,
        export_wh=row["export_raw_wh"] + row["export_turned_wh"] if known else None,
        last_slot_wall_ms=row["slot_wall_ms"],
        state=row["unit"],
        refused=dict(refused),
    )
