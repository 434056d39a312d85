"""What of the minting can be set, and what a batch's content makes of its id. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from gridtokenx_cloud.batching import BatchLimits, BatchMemo, Markers
from gridtokenx_cloud.errors import ValidationError
from gridtokenx_cloud.formats import TransactionFormat, max_recipients
from gridtokenx_cloud.merkle import leaf_hash, merkle_root
from gridtokenx_cloud.ports.mint import Compose, Composed, Leaf
from gridtokenx_cloud.tokenization import STORE_MAX, Conversion

_MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class MintRules:
    """What of the minting can be set; read again before each pass."""

    conversion: Conversion
    auto_mint_enabled: bool = True
    auto_mint_percentage: int = 100
    auto_trigger_on_submit: bool = False
    polling_interval_s: int = 60
    batch_size: int = 50
    max_transactions_per_batch: int = 20
    mint_threshold_wh: int = 0
    transaction_timeout_s: int = 60
    concurrent_batches: int = 5
    max_batch_size: int = 60
    max_base_units_per_transaction: int = 10**13
    form: TransactionFormat = TransactionFormat.LEGACY
    signatures: int = 2

    @property
    def limits(self) -> BatchLimits:
        """What one transaction may hold."""
        recipients = min(self.max_batch_size, max_recipients(self.form, self.signatures))
        return BatchLimits(recipients, min(self.max_base_units_per_transaction, STORE_MAX))

    def amount_of(self, credit_wh: int) -> int:
        """Return a credit's base units.

        Raises:
            ValidationError: Nothing, or more than one transaction may carry.
        """
        amount = self.conversion.wh_to_base_units(credit_wh)
        cap = self.max_base_units_per_transaction
        if not 0 < amount <= cap:
            raise ValidationError(
                "AmountExceedsMaximum" if amount else "NegativeAmount",
                f"{amount} base units are not within 1 to {cap} per transaction; check the meter,"
                " then raise BLOCKCHAIN_MAX_TOKENS_PER_TRANSACTION",
            )
        return amount


def composer(markers: Markers) -> Compose:
    """Return the function that makes memo and marker of a batch's content."""

    def compose(batch_id: int, leaves: Sequence[Leaf]) -> Composed:
        times = [leaf.reading_timestamp_ms or 0 for leaf in leaves if leaf.reading_timestamp_ms]
        start_min = min(times, default=0) // _MINUTE_MS
        end_min = -(-max(times, default=0) // _MINUTE_MS)
        root = merkle_root([leaf_hash(leaf.line) for leaf in leaves])
        memo = BatchMemo(batch_id, len(leaves), start_min, end_min - start_min, root)
        return Composed(memo, markers.address(batch_id))

    return compose
