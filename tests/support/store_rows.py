"""Rows as a running system would have left them, written straight into a store."""

import hashlib
import secrets
from pathlib import Path

from gridtokenx_cloud.adapters.store.access import SqlAccess
from gridtokenx_cloud.adapters.store.database import Database, open_database
from gridtokenx_cloud.adapters.store.events import SqlEventStore
from gridtokenx_cloud.adapters.store.migrate import migrate
from gridtokenx_cloud.adapters.store.outbox import append_event
from gridtokenx_cloud.events import (
    ADMIN_STREAM,
    MarketEvent,
    MeterReadingReceived,
    MintedMeter,
    TokensMinted,
    kwh_text,
    rfc3339,
    user_stream,
)
from gridtokenx_wire import base58
from tests.support.build_cloud import FakeClock

BASE_UNITS_PER_WH = 1_000_000
GATEWAY = base58.encode_key(bytes(range(32)))


def told(database: Database) -> list[tuple[str, int, str]]:
    """Return (stream, offset, type) of every event, a stream's in the order of its offsets."""
    events = SqlEventStore(database).read_after(0, 1_000_000).events
    return sorted((event.stream, event.offset, event.type) for event in events)


def signature_of(batch_id: int) -> str:
    """Return a text like a Solana transaction signature."""
    digest = hashlib.sha512(f"batch-{batch_id}".encode()).digest()
    return base58.encode_key(digest[:32]) + base58.encode_key(digest[32:])


def wallet_of(user_id: str) -> str:
    """Return an address like a Solana wallet."""
    return base58.encode_key(hashlib.sha256(user_id.encode()).digest())


