"""What the store's own tables have to agree on; each row found here was changed by no program."""

import json
from collections import defaultdict
from collections.abc import Iterator

from gridtokenx_cloud.adapters.store.database import Connection
from gridtokenx_cloud.ports.audit import Difference

_MOST = 100
"""Of each kind: the first ones show where to look."""
_STRANDED_SQL = """
SELECT r.reading_id FROM mint_batches b JOIN meter_readings r ON r.batch_id = b.batch_id
WHERE b.state IN ('final', 'void') AND r.minted = 0 ORDER BY r.reading_id LIMIT ?
"""
# What each recipient of a batch is to get, against what his readings in it are worth.
_SHARES_SQL = """
SELECT batch_id, user_id, SUM(owed_wh) AS owed_wh, SUM(worth_wh) AS worth_wh FROM (
    SELECT i.batch_id, i.user_id, i.credit_wh AS owed_wh, 0 AS worth_wh FROM mint_items i
        WHERE i.held_reason IS NULL
    UNION ALL
    SELECT batch_id, user_id, 0, credit_wh FROM meter_readings WHERE batch_id IS NOT NULL
    UNION ALL
    SELECT batch_id, user_id, 0, credit_wh FROM archived_shares) shares
GROUP BY batch_id, user_id HAVING SUM(owed_wh) <> SUM(worth_wh)
    AND (SELECT state FROM mint_batches b WHERE b.batch_id = shares.batch_id) <> 'void'
ORDER BY batch_id, user_id LIMIT ?
"""
# What the register of each meter moved, against what its readings are credited.
_LEDGER_SQL = """
SELECT e.meter_id, e.moved_wh, c.credit_wh FROM (
    SELECT meter_id, SUM(credited_through_wh - baseline_wh) AS moved_wh FROM meter_epochs
        WHERE baseline_wh IS NOT NULL GROUP BY meter_id) e
JOIN (
    SELECT meter_id, SUM(credit_wh) AS credit_wh FROM (
        SELECT meter_id, credit_wh FROM meter_readings
        UNION ALL SELECT meter_id, credit_wh FROM archived_shares) r
    GROUP BY meter_id) c ON c.meter_id = e.meter_id
WHERE e.moved_wh <> c.credit_wh ORDER BY e.meter_id LIMIT ?
"""
_WALLETS_LOGGED_SQL = """
SELECT subject, detail FROM audit_log WHERE action IN ('user_registered', 'wallet_changed')
ORDER BY entry
"""
_WALLETS_PAID_SQL = "SELECT DISTINCT user_id, wallet FROM mint_items ORDER BY user_id, wallet"


def store_faults(read: Connection) -> Iterator[Difference]:
    """Yield what the tables contradict each other in, at the moment of the snapshot."""
    for row in read.execute(_STRANDED_SQL, (_MOST,)):
        subject = f"reading {row['reading_id']}"
        yield Difference(subject, "ReadingStranded", "not minted, in a batch that is over")
    for row in read.execute(_SHARES_SQL, (_MOST,)):
        yield Difference(
            f"batch {row['batch_id']}",
            "SharesDiffer",
            f"{row['user_id']} gets {row['owed_wh']} Wh, the readings are worth"
            f" {row['worth_wh']} Wh",
        )
    for row in read.execute(_LEDGER_SQL, (_MOST,)):
        yield Difference(
            f"meter {row['meter_id']}",
            "LedgerDiffers",
            f"its registers moved {row['moved_wh']} Wh, its readings are credited"
            f" {row['credit_wh']} Wh",
        )
    yield from _wallet_faults(read)


def _wallet_faults(read: Connection) -> Iterator[Difference]:
    """Yield the wallets that nobody ever registered: every registration is in the audit log."""
    logged: dict[str, list[str]] = defaultdict(list)
    for row in read.execute(_WALLETS_LOGGED_SQL):
        logged[row["subject"]].append(json.loads(row["detail"])["wallet"])
    for row in read.execute("SELECT user_id, wallet FROM users ORDER BY user_id"):
        known = logged.get(row["user_id"])
        if known and known[-1] != row["wallet"]:
            detail = f"the store has {row['wallet']}, the audit log {known[-1]}"
            yield Difference(f"user {row['user_id']}", "WalletDiffers", detail)
    for row in read.execute(_WALLETS_PAID_SQL):
        known = logged.get(row["user_id"])
        if known and row["wallet"] not in known:
            detail = f"paid to {row['wallet']}, which the audit log never names"
            yield Difference(f"user {row['user_id']}", "WalletDiffers", detail)
