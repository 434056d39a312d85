"""Rows of the buffer's tables, from and to what they stand for."""

from typing import Any

from gridtokenx_agent.clock import Instant
from gridtokenx_agent.counters import Counter, MeterState, Register
from gridtokenx_agent.ports import NewRow
from gridtokenx_wire.encoding import line_hash
from gridtokenx_wire.record import ClockQuality


def row_values(meter_id: str, row: NewRow) -> dict[str, Any]:
    """Return the columns of one waiting line."""
    return {
        "meter_id": meter_id,
        "epoch": row.epoch,
        "seq": row.seq,
        "kind": row.kind,
        "wall_ms": row.wall_ms,
        "opens": int(row.opens),
        "line": row.line,
        "line_hash": line_hash(row.line),
    }


def state_columns(state: MeterState) -> dict[str, Any]:
    """Return the columns of one meter's state."""
    columns: dict[str, Any] = {
        "meter_id": state.meter_id,
        "epoch": state.epoch,
        "profile": state.profile,
        "identity": state.identity,
        "seq": state.seq,
        "prev": state.prev,
        "unit": state.unit,
        "slot_wall_ms": state.slot_wall_ms,
    }
    counter = state.counter
    return columns | {
        "import_raw_wh": counter.import_.raw_wh if counter else None,
        "import_turned_wh": counter.import_.turned_wh if counter else None,
        "export_raw_wh": counter.export.raw_wh if counter else None,
        "export_turned_wh": counter.export.turned_wh if counter else None,
        "boot_id": counter.at.boot_id if counter else None,
        "mono_ms": counter.at.mono_ms if counter else None,
        "wall_ms": counter.at.wall_ms if counter else None,
        "clock": int(counter.at.clock) if counter else None,
    }


def meter_state(row: dict[str, Any]) -> MeterState:
    """Return the state in one row of `meter`."""
    counter = None
    if row["boot_id"] is not None:
        at = Instant(
            boot_id=row["boot_id"],
            mono_ms=row["mono_ms"],
            wall_ms=row["wall_ms"],
            clock=ClockQuality(row["clock"]),
        )
        counter = Counter(
            import_=Register(row["import_raw_wh"], row["import_turned_wh"]),
            export=Register(row["export_raw_wh"], row["export_turned_wh"]),
            at=at,
        )
    return MeterState(
        meter_id=row["meter_id"],
        epoch=row["epoch"],
        profile=row["profile"],
        identity=row["identity"],
        seq=row["seq"],
        prev=row["prev"],
        unit=row["unit"],
        slot_wall_ms=row["slot_wall_ms"],
        counter=counter,
    )
