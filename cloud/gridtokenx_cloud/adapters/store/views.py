"""`Views` over SQLite: what owners and operators may look at."""

import base64
import binascii
import json
from collections import defaultdict
from typing import Any

from gridtokenx_cloud.adapters.store import view_queries as sql
from gridtokenx_cloud.adapters.store.database import Connection, Database, Row
from gridtokenx_cloud.adapters.store.reading import reading
from gridtokenx_cloud.adapters.store.reading_views import SqlReadingViews
from gridtokenx_cloud.errors import ValidationError
from gridtokenx_cloud.events import rfc3339
from gridtokenx_cloud.ports.api import (
    LastReading,
    MeterShare,
    MeterView,
    MintView,
    OwnerSummary,
    PowerPoint,
    ReadingView,
)
from gridtokenx_cloud.ports.common import Clock

_DAY_MS = 86_400_000
_MAX_POWER_POINTS = 2_000


class SqlViews(SqlReadingViews):
    """Reads only; safe to share between threads."""

    def __init__(self, database: Database, clock: Clock) -> None:
        super().__init__(database)
        self._clock = clock

    def meters(self, user_id: str | None) -> list[MeterView]:
        """See `Views.meters`."""
        midnight_ms = self._clock.now_ms() // _DAY_MS * _DAY_MS
        with reading(self._database) as connection:
            rows = connection.execute(sql.METERS, {"user": user_id}).fetchall()
            today = {
                row["meter_id"]: row
                for row in connection.execute(sql.TODAY, {"user": user_id, "midnight": midnight_ms})
            }
            waiting: defaultdict[tuple[str, str], int] = defaultdict(int)
            for row in connection.execute(sql.WAITING, {"user": user_id}):
                waiting[row["meter_id"], row["user_id"]] += row["wh"]
        return [
            _meter(row, today.get(row["meter_id"]), waiting[row["meter_id"], row["user_id"]])
            for row in rows
        ]

    def power(self, meter_id: str, user_id: str | None, since_ms: int) -> list[PowerPoint] | None:
        """See `Views.power`."""
        with reading(self._database) as connection:
            if not _owns(connection, meter_id, user_id):
                return None
            if user_id is not None:
                # Power tells when somebody is at home: a former owner's is nobody else's business.
                owned = connection.execute(sql.OWNED_SINCE, {"meter": meter_id}).fetchone()
                since_ms = max(since_ms, owned["since_ms"])
            rows = connection.execute(
                sql.POWER, {"meter": meter_id, "since": since_ms, "limit": _MAX_POWER_POINTS}
            ).fetchall()
        return [PowerPoint(at_ms=row["at_ms"], power_w=row["power_w"]) for row in rows]

    def readings(
        self, meter_id: str, user_id: str | None, cursor: str | None, limit: int
    ) -> tuple[list[ReadingView], str | None] | None:
        """See `Views.readings`."""
        at_ms, reading_id = (None, None) if cursor is None else _open(cursor, (int, int))
        values = {
            "meter": meter_id,
            "user": user_id,
            "at": at_ms,
            "id": reading_id,
            "limit": limit + 1,
        }
        with reading(self._database) as connection:
            if not _owns(connection, meter_id, user_id):
                return None
            rows = connection.execute(sql.READINGS, values).fetchall()
        page = rows[:limit]
        last = page[-1] if len(rows) > limit else None
        behind = None if last is None else [last["at_ms"], last["reading_id"]]
        return [_reading(row) for row in page], _close(behind)

    def reading(self, reading_id: int, user_id: str | None) -> ReadingView | None:
        """See `Views.reading`."""
        values = {"reading": reading_id, "user": user_id}
        with reading(self._database) as connection:
            row = connection.execute(sql.READING, values).fetchone()
        return None if row is None else _reading(row)

    def mints(
        self, user_id: str | None, cursor: str | None, limit: int
    ) -> tuple[list[MintView], str | None]:
        """See `Views.mints`."""
        batch_id, wallet = (None, None) if cursor is None else _open(cursor, (int, str))
        values = {"user": user_id, "batch": batch_id, "wallet": wallet, "limit": limit + 1}
        shares: defaultdict[tuple[int, str], list[MeterShare]] = defaultdict(list)
        with reading(self._database) as connection:
            rows = connection.execute(sql.MINTS, values).fetchall()
            page = rows[:limit]
            batches = [row["batch_id"] for row in page] or [0]
            span = {"first": min(batches), "last": max(batches), "user": user_id}
            for row in connection.execute(sql.SHARES, span):
                share = MeterShare(
                    meter_id=row["meter_id"],
                    credit_wh=row["credit_wh"],
                    readings=row["readings"],
                )
                shares[row["batch_id"], row["user_id"]].append(share)
        last = page[-1] if len(rows) > limit else None
        behind = None if last is None else [last["batch_id"], last["wallet"]]
        mints = [_mint(row, tuple(shares[row["batch_id"], row["user_id"]])) for row in page]
        return mints, _close(behind)

    def summary(self, user_id: str | None) -> list[OwnerSummary]:
        """See `Views.summary`."""
        values = {"user": user_id}
        waiting: defaultdict[str, int] = defaultdict(int)
        with reading(self._database) as connection:
            rows = connection.execute(sql.SUMMARY, values).fetchall()
            for row in connection.execute(sql.WAITING, values):
                waiting[row["user_id"]] += row["wh"]
        return [
            OwnerSummary(
                user_id=row["user_id"],
                wallet=row["wallet"],
                meters=row["meters"],
                minted_wh=row["minted_wh"],
                minted_base_units=str(row["minted_high"] * 10**9 + row["minted_low"]),
                waiting_wh=waiting[row["user_id"]],
            )
            for row in rows
        ]


