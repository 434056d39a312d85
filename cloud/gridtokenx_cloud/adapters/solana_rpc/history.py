"""Looks into finalized transactions: who made a marker, what our authority ever minted."""

import base64
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from gridtokenx_cloud.adapters.solana_rpc.handover import former_authority, handover_account
from gridtokenx_cloud.adapters.solana_rpc.readback import (
    Called,
    MintTransaction,
    decode_base58,
    read_transaction,
)
from gridtokenx_cloud.adapters.solana_rpc.rpc import JsonRpc
from gridtokenx_cloud.adapters.solana_rpc.transactions import Token
from gridtokenx_cloud.errors import RpcUnavailableError
from gridtokenx_cloud.mint_state import MarkerOrigin
from gridtokenx_cloud.ports.audit import ChainMint
from gridtokenx_cloud.ports.mint import MintBatch

_FINALIZED = {"commitment": "finalized"}
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class _Found:
    raw: bytes
    transaction: MintTransaction
    slot: int
    fee_lamports: int


class SolanaHistory:
    """`MintHistory` and `AuditChain` for one token."""

    def __init__(self, rpc: JsonRpc, token: Token) -> None:
        self._rpc = rpc
        self._token = token
        self._authorities: tuple[Pubkey, ...] = ()

    async def authorities(self) -> tuple[Pubkey, ...]:
        """Return who could ever mint, the present authority first, as handovers on chain tell."""
        if not self._authorities:
            found = [self._token.authority]
            while (former := await self._former(found[-1])) and former not in found:
                found.append(former)
            self._authorities = tuple(found)
        return self._authorities

    async def _former(self, authority: Pubkey) -> Pubkey | None:
        account = str(handover_account(self._token.mint, authority))
        if not await self.exists(account):
            return None
        # The oldest one made it; what strangers did with it since comes before.
        listed = [entry["signature"] async for entry in self._signatures(account)]
        whole = False
        for signature in reversed(listed):
            reply = await self._fetch(signature)
            if reply is None:
                continue
            raw = base64.b64decode(reply["transaction"][0])
            if former := former_authority(raw, self._token, authority):
                return former
            whole = whole or _was_empty(reply, raw, account)
        if whole:
            # Anybody can send lamports to an address; nobody handed anything over here.
            return None
        raise RpcUnavailableError(
            f"the handover of {self._token.mint} to {authority} can't be read; use an RPC endpoint"
            " that keeps the whole history"
        )

    async def marker_origin(self, batch: MintBatch) -> MarkerOrigin | None:
        """See `MintHistory.marker_origin`.

        Raises:
            RpcUnavailableError: The marker is not final yet, so nothing can be said.
        """
        options = {**_FINALIZED, "encoding": "base64"}
        marker = await self._rpc.call("getAccountInfo", batch.marker, options)
        if marker["value"] is None:
            raise RpcUnavailableError(f"marker {batch.marker} is not final yet")
        owed = {item.token_account: item.amount_base_units for item in batch.items}
        return await self._maker(batch.marker, owed)

    async def maker_of(self, marker: str) -> MarkerOrigin | None:
        """Return the transaction that made a marker of ours, else a stranger's that touched it."""
        return await self._maker(marker, {})

    async def _maker(self, marker: str, owed: Mapping[str, int]) -> MarkerOrigin | None:
        stranger: MarkerOrigin | None = None
        async for entry in self._signatures(marker):
            found = await self._transaction(entry["signature"])
            if found is None:
                continue
            made = found.transaction
            if not made.authority_signed:
                stranger = MarkerOrigin(made.signature, found.slot, matches=False, ours=False)
            elif marker in made.created:
                return MarkerOrigin(made.signature, found.slot, made.payments == owed)
        return stranger

    async def fee_lamports(self, signature: str) -> int | None:
        """See `MintHistory.fee_lamports`."""
        found = await self._transaction(signature)
        return found.fee_lamports if found else None

    async def mints(self) -> AsyncIterator[ChainMint]:
        """Return every finalized mint our authorities signed, the newest of each first."""
        for authority in await self.authorities():
            async for entry in self._signatures(str(authority)):
                if mint := await self._mint(entry["signature"]):
                    yield mint

    async def newest_mints(self, known: frozenset[str]) -> AsyncIterator[ChainMint]:
        """See `AuditChain.newest_mints`."""
        # A store of before a handover does not know what the former authority minted last.
        for authority in await self.authorities():
            for entry in await self._page(str(authority), {}):
                fresh = entry.get("err") is None and entry["signature"] not in known
                if fresh and (mint := await self._mint(entry["signature"])):
                    yield mint

    async def _listed(self, signature: str) -> _Found:
        found = await self._transaction(signature)
        if found is None:
            raise RpcUnavailableError(
                f"transaction {signature} is listed but can't be read; use an RPC endpoint that"
                " keeps the whole history"
            )
        return found

    async def _mint(self, signature: str) -> ChainMint | None:
        found = await self._listed(signature)
        done = found.transaction
        if not (done.authority_signed and done.payments):
            return None
        return ChainMint(
            done.signature,
            found.slot,
            done.payments,
            done.memo,
            done.created,
            found.raw,
            found.fee_lamports,
            done.by_former,
        )

    async def mint_of(self, signature: str) -> ChainMint | None:
        """Return a finalized mint of our authority; None when it is not there or no mint."""
        return await self._mint(signature) if await self._transaction(signature) else None

    async def burned(self, known: frozenset[str]) -> int:
        """See `AuditChain.burned`.

        Raises:
            RpcUnavailableError: A transaction is listed but can't be read.
        """
        total = 0
        async for entry in self._signatures(str(self._token.mint)):
            if entry["signature"] not in known:
                total += (await self._listed(entry["signature"])).transaction.burned
        return total

    async def supply(self) -> int:
        """Return the finalized supply in base units."""
        reply = await self._rpc.call("getTokenSupply", str(self._token.mint), _FINALIZED)
        return int(reply["value"]["amount"])

    async def exists(self, address: str) -> bool:
        """Tell whether an account exists in the finalized state."""
        options = {**_FINALIZED, "encoding": "base64"}
        reply = await self._rpc.call("getAccountInfo", address, options)
        return reply["value"] is not None

    async def _signatures(self, address: str) -> AsyncIterator[dict[str, Any]]:
        """Return the successful transactions that name an address, the newest first."""
        before: dict[str, str] = {}
        while True:
            page = await self._page(address, before)
            for entry in page:
                if entry.get("err") is None:
                    yield entry
            if len(page) < _PAGE:
                return
            before = {"before": page[-1]["signature"]}

    async def _page(self, address: str, before: dict[str, str]) -> list[dict[str, Any]]:
        options = {**_FINALIZED, "limit": _PAGE, **before}
        page: list[dict[str, Any]] = await self._rpc.call(
            "getSignaturesForAddress", address, options
        )
        return page

    async def _transaction(self, signature: str) -> _Found | None:
        reply = await self._fetch(signature)
        if reply is None:
            return None
        raw, meta = base64.b64decode(reply["transaction"][0]), reply["meta"]
        tables = meta.get("loadedAddresses") or {"writable": [], "readonly": []}
        loaded = [*tables["writable"], *tables["readonly"]]
        called = [
            Called(one["programIdIndex"], tuple(one["accounts"]), decode_base58(one["data"]))
            for inner in meta.get("innerInstructions") or []
            for one in inner["instructions"]
        ]
        _, *former = await self.authorities()
        done = read_transaction(raw, self._token, loaded, called, former)
        return _Found(raw, done, reply["slot"], meta["fee"])

    async def _fetch(self, signature: str) -> dict[str, Any] | None:
        """Return a finalized transaction that succeeded."""
        options = {**_FINALIZED, "encoding": "base64", "maxSupportedTransactionVersion": 1}
        reply: dict[str, Any] | None = await self._rpc.call("getTransaction", signature, options)
        return None if reply is None or reply["meta"]["err"] is not None else reply


def _was_empty(reply: dict[str, Any], raw: bytes, account: str) -> bool:
    """Tell whether nothing was at the account before a transaction."""
    tables = reply["meta"].get("loadedAddresses") or {"writable": [], "readonly": []}
    named = [str(key) for key in VersionedTransaction.from_bytes(raw).message.account_keys]
    named += [*tables["writable"], *tables["readonly"]]
    before = dict(zip(named, reply["meta"]["preBalances"], strict=False))
    return before.get(account) == 0
