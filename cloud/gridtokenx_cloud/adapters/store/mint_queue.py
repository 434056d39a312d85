"""Credits on their way into a batch."""

import json
from collections.abc import Callable, Sequence

from gridtokenx_cloud.adapters.store.database import Connection, Database, Row
from gridtokenx_cloud.adapters.store.mint_refusals import refuse_rows
from gridtokenx_cloud.adapters.store.outbox import append_audit
from gridtokenx_cloud.batching import MintBatchData, MintGroup, MintResult
from gridtokenx_cloud.errors import NotFoundError
from gridtokenx_cloud.ports.mint import (
    Backlog,
    Compose,
    Leaf,
    Refusal,
    Selection,
    UnmintedReading,
)
from gridtokenx_cloud.tokenization import RetryPolicy

_DUST_AGE_MS = 24 * 3600 * 1000

_CREDITS = """
    SELECT r.reading_id, r.user_id, u.wallet AS wallet_address, r.meter_id, r.credit_wh,
        r.submitted_at_ms
"""
_FREE = "r.credit_wh > 0 AND r.minted = 0 AND r.batch_id IS NULL"
_FRESH = f"""
    {_CREDITS} FROM meter_readings r JOIN users u ON u.user_id = r.user_id
    WHERE {_FREE}
    AND NOT EXISTS (SELECT 1 FROM minting_retry_queue q WHERE q.reading_id = r.reading_id)
"""  # noqa: S608 - constants
_ANY_DUE = """
    SELECT 1 FROM minting_retry_queue WHERE parked_at_ms IS NULL AND next_retry_at_ms <= ? LIMIT 1
"""
# From the few refused ones to their readings (CROSS JOIN keeps SQLite to that order): the whole
# backlog is never walked for them.
_DUE = f"""
    {_CREDITS} FROM minting_retry_queue q CROSS JOIN meter_readings r
    JOIN users u ON u.user_id = r.user_id
    WHERE r.reading_id = q.reading_id AND q.parked_at_ms IS NULL AND q.next_retry_at_ms <= ?
    AND {_FREE}
"""
_IN_SHARE = " AND owner_percentile(r.user_id) < ?"
# An owner below the threshold must not fill the window, or others would starve behind.
_ABOVE_DUST = """
    AND r.user_id IN (SELECT user_id FROM mint_queue GROUP BY user_id
        HAVING SUM(credit_wh) >= ? OR MIN(submitted_at_ms) <= ?)
"""
_OLDEST_FIRST = " ORDER BY r.submitted_at_ms, r.reading_id LIMIT ?"


class _TakenError(Exception):
    """Another worker, or a change of owner, was faster; the commit is rolled back."""


