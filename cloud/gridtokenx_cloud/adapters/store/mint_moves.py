"""The moves of a batch and its attempts as rows, inside the caller's transaction."""

from gridtokenx_cloud.adapters.store.database import Connection
from gridtokenx_cloud.adapters.store.mint_queue import read_leaves
from gridtokenx_cloud.adapters.store.outbox import append_audit
from gridtokenx_cloud.errors import ClaimsDifferError, DisputedBatchError
from gridtokenx_cloud.ports.mint import Compose, Landing

_ACTOR = "settle"
SEALED = ("sealed",)
PENDING = ("signed", "in_flight")
LIVE = (*SEALED, *PENDING)


def move(
    tx: Connection,
    batch_id: int,
    sources: tuple[str, ...],
    target: str,
    *,
    landing: Landing | None = None,
    dispute: str | None = None,
    now_ms: int | None = None,
) -> None:
    """Change a batch's state; another state than expected means a second writer.

    Raises:
        DisputedBatchError: The batch is not in one of *sources*.
    """
    values = (
        target,
        dispute,
        landing and landing.signature,
        landing and landing.slot,
        landing and landing.fee_lamports,
        now_ms if landing else None,
        batch_id,
        *sources,
    )
    moved = tx.execute(
        "UPDATE mint_batches SET state = ?, dispute = ?, signature = ?, slot = ?,"  # noqa: S608
        " fee_lamports = ?, final_at_ms = ? WHERE batch_id = ?"
        f" AND state IN ({', '.join('?' * len(sources))})",
        values,
    ).rowcount
    if moved != 1:
        raise DisputedBatchError(
            f"batch {batch_id} can't become {target}: it is not {' or '.join(sources)};"
            " is a second minter running on this store?"
        )


def close_attempt(
    tx: Connection, batch_id: int, n: int, outcome: str, now_ms: int, *, error: str | None
) -> None:
    """End the attempt that may still land; *error* is what the chain said of one that failed.

    Raises:
        DisputedBatchError: It has ended already.
    """
    closed = tx.execute(
        "UPDATE mint_attempts SET outcome = ?, error = ?, ended_at_ms = ?"
        " WHERE batch_id = ? AND n = ? AND outcome = 'pending'",
        (outcome, error, now_ms, batch_id, n),
    ).rowcount
    if closed != 1:
        raise DisputedBatchError(
            f"attempt {n} of batch {batch_id} can't become {outcome}: it is not pending; is a"
            " second minter running on this store?"
        )


def check_claims(tx: Connection, batch_id: int) -> None:
    """Refuse to sign what a batch's readings are not worth, or somebody else's.

    Raises:
        ClaimsDifferError: Readings have left the batch, or came to it, since it was composed.
    """
    claimed = tx.execute(
        "SELECT user_id, SUM(credit_wh) AS wh FROM meter_readings"
        " WHERE batch_id = ? AND minted = 0 GROUP BY user_id",
        (batch_id,),
    ).fetchall()
    items = tx.execute(
        "SELECT user_id, credit_wh AS wh FROM mint_items"
        " WHERE batch_id = ? AND held_reason IS NULL",
        (batch_id,),
    ).fetchall()
    worth = {row["user_id"]: int(row["wh"]) for row in claimed}
    owed = {row["user_id"]: int(row["wh"]) for row in items}
    if worth != owed:
        wrong = sorted(
            user for user in worth.keys() | owed.keys() if worth.get(user) != owed.get(user)
        )
        raise ClaimsDifferError(
            f"the readings of batch {batch_id} are not worth what {', '.join(wrong[:5])} would get;"
            " nothing of it was sent: run `gtx-cloud audit`, then `gtx-cloud batch resolve`"
        )


def recompose(tx: Connection, batch_id: int, compose: Compose) -> None:
    """Write memo, tree and sums of what is left in a batch; with nothing left it is void."""
    leaves = read_leaves(tx, batch_id)
    if not leaves:
        move(tx, batch_id, SEALED, "void")
        return
    memo = compose(batch_id, leaves).memo
    totals = tx.execute(
        "SELECT SUM(credit_wh) AS wh, SUM(amount_base_units) AS units FROM mint_items"
        " WHERE batch_id = ? AND held_reason IS NULL",
        (batch_id,),
    ).fetchone()
    tx.execute(
        "UPDATE mint_batches SET memo = ?, merkle_root = ?, leaf_count = ?, total_wh = ?,"
        " total_base_units = ? WHERE batch_id = ?",
        (memo.text(), memo.root, len(leaves), totals["wh"], totals["units"], batch_id),
    )


def audit(tx: Connection, at_ms: int, action: str, subject: str, **detail: object) -> None:
    """Write the audit entry of a move."""
    append_audit(tx, at_ms=at_ms, actor=_ACTOR, action=action, subject=subject, detail=detail)