def _owns(connection: Connection, meter_id: str, user_id: str | None) -> bool:
    found = connection.execute(sql.OWNS, {"meter": meter_id, "user": user_id}).fetchone()
    return found is not None


def _time(unix_ms: int | None) -> str | None:
    return None if unix_ms is None else rfc3339(unix_ms)


def _meter(row: Row, today: Row | None, waiting_wh: int) -> MeterView:
    power_w, power_at_ms = row["live_power_w"], row["live_at_ms"]
    if row["active_power_w"] is not None and row["submitted_at_ms"] > (power_at_ms or 0):
        power_w, power_at_ms = row["active_power_w"], row["submitted_at_ms"]
    last = None
    if row["reading_id"] is not None:
        last = LastReading(
            reading_id=row["reading_id"],
            reading_timestamp=_time(row["reading_timestamp_ms"]),
            submitted_at=rfc3339(row["submitted_at_ms"]),
            import_wh=row["import_wh"],
            export_wh=row["export_wh"],
        )
    return MeterView(
        meter_id=row["meter_id"],
        gateway_id=row["gateway_id"],
        user_id=row["user_id"],
        wallet=row["wallet"],
        rated_power_w=row["rated_power_w"],
        power_w=power_w,
        power_at=None if power_w is None else _time(power_at_ms),
        import_today_wh=None if today is None else today["import_wh"],
        export_today_wh=None if today is None else today["export_wh"],
        credited_wh=row["credited_wh"],
        minted_wh=row["credited_wh"] - waiting_wh,
        waiting_wh=waiting_wh,
        last_reading=last,
    )


def _reading(row: Row) -> ReadingView:
    values: dict[str, Any] = dict(row)
    values["reading_timestamp"] = _time(values.pop("reading_timestamp_ms"))
    values["submitted_at"] = rfc3339(values.pop("submitted_at_ms"))
    values["minted"] = bool(values["minted"])
    del values["at_ms"]
    return ReadingView(**values)


def _mint(row: Row, shares: tuple[MeterShare, ...]) -> MintView:
    return MintView(
        batch_id=row["batch_id"],
        state=row["state"],
        user_id=row["user_id"],
        wallet=row["wallet"],
        credit_wh=row["credit_wh"],
        amount_base_units=str(row["amount_base_units"]),
        held_reason=row["held_reason"],
        transaction_signature=row["signature"],
        slot=row["slot"],
        sealed_at=rfc3339(row["sealed_at_ms"]),
        final_at=_time(row["final_at_ms"]),
        meters=shares,
    )


def _close(behind: list[Any] | None) -> str | None:
    """Return the opaque cursor of a page's last row."""
    if behind is None:
        return None
    text = json.dumps(behind, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _open(cursor: str, kinds: tuple[type, type]) -> tuple[Any, Any]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        first, second = json.loads(text)
    except (binascii.Error, ValueError, TypeError) as exc:
        raise _no_cursor(cursor) from exc
    undated = first is None and kinds[0] is int
    if not (undated or type(first) is kinds[0]) or type(second) is not kinds[1]:
        raise _no_cursor(cursor)
    return first, second


def _no_cursor(cursor: str) -> ValidationError:
    return ValidationError(
        "InvalidCursor", f"cursor {cursor[:40]!r} is none of ours: begin again without one"
    )
