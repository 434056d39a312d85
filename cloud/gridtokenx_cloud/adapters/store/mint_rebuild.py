"""Operators' work on batches: look at one, decide a disputed one, restore what was lost."""

import json

from gridtokenx_cloud.adapters.store.database import Connection, Database
from gridtokenx_cloud.adapters.store.outbox import append_audit
from gridtokenx_cloud.errors import DisputedBatchError, NotFoundError
from gridtokenx_cloud.events import kwh_text, rfc3339
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.ports.mint import Wallets
from gridtokenx_cloud.rebuild import CreditLine, Restored

Shown = dict[str, object]


class SqlBatchDesk:
    """Every change is one commit with its audit entry."""

    def __init__(self, database: Database, clock: Clock, *, actor: str) -> None:
        self._database = database
        self._clock = clock
        self._actor = actor

    def show(self, batch_id: int) -> Shown:
        """Return all that is known of a batch.

        Raises:
            NotFoundError: There is none of this number.
        """
        read = self._database.connection
        row = read.execute("SELECT * FROM mint_batches WHERE batch_id = ?", (batch_id,)).fetchone()
        if row is None:
            raise NotFoundError(f"batch {batch_id} is not in the store")
        items = read.execute(
            "SELECT wallet, token_account, credit_wh, amount_base_units, held_reason"
            " FROM mint_items WHERE batch_id = ? ORDER BY wallet",
            (batch_id,),
        )
        attempts = read.execute(
            "SELECT n, signature, outcome, error, slot, last_valid_block_height, signed_at_ms"
            " FROM mint_attempts WHERE batch_id = ? ORDER BY n",
            (batch_id,),
        )
        return {
            "batch_id": batch_id,
            "state": row["state"],
            "dispute": row["dispute"],
            "memo": row["memo"],
            "marker": row["marker"],
            "kwh": kwh_text(row["total_wh"]),
            "base_units": str(row["total_base_units"]),
            "readings": row["leaf_count"],
            "sealed_at": rfc3339(row["sealed_at_ms"]),
            "signature": row["signature"],
            "items": [
                {**dict(item), "amount_base_units": str(item["amount_base_units"])}
                for item in items
            ],
            "attempts": [
                {**dict(one), "signed_at": rfc3339(one["signed_at_ms"])} for one in attempts
            ],
        }

    def reopen(self, batch_id: int, evidence: dict[str, object]) -> None:
        """Let a disputed batch be driven again, to the end that the chain has for it.

        Raises:
            DisputedBatchError: It is not disputed.
        """
        with self._database.transaction() as tx:
            self._move(tx, batch_id, "sealed")
            self._audit(tx, "dispute_reopened", f"batch:{batch_id}", **evidence)

    def release(self, batch_id: int, evidence: dict[str, object]) -> int:
        """End a disputed batch without a mint; its credits go into new ones. Return how many.

        Raises:
            DisputedBatchError: It is not disputed.
        """
        with self._database.transaction() as tx:
            self._move(tx, batch_id, "void")
            tx.execute(
                "UPDATE mint_attempts SET outcome = 'expired', ended_at_ms = ?"
                " WHERE batch_id = ? AND outcome = 'pending'",
                (self._clock.now_ms(), batch_id),
            )
            freed = tx.execute(
                "UPDATE meter_readings SET batch_id = NULL WHERE batch_id = ? AND minted = 0",
                (batch_id,),
            ).rowcount
            self._audit(tx, "dispute_released", f"batch:{batch_id}", readings=freed, **evidence)
        return freed

    def _move(self, tx: Connection, batch_id: int, target: str) -> None:
        moved = tx.execute(
            "UPDATE mint_batches SET state = ?, dispute = NULL"
            " WHERE batch_id = ? AND state = 'disputed'",
            (target, batch_id),
        ).rowcount
        if moved != 1:
            raise DisputedBatchError(f"batch {batch_id} is not disputed; nothing was changed")

    def states(self) -> dict[int, str]:
        """Return the state of every batch."""
        rows = self._database.connection.execute("SELECT batch_id, state FROM mint_batches")
        return {row["batch_id"]: row["state"] for row in rows}

    def lines(self, wallets: Wallets) -> list[CreditLine]:
        """Return the readings that are worth something and not marked minted, oldest first."""
        rows = self._database.connection.execute(
            "SELECT r.reading_id, r.user_id, u.wallet, r.credit_wh, r.meter_id, r.epoch, r.seq,"
            " r.submitted_at_ms, r.line, r.batch_id FROM meter_readings r"
            " JOIN users u ON u.user_id = r.user_id WHERE r.credit_wh > 0 AND r.minted = 0"
            " ORDER BY r.submitted_at_ms, r.reading_id"
        )
        return [
            CreditLine(
                reading_id=row["reading_id"],
                user_id=row["user_id"],
                wallet=row["wallet"],
                token_account=wallets.token_account(row["wallet"]),
                credit_wh=row["credit_wh"],
                order=(row["meter_id"], row["epoch"], row["seq"]),
                submitted_at_ms=row["submitted_at_ms"],
                line=bytes(row["line"]),
                batch_id=row["batch_id"],
            )
            for row in rows
        ]

    def restore(self, one: Restored) -> None:
        """Write a batch down as final, with its items, its attempt and its readings."""
        batch_id, now_ms = one.memo.batch_id, self._clock.now_ms()
        with self._database.transaction() as tx:
            _write_batch(tx, one, now_ms)
            _write_items(tx, one)
            _write_attempt(tx, one, now_ms)
            # What was sealed under this number and is not in the mint goes into another batch.
            tx.execute(
                "UPDATE meter_readings SET batch_id = NULL WHERE batch_id = ? AND minted = 0",
                (batch_id,),
            )
            ids = json.dumps([[line.reading_id] for line in one.lines])
            tx.execute(
                "UPDATE meter_readings SET batch_id = ?, minted = 1, mint_tx_signature = ?"  # noqa: S608 - our own columns
                f" WHERE reading_id IN (SELECT id FROM {tx.dialect.rows('#id')} k)",
                (batch_id, one.mint.signature, ids),
            )
            tx.execute(
                "DELETE FROM minting_retry_queue WHERE reading_id IN"
                " (SELECT reading_id FROM meter_readings WHERE batch_id = ?)",
                (batch_id,),
            )
            for broken in _shrink_others(tx, batch_id):
                self._audit(tx, "batch_void", f"batch:{broken}", restored=batch_id)
            self._audit(
                tx,
                "batch_restored",
                f"batch:{batch_id}",
                signature=one.mint.signature,
                slot=one.mint.slot,
                readings=len(one.lines),
            )

    def _audit(self, tx: Connection, action: str, subject: str, **detail: object) -> None:
        append_audit(
            tx,
            at_ms=self._clock.now_ms(),
            actor=self._actor,
            action=action,
            subject=subject,
            detail=detail,
        )


