"""Enrolment by claim, replaced keys and moved meters; every change with its audit entry."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from gridtokenx_cloud.adapters.store.database import Connection, Database
from gridtokenx_cloud.adapters.store.ingest_load import lock_meter
from gridtokenx_cloud.adapters.store.registry import enter
from gridtokenx_cloud.adapters.store.registry_rows import TENURE_COLUMNS, tenure_of
from gridtokenx_cloud.adapters.verifier import is_on_curve, is_signing_key
from gridtokenx_cloud.errors import NotFoundError, ValidationError
from gridtokenx_cloud.ports.admin import Enrolment
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.registry import (
    check_gateway,
    check_key_overlap,
    check_meter,
    check_move,
    check_user,
    plan_meters,
)
from gridtokenx_cloud.tenure import Tenure
from gridtokenx_wire.claim import Claim

_SAVE_TENURE_SQL = """
INSERT INTO meter_gateways (meter_id, gateway_id, from_ms, until_ms, moved_at_ms)
VALUES (?, ?, ?, ?, ?)
ON CONFLICT (meter_id, gateway_id, from_ms)
DO UPDATE SET until_ms = excluded.until_ms, moved_at_ms = excluded.moved_at_ms
"""
_SAVE_OWNER_SQL = """
INSERT INTO meter_owners (meter_id, user_id, from_ms, moved_at_ms) VALUES (?, ?, ?, ?)
ON CONFLICT (meter_id, from_ms) DO UPDATE SET
    user_id = excluded.user_id, moved_at_ms = excluded.moved_at_ms