class StoreRows:
    """A store with owners, meters, readings, mints and their events."""

    def __init__(self, where: Path | Database, clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        if isinstance(where, Path):
            self.database: Database = open_database(f"sqlite:///{where}")
            migrate(self.database)
        else:
            self.database = where
        self.access = SqlAccess(self.database, self.clock)
        self._seq: dict[str, int] = {}
        self._execute(
            "INSERT INTO gateways VALUES (?, 'Roof 17', 'active', ?)", GATEWAY, self.clock.at_ms
        )

    def _execute(self, statement: str, *values: object) -> None:
        with self.database.transaction() as tx:
            tx.execute(statement, values)

    def user(self, user_id: str) -> str:
        """Enrol an owner; return an API token of theirs."""
        self._execute(
            "INSERT INTO users VALUES (?, ?, ?)", user_id, wallet_of(user_id), self.clock.at_ms
        )
        return self.access.create_token(f"{user_id}'s page", "owner", user_id, None, "test")

    def staff(self, role: str = "admin") -> str:
        """Return an API token of staff."""
        return self.access.create_token(f"{role} desk", role, None, None, "test")

    def meter(self, meter_id: str, user_id: str, rated_power_w: int = 10_000) -> None:
        """Enrol a meter with one open epoch."""
        self._execute(
            "INSERT INTO meters VALUES (?, ?, ?, ?, 1, 'first', ?)",
            meter_id,
            GATEWAY,
            user_id,
            rated_power_w,
            self.clock.at_ms,
        )
        self._execute(
            "INSERT INTO meter_epochs (meter_id, epoch, status, opened_at_ms)"
            " VALUES (?, 'e0', 'accepted', ?)",
            meter_id,
            self.clock.at_ms,
        )

    def sample(self, meter_id: str, power_w: int, at_ms: int | None = None) -> None:
        """Store a live value."""
        at_ms = self.clock.at_ms if at_ms is None else at_ms
        seq = self._next(meter_id)
        with self.database.transaction() as tx:
            tx.execute(
                "INSERT INTO meter_samples (meter_id, epoch, seq, reading_timestamp_ms,"
                " submitted_at_ms, active_power_w, line) VALUES (?, 'e0', ?, ?, ?, ?, ?)",
                (meter_id, seq, at_ms, at_ms, power_w, b""),
            )
            tx.execute(
                "INSERT INTO meter_live (meter_id, wall_ms, submitted_at_ms, active_power_w)"
                " VALUES (?, ?, ?, ?) ON CONFLICT (meter_id) DO UPDATE SET"
                " wall_ms = excluded.wall_ms, submitted_at_ms = excluded.submitted_at_ms,"
                " active_power_w = excluded.active_power_w",
                (meter_id, at_ms, at_ms, power_w),
            )

    def _next(self, meter_id: str) -> int:
        self._seq[meter_id] = self._seq.get(meter_id, 0) + 1
        return self._seq[meter_id]

    def reading(
        self,
        meter_id: str,
        *,
        import_wh: int,
        export_wh: int,
        at_ms: int | None = None,
        power_w: int | None = None,
    ) -> int:
        """Store an accepted slot with its credit and its event; return the reading's id."""
        at_ms = self.clock.at_ms if at_ms is None else at_ms
        seq = self._next(meter_id)
        with self.database.transaction() as tx:
            owner = tx.execute(
                "SELECT user_id, wallet FROM meters JOIN users USING (user_id) WHERE meter_id = ?",
                (meter_id,),
            ).fetchone()
            epoch = tx.execute(
                "SELECT credited_through_wh FROM meter_epochs WHERE meter_id = ?", (meter_id,)
            ).fetchone()
            through_wh = epoch["credited_through_wh"]
            credit_wh = 0 if through_wh is None else max(0, export_wh - through_wh)
            tx.execute(
                "UPDATE meter_epochs SET baseline_wh = COALESCE(baseline_wh, :export),"
                " credited_through_wh = CASE WHEN credited_through_wh > :export"
                " THEN credited_through_wh ELSE :export END WHERE meter_id = :meter",
                {"export": export_wh, "meter": meter_id},
            )
            reading_id = tx.execute(
                "INSERT INTO meter_readings (meter_id, epoch, seq, gateway_id, user_id,"
                " reading_timestamp_ms, submitted_at_ms, interval_s, import_wh, export_wh, clock,"
                " flags, boot_id, mono_ms, active_power_w, credit_wh, status, line)"
                " VALUES (?, 'e0', ?, ?, ?, ?, ?, 900, ?, ?, 2, 0, '', 0, ?, ?, 'accepted', ?)"
                " RETURNING reading_id",
                (
                    meter_id,
                    seq,
                    GATEWAY,
                    owner["user_id"],
                    at_ms,
                    at_ms,
                    import_wh,
                    export_wh,
                    power_w,
                    credit_wh,
                    b"",
                ),
            ).fetchone()["reading_id"]
            event = MeterReadingReceived(
                kind="slot",
                reading_id=reading_id,
                user_id=owner["user_id"],
                wallet_address=owner["wallet"],
                meter_id=meter_id,
                status="accepted",
                kwh_amount=kwh_text(credit_wh),
                credit_wh=credit_wh,
                import_wh=import_wh,
                export_wh=export_wh,
                reading_timestamp=rfc3339(at_ms),
                active_power_w=power_w,
            )
            append_event(tx, (user_stream(owner["user_id"]), ADMIN_STREAM), event, at_ms)
        return int(reading_id)

    def event(self, streams: tuple[str, ...], event: MarketEvent) -> None:
        """Commit one event by itself."""
        with self.database.transaction() as tx:
            append_event(tx, streams, event, self.clock.at_ms)

    def seal(self, user_id: str) -> int:
        """Put an owner's unminted credits into a batch on its way; return the batch's id."""
        with self.database.transaction() as tx:
            total_wh = tx.execute(
                "SELECT COALESCE(SUM(credit_wh), 0) FROM meter_readings"
                " WHERE user_id = ? AND credit_wh > 0 AND batch_id IS NULL",
                (user_id,),
            ).fetchone()[0]
            batch_id = tx.execute(
                "INSERT INTO mint_batches (state, memo, merkle_root, leaf_count, marker, total_wh,"
                " total_base_units, sealed_at_ms, oldest_credit_at_ms)"
                " VALUES ('sealed', '', ?, 1, ?, ?, ?, ?, ?) RETURNING batch_id",
                (
                    b"",
                    secrets.token_hex(16),
                    total_wh,
                    total_wh * BASE_UNITS_PER_WH,
                    self.clock.at_ms,
                    self.clock.at_ms,
                ),
            ).fetchone()["batch_id"]
            tx.execute(
                "UPDATE meter_readings SET batch_id = ?"
                " WHERE user_id = ? AND credit_wh > 0 AND batch_id IS NULL",
                (batch_id, user_id),
            )
            tx.execute(
                "INSERT INTO mint_items VALUES (?, ?, ?, 'token-account', ?, ?, NULL)",
                (
                    batch_id,
                    wallet_of(user_id),
                    user_id,
                    total_wh,
                    total_wh * BASE_UNITS_PER_WH,
                ),
            )
        return int(batch_id)

    def finish(self, batch_id: int, slot: int = 312_456_789) -> None:
        """Make a batch final, with the event of each owner."""
        signature = signature_of(batch_id)
        with self.database.transaction() as tx:
            tx.execute(
                "UPDATE mint_batches SET state = 'final', signature = ?, slot = ?,"
                " fee_lamports = 5000, final_at_ms = ? WHERE batch_id = ?",
                (signature, slot, self.clock.at_ms, batch_id),
            )
            tx.execute(
                "UPDATE meter_readings SET minted = 1, mint_tx_signature = ? WHERE batch_id = ?",
                (signature, batch_id),
            )
            items = tx.execute(
                "SELECT * FROM mint_items WHERE batch_id = ?", (batch_id,)
            ).fetchall()
            for item in items:
                meters = tx.execute(
                    "SELECT meter_id, SUM(credit_wh) AS credit_wh, COUNT(*) AS readings"
                    " FROM meter_readings WHERE batch_id = ? AND user_id = ? GROUP BY meter_id",
                    (batch_id, item["user_id"]),
                ).fetchall()
                event = TokensMinted(
                    batch_id=batch_id,
                    user_id=item["user_id"],
                    wallet_address=item["wallet"],
                    meters=tuple(MintedMeter(**dict(meter)) for meter in meters),
                    kwh_amount=kwh_text(item["credit_wh"]),
                    tokens_minted=str(item["amount_base_units"]),
                    decimals=9,
                    transaction_signature=signature,
                    slot=slot,
                    duration_ms=2_300,
                )
                streams = (user_stream(item["user_id"]), ADMIN_STREAM)
                append_event(tx, streams, event, self.clock.at_ms)
