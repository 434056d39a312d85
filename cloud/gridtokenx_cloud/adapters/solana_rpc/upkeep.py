"""`UpkeepChain` over JSON-RPC."""

from collections.abc import Sequence

from solders.instruction import Instruction
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM
from solders.system_program import TransferWithSeedParams, transfer_with_seed

from gridtokenx_cloud.adapters.solana_rpc.sending import FINALIZED, Sender
from gridtokenx_cloud.adapters.solana_rpc.tables import LookupTables
from gridtokenx_cloud.batching import Markers, estimate_fee
from gridtokenx_cloud.formats import TransactionFormat
from gridtokenx_cloud.ports.upkeep import OldMarker, PayerFloat

_USUAL_UNITS = 15_000
_MARKERS_PER_TRANSACTION = {TransactionFormat.V1: 28}
_MARKERS_PER_LEGACY_TRANSACTION = 7


class SolanaUpkeep:
    """Brings back what the minting of one token has locked."""

    def __init__(
        self, sender: Sender, markers: Markers, form: TransactionFormat, tables: LookupTables
    ) -> None:
        self._sender = sender
        self._markers = markers
        self._form = form
        self._tables = tables

    async def payer_float(self) -> PayerFloat:
        """See `UpkeepChain.payer_float`."""
        payer = str(self._sender.token.payer)
        reply = await self._sender.rpc.call("getBalance", payer, {"commitment": "confirmed"})
        price = await self._sender.unit_price()
        fee = estimate_fee(self._sender.signatures, price, _USUAL_UNITS)
        return PayerFloat(int(reply["value"]), fee + await self._sender.marker_rent())

    async def empty_markers(self, markers: Sequence[OldMarker]) -> int | None:
        """See `UpkeepChain.empty_markers`."""
        wide = self._form is TransactionFormat.V1
        form = TransactionFormat.V1 if wide else TransactionFormat.LEGACY
        most = _MARKERS_PER_TRANSACTION.get(form, _MARKERS_PER_LEGACY_TRANSACTION)
        came_back = 0
        for start in range(0, len(markers), most):
            part = await self._standing(markers[start : start + most])

            async def gone(part: dict[OldMarker, int] = part) -> bool:
                return not await self._standing(tuple(part))

            takes = [self._take(one, lamports) for one, lamports in part.items()]
            if takes and not await self._sender.until(takes, gone, form):
                return None
            came_back += sum(part.values())
        return came_back

    async def _standing(self, markers: Sequence[OldMarker]) -> dict[OldMarker, int]:
        """Return the markers that exist in the finalized state, with their lamports.

        Those of a former authority are not ours to empty; a handover takes them back.
        """
        markers = [one for one in markers if one.marker == self._markers.address(one.batch_id)]
        if not markers:
            return {}
        addresses = [one.marker for one in markers]
        options = {**FINALIZED, "encoding": "base64"}
        reply = await self._sender.rpc.call("getMultipleAccounts", addresses, options)
        pairs = zip(markers, reply["value"], strict=True)
        return {one: account["lamports"] for one, account in pairs if account is not None}

    def _take(self, one: OldMarker, lamports: int) -> Instruction:
        return transfer_with_seed(
            TransferWithSeedParams(
                from_pubkey=Pubkey.from_string(one.marker),
                from_base=self._sender.token.authority,
                from_seed=self._markers.seed(one.batch_id),
                from_owner=SYSTEM,
                to_pubkey=self._sender.token.payer,
                lamports=lamports,
            )
        )

    async def sweep_tables(self) -> None:
        """See `UpkeepChain.sweep_tables`."""
        await self._tables.sweep(needed=self._form is TransactionFormat.V0)