"""


class SqlEnrolment:
    """What happens to gateways and meters beyond their first enrolment."""

    def __init__(self, database: Database, clock: Clock, *, actor: str) -> None:
        self._database = database
        self._clock = clock
        self._actor = actor

    def accept(self, claim: Claim, wanted: Enrolment, token: str | None) -> list[str]:
        """Enrol a claim's gateway and those of its meters that are not; return their ids.

        Accepting a claim again, or a later one with more meters, adds what is missing.

        Raises:
            ValidationError: A value breaks a rule, the claim is for another token than *token*,
                or a meter belongs to another gateway.
            NotFoundError: The owner is not enrolled.
        """
        check_gateway(claim.gateway_id, wanted.name, is_signing_key)
        detail: dict[str, object] = {"user_id": wanted.user_id, "name": wanted.name}
        with self._entry("gateway_enrolled", claim.gateway_id, detail) as (tx, at_ms):
            _must_have(tx, "SELECT 1 FROM users WHERE user_id = ?", wanted.user_id, "User")
            known = {
                meter.meter_id: row["gateway_id"]
                for meter in claim.meters
                if (row := _meter(tx, meter.meter_id)) is not None
            }
            meters = plan_meters(claim, known, wanted, token)
            tx.execute(
                "INSERT INTO gateways (gateway_id, name, status, created_at_ms)"
                " VALUES (?, ?, 'active', ?) ON CONFLICT (gateway_id) DO NOTHING",
                (claim.gateway_id, wanted.name, at_ms),
            )
            _must_be_active(tx, claim.gateway_id)
            for meter in meters:
                tx.execute(
                    "INSERT INTO meters (meter_id, gateway_id, user_id, rated_power_w,"
                    " resolution_wh, epoch_policy, created_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        meter.meter_id,
                        claim.gateway_id,
                        wanted.user_id,
                        meter.rated_power_w,
                        meter.resolution_wh,
                        wanted.epoch_policy,
                        at_ms,
                    ),
                )
            detail["meters"] = [meter.meter_id for meter in meters]
        return [meter.meter_id for meter in meters]

    def rotate(self, gateway_id: str, successor_id: str, until_ms: int) -> int:
        """Give a gateway's meters to its new key; both keys count until then. Return how many.

        Raises:
            ValidationError: A value breaks a rule, or the key was replaced already.
            NotFoundError: No such gateway.
        """
        detail = {"successor_id": successor_id, "until_ms": until_ms}
        with self._entry("gateway_rotated", gateway_id, detail) as (tx, at_ms):
            row = _must_be_active(tx, gateway_id)
            check_gateway(successor_id, row["name"], is_signing_key)
            check_key_overlap(at_ms, until_ms)
            tx.execute(
                "INSERT INTO gateways (gateway_id, name, status, created_at_ms)"
                " VALUES (?, ?, 'active', ?)",
                (successor_id, row["name"], at_ms),
            )
            tx.execute(
                "INSERT INTO gateway_rotations"
                " (gateway_id, successor_id, valid_until_ms, rotated_at_ms) VALUES (?, ?, ?, ?)",
                (gateway_id, successor_id, until_ms, at_ms),
            )
            meters = _locked_meters(tx, gateway_id)
            for meter_id in meters:
                # The same device goes on with the same count: its new key may send what the
                # old one could, and no new count begins.
                tenure = _current(tx, meter_id, gateway_id)
                _save(tx, meter_id, tenure, gateway_id, None)
                _save(tx, meter_id, tenure, successor_id, None)
                _set_gateway(tx, meter_id, successor_id)
        return len(meters)

    def move_to_gateway(self, meter_id: str, gateway_id: str, from_ms: int) -> None:
        """Let another gateway read the meter from a moment on; it begins a new count.

        Readings the former gateway took before that moment still count, later ones do not, so
        that no energy counts twice. The first epoch the new gateway sends is taken as by policy
        `first`.

        Raises:
            ValidationError: The moment is in the future, or before the last move.
            NotFoundError: No such meter or gateway.
        """
        detail = {"gateway_id": gateway_id, "from_ms": from_ms}
        with self._entry("meter_moved", meter_id, detail) as (tx, at_ms):
            row = _must_know(tx, meter_id)
            _must_be_active(tx, gateway_id)
            former = _open_tenures(tx, meter_id, row["gateway_id"])
            since_ms = max(tenure.from_ms for tenure in former)
            check_move(meter_id, row["gateway_id"] == gateway_id, since_ms, from_ms, at_ms)
            for tenure in former:
                _save(tx, meter_id, tenure, tenure.gateway_id, from_ms)
            moved = Tenure(gateway_id=gateway_id, from_ms=from_ms, until_ms=None, moved_at_ms=at_ms)
            _save(tx, meter_id, moved, gateway_id, None)
            _set_gateway(tx, meter_id, gateway_id)

    def change_owner(self, meter_id: str, user_id: str, from_ms: int) -> None:
        """Let the meter's readings from a moment on be another owner's.

        What is stored stays whose it was.

        Raises:
            ValidationError: The moment is in the future, or before the last change.
            NotFoundError: No such meter or owner.
        """
        detail = {"user_id": user_id, "from_ms": from_ms}
        with self._entry("meter_owner_changed", meter_id, detail) as (tx, at_ms):
            row = _must_know(tx, meter_id)
            _must_have(tx, "SELECT 1 FROM users WHERE user_id = ?", user_id, "User")
            last = tx.execute(
                "SELECT max(from_ms) AS from_ms FROM meter_owners WHERE meter_id = ?", (meter_id,)
            ).fetchone()
            since_ms = last["from_ms"] or 0
            check_move(meter_id, row["user_id"] == user_id, since_ms, from_ms, at_ms)
            if last["from_ms"] is None:
                tx.execute(_SAVE_OWNER_SQL, (meter_id, row["user_id"], 0, 0))
            tx.execute(_SAVE_OWNER_SQL, (meter_id, user_id, from_ms, at_ms))
            tx.execute("UPDATE meters SET user_id = ? WHERE meter_id = ?", (user_id, meter_id))

    def set_wallet(self, user_id: str, wallet: str) -> None:
        """Send an owner's tokens to another wallet, also for credits that wait.

        Raises:
            ValidationError: No wallet, or one that is another owner's.
            NotFoundError: No such owner.
        """
        check_user(user_id, wallet, is_on_curve)
        detail: dict[str, object] = {"wallet": wallet}
        with self._entry("wallet_changed", user_id, detail) as (tx, _):
            row = tx.execute("SELECT wallet FROM users WHERE user_id = ?", (user_id,)).fetchone()
            if row is None:
                raise NotFoundError(f"User {user_id} is not enrolled; add it first.")
            detail["before"] = row["wallet"]
            tx.execute("UPDATE users SET wallet = ? WHERE user_id = ?", (wallet, user_id))

    def set_rated_power(self, meter_id: str, rated_power_w: int) -> None:
        """Correct what a plant can feed in.

        Raises:
            ValidationError: Out of range.
            NotFoundError: No such meter.
        """
        detail: dict[str, object] = {"rated_power_w": rated_power_w}
        with self._entry("meter_rated_power_changed", meter_id, detail) as (tx, _):
            row = _must_know(tx, meter_id)
            check_meter(meter_id, rated_power_w, row["resolution_wh"])
            detail["before"] = row["rated_power_w"]
            tx.execute(
                "UPDATE meters SET rated_power_w = ? WHERE meter_id = ?", (rated_power_w, meter_id)
            )

    def _entry(
        self, action: str, subject: str, detail: Mapping[str, object]
    ) -> AbstractContextManager[tuple[Connection, int]]:
        return enter(self._database, self._clock, self._actor, action, subject, detail)


def _meter(tx: Connection, meter_id: str) -> Any:
    return tx.execute("SELECT * FROM meters WHERE meter_id = ?", (meter_id,)).fetchone()


def _must_know(tx: Connection, meter_id: str) -> Any:
    """Return the meter, with readings of it kept off until the commit."""
    row = lock_meter(tx, meter_id)
    if row is None:
        raise NotFoundError(f"Meter {meter_id} is not enrolled; add it first.")
    return row


def _locked_meters(tx: Connection, gateway_id: str) -> list[str]:
    """Return the meters a gateway reads, with readings of them kept off until the commit."""
    rows = tx.execute(
        "SELECT meter_id FROM meters WHERE gateway_id = ? ORDER BY meter_id", (gateway_id,)
    ).fetchall()
    # One may have moved on before its lock was there.
    locked = [lock_meter(tx, row["meter_id"]) for row in rows]
    return [row["meter_id"] for row in locked if row and row["gateway_id"] == gateway_id]


def _must_have(tx: Connection, sql: str, value: str, what: str) -> None:
    if tx.execute(sql, (value,)).fetchone() is None:
        raise NotFoundError(f"{what} {value} is not enrolled; add it first.")


def _must_be_active(tx: Connection, gateway_id: str) -> Any:
    row = tx.execute(
        "SELECT g.name, g.status, r.successor_id FROM gateways g"
        " LEFT JOIN gateway_rotations r ON r.gateway_id = g.gateway_id WHERE g.gateway_id = ?",
        (gateway_id,),
    ).fetchone()
    if row is None:
        raise NotFoundError(f"Gateway {gateway_id} is not enrolled; add it first.")
    if row["status"] != "active" or row["successor_id"] is not None:
        raise ValidationError(
            "GatewayRevoked",
            f"Gateway {gateway_id} is revoked or has a new key; see `gtx-cloud gateway list`.",
        )
    return row


def _open_tenures(tx: Connection, meter_id: str, gateway_id: str) -> list[Tenure]:
    """Return who may send the meter's readings now; a meter that never moved has one."""
    rows = tx.execute(
        f"SELECT {TENURE_COLUMNS} FROM meter_gateways WHERE meter_id = ? AND until_ms IS NULL"  # noqa: S608 - own text
        " ORDER BY from_ms, gateway_id",
        (meter_id,),
    ).fetchall()
    if rows:
        return [tenure_of(row) for row in rows]
    return [Tenure(gateway_id=gateway_id, from_ms=0, until_ms=None, moved_at_ms=0)]


def _current(tx: Connection, meter_id: str, gateway_id: str) -> Tenure:
    tenures = _open_tenures(tx, meter_id, gateway_id)
    return next(tenure for tenure in tenures if tenure.gateway_id == gateway_id)


def _save(
    tx: Connection, meter_id: str, tenure: Tenure, gateway_id: str, until_ms: int | None
) -> None:
    values = (meter_id, gateway_id, tenure.from_ms, until_ms, tenure.moved_at_ms)
    tx.execute(_SAVE_TENURE_SQL, values)


def _set_gateway(tx: Connection, meter_id: str, gateway_id: str) -> None:
    tx.execute("UPDATE meters SET gateway_id = ? WHERE meter_id = ?", (gateway_id, meter_id))
