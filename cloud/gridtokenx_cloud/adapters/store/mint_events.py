"""What owners and operators hear when a batch is final."""

from collections.abc import Iterator

from gridtokenx_cloud.adapters.store.database import Connection
from gridtokenx_cloud.events import (
    BatchMintingCompleted,
    MintedMeter,
    TokensMinted,
    kwh_text,
)
from gridtokenx_cloud.ports.mint import Landing
from gridtokenx_cloud.tokenization import Conversion


def owners_minted(
    tx: Connection, batch_id: int, landing: Landing, conversion: Conversion, now_ms: int
) -> Iterator[TokensMinted]:
    """Return each owner's part of the batch, with its meters."""
    items = tx.execute(
        "SELECT i.*, b.oldest_credit_at_ms FROM mint_items i JOIN mint_batches b USING (batch_id)"
        " WHERE i.batch_id = ? AND i.held_reason IS NULL ORDER BY i.wallet",
        (batch_id,),
    ).fetchall()
    of_user: dict[str, list[MintedMeter]] = {}
    for row in tx.execute(
        "SELECT user_id, meter_id, SUM(credit_wh) AS credit_wh, COUNT(*) AS readings"
        " FROM meter_readings WHERE batch_id = ? GROUP BY user_id, meter_id ORDER BY meter_id",
        (batch_id,),
    ):
        meter = MintedMeter(
            meter_id=row["meter_id"], credit_wh=int(row["credit_wh"]), readings=row["readings"]
        )
        of_user.setdefault(row["user_id"], []).append(meter)
    for item in items:
        yield TokensMinted(
            batch_id=batch_id,
            user_id=item["user_id"],
            wallet_address=item["wallet"],
            meters=tuple(of_user[item["user_id"]]),
            kwh_amount=kwh_text(item["credit_wh"]),
            tokens_minted=str(item["amount_base_units"]),
            decimals=conversion.decimals,
            transaction_signature=landing.signature,
            slot=landing.slot or 0,
            duration_ms=max(0, now_ms - item["oldest_credit_at_ms"]),
        )


def batch_completed(
    tx: Connection, batch_id: int, landing: Landing, conversion: Conversion, now_ms: int
) -> BatchMintingCompleted:
    """Return the operators' summary of a batch."""
    batch = tx.execute("SELECT * FROM mint_batches WHERE batch_id = ?", (batch_id,)).fetchone()
    recipients = tx.execute(
        "SELECT COUNT(*) FILTER (WHERE held_reason IS NULL) AS minted,"
        " COUNT(held_reason) AS held FROM mint_items WHERE batch_id = ?",
        (batch_id,),
    ).fetchone()
    return BatchMintingCompleted(
        batch_id=batch_id,
        total_readings=batch["leaf_count"],
        successful_mints=recipients["minted"],
        failed_mints=recipients["held"],
        recipients=recipients["minted"],
        total_wh=batch["total_wh"],
        tokens_minted=str(conversion.wh_to_base_units(batch["total_wh"])),
        transaction_signature=landing.signature,
        fee_lamports=landing.fee_lamports or 0,
        duration_ms=max(0, now_ms - batch["sealed_at_ms"]),
    )
