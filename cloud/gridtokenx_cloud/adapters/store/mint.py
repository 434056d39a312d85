"""Batches and attempts of the minting service: every move is one commit with its audit entry."""

from collections.abc import Callable

from gridtokenx_cloud.adapters.store.database import Connection, Database, Row
from gridtokenx_cloud.adapters.store.mint_events import batch_completed, owners_minted
from gridtokenx_cloud.adapters.store.mint_moves import (
    LIVE,
    PENDING,
    SEALED,
    audit,
    check_claims,
    close_attempt,
    move,
    recompose,
)
from gridtokenx_cloud.adapters.store.mint_queue import SqlMintQueue
from gridtokenx_cloud.adapters.store.mint_refusals import refuse_rows
from gridtokenx_cloud.adapters.store.outbox import append_events, only_writer
from gridtokenx_cloud.errors import ConfigError, DisputedBatchError
from gridtokenx_cloud.events import ADMIN_STREAM, MarketEvent, user_stream
from gridtokenx_cloud.mint_state import OUT_OF_COMPUTE, ChainError
from gridtokenx_cloud.ports.mint import Attempt, Compose, Landing, MintBatch, MintItem, Refusal
from gridtokenx_cloud.tokenization import Conversion, RetryPolicy


class SqlMintStore(SqlMintQueue):
    """`MintStore` over SQLite.

    Args:
        database: The store.
        conversion: For amounts in events.
        retry: Asked when a refused credit is tried again.
    """

    def __init__(
        self, database: Database, conversion: Conversion, retry: Callable[[], RetryPolicy]
    ) -> None:
        super().__init__(database, retry)
        self._conversion = conversion

    def bind(self, facts: dict[str, str], now_ms: int) -> None:
        """Tie the store to what must never change under it; the first caller sets it.

        Raises:
            ConfigError: A value differs from the one this store was started with.
        """
        with self._database.transaction() as tx:
            # Two processes may start at once: the second one finds what the first one has bound.
            only_writer(tx)
            known = {row["name"]: row["value"] for row in tx.execute("SELECT * FROM facts")}
            faults = tuple(
                f"{name} is {value}, but this store was started with {known[name]};"
                " use the former value, or a new store"
                for name, value in facts.items()
                if known.get(name, value) != value
            )
            if faults:
                raise ConfigError(faults)
            new = [(name, value) for name, value in facts.items() if name not in known]
            tx.executemany("INSERT INTO facts (name, value) VALUES (?, ?)", new)
            for name, value in new:
                audit(tx, now_ms, "config_changed", f"fact:{name}", value=value)

    def live_batches(self) -> list[int]:
        """See `MintBatches.live_batches`."""
        rows = self._database.connection.execute(
            "SELECT batch_id FROM mint_batches"
            " WHERE state IN ('sealed', 'signed', 'in_flight') ORDER BY batch_id"
        )
        return [row["batch_id"] for row in rows]

    def load(self, batch_id: int) -> MintBatch | None:
        """See `MintBatches.load`."""
        read = self._database.connection
        row = read.execute(
            "SELECT * FROM mint_batches WHERE batch_id = ?"
            " AND state IN ('sealed', 'signed', 'in_flight')",
            (batch_id,),
        ).fetchone()
        if row is None:
            return None
        attempts = read.execute(
            "SELECT * FROM mint_attempts WHERE batch_id = ? ORDER BY n", (batch_id,)
        ).fetchall()
        pending = [_attempt(entry) for entry in attempts if entry["outcome"] == "pending"]
        return MintBatch(
            batch_id=batch_id,
            memo=row["memo"],
            marker=row["marker"],
            items=_items(read, batch_id),
            attempt=pending[0] if pending else None,
            attempts=len(attempts),
            exhausted_attempts=sum(
                any(name in (entry["error"] or "") for name in OUT_OF_COMPUTE) for entry in attempts
            ),
            sealed_at_ms=row["sealed_at_ms"],
            oldest_credit_at_ms=row["oldest_credit_at_ms"],
        )

    def record_attempt(self, batch_id: int, attempt: Attempt, now_ms: int) -> None:
        """See `MintAttempts.record_attempt`."""
        with self._database.transaction() as tx:
            move(tx, batch_id, SEALED, "signed")
            check_claims(tx, batch_id)
            tx.execute(
                "INSERT INTO mint_attempts (batch_id, n, signature, raw, last_valid_block_height,"
                " outcome, signed_at_ms) VALUES (?, ?, ?, ?, ?, 'pending', ?)",
                (
                    batch_id,
                    attempt.n,
                    attempt.signature,
                    attempt.raw,
                    attempt.last_valid_block_height,
                    now_ms,
                ),
            )
            audit(
                tx,
                now_ms,
                "attempt_signed",
                f"batch:{batch_id}",
                n=attempt.n,
                signature=attempt.signature,
                last_valid_block_height=attempt.last_valid_block_height,
            )

    def mark_sent(self, batch_id: int, n: int, now_ms: int) -> None:
        """See `MintAttempts.mark_sent`."""
        with self._database.transaction() as tx:
            move(tx, batch_id, PENDING, "in_flight")
            tx.execute(
                "UPDATE mint_attempts SET sent_at_ms = ? WHERE batch_id = ? AND n = ?"
                " AND outcome = 'pending' AND sent_at_ms IS NULL",
                (now_ms, batch_id, n),
            )
            audit(tx, now_ms, "attempt_sent", f"batch:{batch_id}", n=n)

    def end_attempt(self, batch_id: int, n: int, failure: ChainError | None, now_ms: int) -> None:
        """See `MintAttempts.end_attempt`."""
        outcome = "expired" if failure is None else "failed"
        with self._database.transaction() as tx:
            # One that was disputed and is driven again is sealed, with its attempt under way.
            move(tx, batch_id, LIVE, "sealed")
            close_attempt(
                tx, batch_id, n, outcome, now_ms, error=None if failure is None else str(failure)
            )
            action = "attempt_expired" if failure is None else "batch_classified"
            audit(tx, now_ms, action, f"batch:{batch_id}", n=n, error=str(failure or ""))

    def reseal_without(
        self, batch_id: int, wallet: str, refusal: Refusal, compose: Compose, now_ms: int
    ) -> None:
        """See `MintBatches.reseal_without`."""
        with self._database.transaction() as tx:
            # Only from sealed: what an attempt in flight carries must stay in its batch.
            move(tx, batch_id, SEALED, "sealed")
            tx.execute(
                "UPDATE mint_items SET held_reason = ? WHERE batch_id = ? AND wallet = ?",
                (f"{refusal.code}: {refusal.reason}", batch_id, wallet),
            )
            rows = tx.execute(
                "UPDATE meter_readings SET batch_id = NULL WHERE batch_id = ? AND minted = 0"
                " AND user_id = (SELECT user_id FROM mint_items WHERE batch_id = ? AND wallet = ?)"
                " RETURNING reading_id",
                (batch_id, batch_id, wallet),
            ).fetchall()
            refuse_rows(
                tx, [row["reading_id"] for row in rows], refusal, self._retry(), now_ms, batch_id
            )
            recompose(tx, batch_id, compose)
            audit(
                tx,
                now_ms,
                "recipient_held",
                f"batch:{batch_id}",
                wallet=wallet,
                code=refusal.code,
                reason=refusal.reason,
                readings=len(rows),
            )

    def mark_final(self, batch_id: int, landing: Landing, now_ms: int) -> None:
        """See `MintBatches.mark_final`."""
        with self._database.transaction() as tx:
            batch = tx.execute(
                "SELECT * FROM mint_batches WHERE batch_id = ?", (batch_id,)
            ).fetchone()
            move(tx, batch_id, LIVE, "final", landing=landing, now_ms=now_ms)
            tx.execute(
                "UPDATE mint_attempts SET ended_at_ms = ?, slot = ?,"
                " outcome = CASE WHEN signature = ? THEN 'landed' ELSE 'expired' END"
                " WHERE batch_id = ? AND (outcome = 'pending' OR signature = ?)",
                (now_ms, landing.slot, landing.signature, batch_id, landing.signature),
            )
            minted = tx.execute(
                "UPDATE meter_readings SET minted = 1, mint_tx_signature = ?"
                " WHERE batch_id = ? AND minted = 0",
                (landing.signature, batch_id),
            ).rowcount
            if minted != batch["leaf_count"]:
                raise DisputedBatchError(
                    f"batch {batch_id} is minted on chain by {landing.signature}, but {minted} of"
                    f" its {batch['leaf_count']} readings are here; run `gtx-cloud audit`"
                )
            tx.execute(
                "DELETE FROM minting_retry_queue WHERE reading_id IN"
                " (SELECT reading_id FROM meter_readings WHERE batch_id = ?)",
                (batch_id,),
            )
            told: list[tuple[tuple[str, ...], MarketEvent]] = [
                ((user_stream(event.user_id), ADMIN_STREAM), event)
                for event in owners_minted(tx, batch_id, landing, self._conversion, now_ms)
            ]
            done = batch_completed(tx, batch_id, landing, self._conversion, now_ms)
            append_events(tx, [*told, ((ADMIN_STREAM,), done)], now_ms)
            audit(
                tx,
                now_ms,
                "batch_final",
                f"batch:{batch_id}",
                signature=landing.signature,
                slot=landing.slot,
                readings=minted,
                base_units=str(batch["total_base_units"]),
            )

    def dispute(self, batch_id: int, reason: str, now_ms: int) -> None:
        """See `MintBatches.dispute`."""
        with self._database.transaction() as tx:
            move(tx, batch_id, LIVE, "disputed", dispute=reason)
            audit(tx, now_ms, "batch_disputed", f"batch:{batch_id}", reason=reason)


def _attempt(row: Row) -> Attempt:
    return Attempt(
        n=row["n"],
        signature=row["signature"],
        raw=row["raw"],
        last_valid_block_height=row["last_valid_block_height"],
        sent=row["sent_at_ms"] is not None,
    )


def _items(read: Connection, batch_id: int) -> tuple[MintItem, ...]:
    rows = read.execute(
        "SELECT wallet, user_id, token_account, credit_wh, amount_base_units FROM mint_items"
        " WHERE batch_id = ? AND held_reason IS NULL ORDER BY wallet",
        (batch_id,),
    )
    return tuple(MintItem(*row) for row in rows)
