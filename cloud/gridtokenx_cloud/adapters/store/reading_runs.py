"""Runs: what is told of the readings of one meter in one commit, as one row of the outbox.

A row is read long after its readings got another status or left for the archive, so it holds all
that was told: the owner once, and of each reading what differs.
"""

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gridtokenx_cloud.adapters.store.database import Connection, Row
from gridtokenx_cloud.events import MeterReadingReceived, body_of, json_of, kwh_text, rfc3339
from gridtokenx_cloud.ports.ingest import NewReading
from gridtokenx_cloud.verify import Meter

MAX_RUN = 100
"""As in migration 0010."""

_SPREAD_AT_ONCE = 1_000
_LIVE = ("active_power_w", "voltage_mv", "current_ma", "frequency_mhz")
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Run(NamedTuple):
    """Readings of one meter, each as it stands in the row."""

    meter: Meter
    readings: list[tuple[int | str | None, ...]]

    def body(self) -> str:
        """Return the row's body."""
        return _encode((self.meter.user_id, self.meter.wallet, self.readings))


def runs_of(readings: Iterable[NewReading]) -> list[Run]:
    """Return the readings by meter and owner, each meter's in their order."""
    runs: list[Run] = []
    growing: dict[tuple[str, str, str], Run] = {}
    for new in readings:
        slot, meter = new.slot, new.meter
        key = meter.meter_id, meter.user_id, meter.wallet
        run = growing.get(key)
        if run is None or len(run.readings) == MAX_RUN:
            run = growing[key] = Run(meter, [])
            runs.append(run)
        live = slot.live
        run.readings.append(
            (
                new.reading_id,
                new.status,
                new.credit_wh,
                slot.import_wh,
                slot.export_wh,
                new.dated_ms,
                live.active_power_w,
                live.voltage_mv,
                live.current_ma,
                live.frequency_mhz,
            )
        )
    return runs


def bodies(row: Row, places: slice = slice(None)) -> Sequence[str]:
    """Return the events of a row as `with_id` takes them, or those at some of its places."""
    body: str = row["body"]
    if not body.startswith("["):
        return [body][places]
    meter_id, at_ms = row["meter_id"], row["created_at_ms"]
    user_id, wallet, readings = json.loads(body)
    owner = (
        f',"user_id":{json_of(user_id)},"wallet_address":{json_of(wallet)}'
        f',"meter_id":{json_of(meter_id)}'
    )
    return [
        body_of(MeterReadingReceived.type, meter_id, _data(owner, *values), at_ms)
        for values in readings[places]
    ]


def _data(
    owner: str,
    reading_id: int,
    status: str,
    credit_wh: int,
    import_wh: int,
    export_wh: int,
    dated_ms: int | None,
    *live: int | None,
) -> str:
    """Return the fields of a `MeterReadingReceived`; to make one takes twice as long."""
    dated = "" if dated_ms is None else f',"reading_timestamp":"{rfc3339(dated_ms)}"'
    measured = "".join(
        [f',"{name}":{value}' for name, value in zip(_LIVE, live, strict=True) if value is not None]
    )
    return (
        f',"kind":"slot","reading_id":{reading_id}{owner},"status":"{status}"'
        f',"kwh_amount":"{kwh_text(credit_wh)}","credit_wh":{credit_wh}'
        f',"import_wh":{import_wh},"export_wh":{export_wh}{dated}{measured}'
    )


def spread_runs(tx: Connection) -> None:
    """Give each reading a row of its own again, for a program from before the runs.

    Places in streams stay. The new rows come last, which matters to nobody: who tails the outbox
    begins at its end.
    """
    at, last = 0, tx.execute("SELECT coalesce(max(event_number), 0) FROM events").fetchone()[0]
    sql = (
        "SELECT * FROM events WHERE event_number > ? AND event_number <= ?"
        " AND substr(body, 1, 1) = '[' ORDER BY event_number LIMIT ?"
    )
    while runs := tx.execute(sql, (at, last, _SPREAD_AT_ONCE)).fetchall():
        at = runs[-1]["event_number"]
        tx.executemany(
            "DELETE FROM events WHERE event_number = ?", [(run["event_number"],) for run in runs]
        )
        tx.executemany(
            "INSERT INTO events (stream, stream_offset, admin_offset, type, meter_id, body,"
            " created_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    run["stream"],
                    run["stream_offset"] + place,
                    run["admin_offset"] + place,
                    run["type"],
                    run["meter_id"],
                    body,
                    run["created_at_ms"],
                )
                for run in runs
                for place, body in enumerate(bodies(run))
            ],
        )
