"""The registry in SQLite: users, gateways, meters; every change with its audit entry."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from gridtokenx_cloud.adapters.store.database import Connection, Database
from gridtokenx_cloud.adapters.store.outbox import append_audit
from gridtokenx_cloud.adapters.verifier import is_on_curve, is_signing_key
from gridtokenx_cloud.errors import NotFoundError, StoreRefusedError, ValidationError
from gridtokenx_cloud.events import rfc3339
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.registry import check_gateway, check_meter, check_user
from gridtokenx_cloud.verify import EpochPolicy

Row = dict[str, object]


class SqlRegistry:
    """Who may send what, and for whom it counts."""

    def __init__(self, database: Database, clock: Clock, *, actor: str) -> None:
        self._database = database
        self._clock = clock
        self._actor = actor

    def add_user(self, user_id: str, wallet: str) -> None:
        """Enrol an owner.

        Raises:
            ValidationError: A value breaks a rule, or the id or the wallet is enrolled already.
        """
        check_user(user_id, wallet, is_on_curve)
        with self._entry("user_registered", user_id, {"wallet": wallet}) as (tx, at_ms):
            tx.execute("INSERT INTO users VALUES (?, ?, ?)", (user_id, wallet, at_ms))

    def add_gateway(self, gateway_id: str, name: str) -> None:
        """Enrol a gateway by its public key.

        Raises:
            ValidationError: A value breaks a rule, or the gateway is enrolled already.
        """
        check_gateway(gateway_id, name, is_signing_key)
        with self._entry("gateway_enrolled", gateway_id, {"name": name}) as (tx, at_ms):
            tx.execute("INSERT INTO gateways VALUES (?, ?, 'active', ?)", (gateway_id, name, at_ms))

    def revoke_gateway(self, gateway_id: str) -> None:
        """Take no further line of this gateway; what is stored stays.

        Raises:
            NotFoundError: No such gateway.
        """
        with self._entry("gateway_revoked", gateway_id, {}) as (tx, _):
            changed = tx.execute(
                "UPDATE gateways SET status = 'revoked' WHERE gateway_id = ?", (gateway_id,)
            )
            if changed.rowcount == 0:
                raise NotFoundError(f"Gateway {gateway_id} is not enrolled.")

    def add_meter(
        self,
        meter_id: str,
        *,
        gateway_id: str,
        user_id: str,
        rated_power_w: int,
        resolution_wh: int,
        epoch_policy: EpochPolicy,
    ) -> None:
        """Enrol a meter behind a gateway, for an owner.

        Raises:
            ValidationError: A value breaks a rule, or the meter is enrolled already.
            NotFoundError: The gateway or the user is not enrolled.
        """
        check_meter(meter_id, rated_power_w, resolution_wh)
        detail = {
            "gateway_id": gateway_id,
            "user_id": user_id,
            "rated_power_w": rated_power_w,
            "resolution_wh": resolution_wh,
            "epoch_policy": epoch_policy,
        }
        with self._entry("meter_registered", meter_id, detail) as (tx, at_ms):
            _must_exist(tx, "gateways", "gateway_id", gateway_id)
            _must_exist(tx, "users", "user_id", user_id)
            tx.execute(
                "INSERT INTO meters VALUES (?, ?, ?, ?, ?, ?, ?)",
                (meter_id, *detail.values(), at_ms),
            )

    def users(self) -> list[Row]:
        """Return every owner, by id."""
        return self._rows("SELECT user_id, wallet FROM users ORDER BY user_id")

    def gateways(self) -> list[Row]:
        """Return every gateway, by name."""
        rows = self._rows(
            "SELECT g.gateway_id, g.name, g.status, r.successor_id, r.valid_until_ms"
            " FROM gateways g LEFT JOIN gateway_rotations r ON r.gateway_id = g.gateway_id"
            " ORDER BY g.name, g.gateway_id"
        )
        for row in rows:
            ends_ms = row.pop("valid_until_ms")
            row["valid_until"] = rfc3339(ends_ms) if isinstance(ends_ms, int) else None
        return rows

    def meters(self) -> list[Row]:
        """Return every meter with its newest epoch, by id."""
        return self._rows(
            "SELECT m.meter_id, m.gateway_id, m.user_id, m.rated_power_w, m.resolution_wh,"
            " m.epoch_policy, e.epoch, e.status AS epoch_status, e.credited_through_wh"
            " FROM meters m LEFT JOIN meter_epochs e ON e.meter_id = m.meter_id"
            " AND e.epoch = (SELECT o.epoch FROM meter_epochs o WHERE o.meter_id = m.meter_id"
            "                ORDER BY o.opened_at_ms DESC, coalesce(o.last_reading_id, 0) DESC"
            "                LIMIT 1)"
            " ORDER BY m.meter_id"
        )

    def _rows(self, sql: str) -> list[Row]:
        return [dict(row) for row in self._database.connection.execute(sql)]

    def _entry(
        self, action: str, subject: str, detail: Mapping[str, object]
    ) -> AbstractContextManager[tuple[Connection, int]]:
        return enter(self._database, self._clock, self._actor, action, subject, detail)


@contextmanager
def enter(
    database: Database,
    clock: Clock,
    actor: str,
    action: str,
    subject: str,
    detail: Mapping[str, object],
) -> Iterator[tuple[Connection, int]]:
    """Give a transaction for one change of the registry, and its time; audited at the end.

    Raises:
        ValidationError: The store has another row of that name.
    """
    at_ms = clock.now_ms()
    try:
        with database.transaction() as tx:
            yield tx, at_ms
            append_audit(
                tx, at_ms=at_ms, actor=actor, action=action, subject=subject, detail=detail
            )
    except StoreRefusedError as exc:
        raise ValidationError(
            "AlreadyEnrolled",
            f"{subject} cannot be enrolled: its id, or the wallet it names, is taken already.",
        ) from exc


def _must_exist(tx: Connection, table: str, column: str, value: str) -> None:
    # Table and column are literals of this module.
    if tx.execute(f"SELECT 1 FROM {table} WHERE {column} = ?", (value,)).fetchone() is None:  # noqa: S608
        raise NotFoundError(f"{table[:-1].capitalize()} {value} is not enrolled; add it first.")