class SqlMintQueue:
    """`MintQueue` in a database."""

    def __init__(self, database: Database, retry: Callable[[], RetryPolicy]) -> None:
        self._database = database
        self._retry = retry

    def fetch_unminted(self, selection: Selection) -> list[UnmintedReading]:
        """See `MintQueue.fetch_unminted`."""
        narrowed, values = _narrowed(selection)
        due: list[Row] = []
        if self._select(_ANY_DUE, selection.now_ms):
            half = max(1, selection.limit // 2)
            due = self._select(_DUE + narrowed + _OLDEST_FIRST, selection.now_ms, *values, half)
        rest = selection.limit - len(due)
        fresh = self._select(_FRESH + narrowed + _OLDEST_FIRST, *values, rest)
        rows = sorted(due + fresh, key=lambda row: (row["submitted_at_ms"], row["reading_id"]))
        return [UnmintedReading(**dict(row)) for row in rows]

    def _select(self, sql: str, *values: int) -> list[Row]:
        return self._database.connection.execute(sql, values).fetchall()

    def seal(
        self,
        group: MintGroup,
        token_accounts: dict[str, str],
        compose: Compose,
        now_ms: int,
    ) -> int | None:
        """See `MintQueue.seal`."""
        try:
            with self._database.transaction() as tx:
                batch_id = _open_batch(tx, group, now_ms)
                _claim(tx, batch_id, group)
                _write_items(tx, batch_id, group, token_accounts)
                _write_content(tx, batch_id, group, compose, now_ms)
        except _TakenError:
            return None
        return batch_id

    def refuse(self, readings: Sequence[int], refusal: Refusal, now_ms: int) -> list[int]:
        """See `MintQueue.refuse`."""
        with self._database.transaction() as tx:
            return refuse_rows(tx, readings, refusal, self._retry(), now_ms, None)

    def results_of(self, readings: Sequence[int]) -> list[MintResult]:
        """See `MintQueue.results_of`."""
        return [self._result(reading_id) for reading_id in readings]

    def _result(self, reading_id: int) -> MintResult:
        row = self._database.connection.execute(
            "SELECT r.minted, r.batch_id, r.mint_tx_signature, q.error_code, q.error_message"
            " FROM meter_readings r LEFT JOIN minting_retry_queue q USING (reading_id)"
            " WHERE reading_id = ?",
            (reading_id,),
        ).fetchone()
        if row is None:
            raise NotFoundError(f"reading {reading_id} is not in the store")
        return MintResult(
            reading_id=reading_id,
            success=bool(row["minted"]),
            error_code=row["error_code"],
            error=row["error_message"],
            tx_signature=row["mint_tx_signature"],
            batch_id=row["batch_id"],
        )

    def backlog(self, now_ms: int) -> Backlog:
        """See `MintQueue.backlog`."""
        row = self._database.connection.execute(
            "SELECT COUNT(*) AS free, COUNT(*) FILTER"
            " (WHERE parked_at_ms IS NOT NULL OR next_retry_at_ms > ?) AS waiting FROM mint_queue",
            (now_ms,),
        ).fetchone()
        live = self._database.connection.execute(
            "SELECT COUNT(*) AS n FROM mint_batches"
            " WHERE state IN ('sealed', 'signed', 'in_flight')"
        ).fetchone()
        return Backlog(row["free"] - row["waiting"], row["waiting"], live["n"])


def _narrowed(selection: Selection) -> tuple[str, list[int]]:
    """Return the conditions that are switched on, with their values.

    A server plans a condition that is always true all the same, for each month of readings anew.
    """
    sql, values = "", []
    if selection.owner_percent < 100:
        sql += _IN_SHARE
        values.append(selection.owner_percent)
    if selection.threshold_wh:
        sql += _ABOVE_DUST
        values += [selection.threshold_wh, selection.now_ms - _DUST_AGE_MS]
    return sql, values


def read_leaves(tx: Connection, batch_id: int) -> list[Leaf]:
    """Return a batch's readings in the order of the tree."""
    rows = tx.execute(
        "SELECT meter_id, epoch, seq, reading_timestamp_ms, line FROM meter_readings"
        " WHERE batch_id = ? ORDER BY meter_id, epoch, seq",
        (batch_id,),
    )
    return [Leaf(**dict(row)) for row in rows]


def _open_batch(tx: Connection, group: MintGroup, now_ms: int) -> int:
    row = tx.execute(
        "INSERT INTO mint_batches (state, memo, merkle_root, leaf_count, marker, total_wh,"
        " total_base_units, sealed_at_ms, oldest_credit_at_ms)"
        " VALUES ('sealed', '', ?, 0, '', ?, ?, ?, ?) RETURNING batch_id",
        (
            b"",
            sum(item.credit_wh for item in group.items),
            group.total_base_units,
            now_ms,
            now_ms,
        ),
    ).fetchone()
    return int(row["batch_id"])


def _claim(tx: Connection, batch_id: int, group: MintGroup) -> None:
    """Tie the readings to the batch; refuse it when one has changed since it was fetched.

    A reading that another transaction is writing to counts as changed: nobody waits here.
    """
    wanted = [[item.reading_id] for item in group.items]
    lock = tx.dialect.row_lock("r", skip_locked=True)
    free = tx.execute(
        f"SELECT r.reading_id FROM {tx.dialect.rows('#id')} k"  # noqa: S608 - our own columns
        f" JOIN meter_readings r ON r.reading_id = k.id ORDER BY 1{lock}",
        (json.dumps(wanted),),
    ).fetchall()
    if len(free) != len(wanted):
        raise _TakenError
    claimed = tx.executemany(
        "UPDATE meter_readings SET batch_id = ? WHERE reading_id = ? AND credit_wh = ?"
        " AND minted = 0 AND batch_id IS NULL"
        " AND user_id = (SELECT user_id FROM users WHERE user_id = ? AND wallet = ?)",
        [
            (batch_id, item.reading_id, item.credit_wh, item.user_id, item.wallet_address)
            for item in group.items
        ],
    ).rowcount
    if claimed != len(group.items):
        raise _TakenError


def _write_content(
    tx: Connection, batch_id: int, group: MintGroup, compose: Compose, now_ms: int
) -> None:
    leaves = read_leaves(tx, batch_id)
    composed = compose(batch_id, leaves)
    memo = composed.memo
    tx.execute(
        "UPDATE mint_batches SET memo = ?, merkle_root = ?, leaf_count = ?, marker = ?,"
        " oldest_credit_at_ms = (SELECT MIN(submitted_at_ms) FROM meter_readings"
        " WHERE batch_id = ?) WHERE batch_id = ?",
        (memo.text(), memo.root, len(leaves), composed.marker, batch_id, batch_id),
    )
    append_audit(
        tx,
        at_ms=now_ms,
        actor="settle",
        action="batch_sealed",
        subject=f"batch:{batch_id}",
        detail={
            "readings": len(leaves),
            "recipients": len(group.wallets),
            "base_units": str(group.total_base_units),
            "memo": memo.text(),
        },
    )


def _write_items(
    tx: Connection, batch_id: int, group: MintGroup, token_accounts: dict[str, str]
) -> None:
    of_wallet: dict[str, list[MintBatchData]] = {}
    for item in group.items:
        of_wallet.setdefault(item.wallet_address, []).append(item)
    tx.executemany(
        "INSERT INTO mint_items (batch_id, wallet, user_id, token_account, credit_wh,"
        " amount_base_units) VALUES (?, ?, ?, ?, ?, ?)",
        [
            (
                batch_id,
                wallet,
                mine[0].user_id,
                token_accounts[wallet],
                sum(item.credit_wh for item in mine),
                sum(item.amount_base_units for item in mine),
            )
            for wallet, mine in of_wallet.items()
        ],
    )