def _write_batch(tx: Connection, one: Restored, now_ms: int) -> None:
    tx.execute(
        "INSERT INTO mint_batches (batch_id, state, memo, merkle_root, leaf_count, marker,"
        " total_wh, total_base_units, sealed_at_ms, oldest_credit_at_ms, final_at_ms, signature,"
        " slot, fee_lamports) VALUES (?, 'final', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (batch_id) DO UPDATE SET state = 'final', memo = excluded.memo,"
        " merkle_root = excluded.merkle_root, leaf_count = excluded.leaf_count,"
        " total_wh = excluded.total_wh, total_base_units = excluded.total_base_units,"
        " final_at_ms = excluded.final_at_ms, signature = excluded.signature,"
        " slot = excluded.slot, fee_lamports = excluded.fee_lamports",
        (
            one.memo.batch_id,
            one.memo.text(),
            one.memo.root,
            one.memo.leaves,
            one.mint.created[0],
            sum(line.credit_wh for line in one.lines),
            sum(one.mint.payments.values()),
            now_ms,
            min(line.submitted_at_ms for line in one.lines),
            now_ms,
            one.mint.signature,
            one.mint.slot,
            one.mint.fee_lamports,
        ),
    )
    if tx.dialect.batch_number_given:
        tx.execute(tx.dialect.batch_number_given)


def _write_items(tx: Connection, one: Restored) -> None:
    tx.execute("DELETE FROM mint_items WHERE batch_id = ?", (one.memo.batch_id,))
    of_account: dict[str, list[CreditLine]] = {}
    for line in one.lines:
        of_account.setdefault(line.token_account, []).append(line)
    tx.executemany(
        "INSERT INTO mint_items (batch_id, wallet, user_id, token_account, credit_wh,"
        " amount_base_units) VALUES (?, ?, ?, ?, ?, ?)",
        [
            (
                one.memo.batch_id,
                mine[0].wallet,
                mine[0].user_id,
                account,
                sum(line.credit_wh for line in mine),
                one.mint.payments[account],
            )
            for account, mine in of_account.items()
        ],
    )


def _write_attempt(tx: Connection, one: Restored, now_ms: int) -> None:
    batch_id = one.memo.batch_id
    tx.execute(
        "UPDATE mint_attempts SET ended_at_ms = ?, outcome = 'expired'"
        " WHERE batch_id = ? AND outcome = 'pending'",
        (now_ms, batch_id),
    )
    tx.execute(
        "INSERT INTO mint_attempts (batch_id, n, signature, raw, last_valid_block_height,"
        " outcome, slot, signed_at_ms, ended_at_ms)"
        " SELECT ?, COALESCE(MAX(n), 0) + 1, ?, ?, 0, 'landed', ?, ?, ?"
        " FROM mint_attempts WHERE batch_id = ?"
        " ON CONFLICT (signature) DO UPDATE SET outcome = 'landed', slot = excluded.slot",
        (
            batch_id,
            one.mint.signature,
            one.mint.raw,
            one.mint.slot,
            now_ms,
            now_ms,
            batch_id,
        ),
    )


def _shrink_others(tx: Connection, batch_id: int) -> list[int]:
    """Free what claimed a restored reading and can't mint as it is; return those batches."""
    broken = tx.execute(
        "SELECT b.batch_id FROM mint_batches b WHERE b.state = 'sealed' AND b.batch_id <> ?"
        " AND b.leaf_count <> (SELECT COUNT(*) FROM meter_readings r"
        " WHERE r.batch_id = b.batch_id)",
        (batch_id,),
    ).fetchall()
    numbers = [row["batch_id"] for row in broken]
    for number in numbers:
        tx.execute("UPDATE mint_batches SET state = 'void' WHERE batch_id = ?", (number,))
        tx.execute(
            "UPDATE meter_readings SET batch_id = NULL WHERE batch_id = ? AND minted = 0",
            (number,),
        )
    return numbers
