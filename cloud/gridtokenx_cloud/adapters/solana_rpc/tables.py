"""The life of address lookup tables: made, filled, used, retired, their rent taken back.

What a table will be is written down before it is made, so a crash leaks none. Only finalized
content is used: a message names places in a table, and after a fork another address could stand
there.
"""

import asyncio
import base64
from collections.abc import Sequence

from solders.pubkey import Pubkey

from gridtokenx_cloud.adapters.solana_rpc.lookup import (
    AUTHORITY_OFFSET,
    CREATABLE_SLOTS,
    EXTENSIONS_PER_TRANSACTION,
    LOOKUP,
    Table,
    close_table,
    create_table,
    deactivate_table,
    extend_table,
    read_table,
    table_address,
)
from gridtokenx_cloud.adapters.solana_rpc.rpc import RpcRefusedError
from gridtokenx_cloud.adapters.solana_rpc.sending import FINALIZED, Sender
from gridtokenx_cloud.formats import TABLE_ADDRESSES
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.ports.upkeep import StoredTable, TableStore

MOST_TABLES = 8
IDLE_MS = 7 * 86_400_000
_CLOSABLE_SLOTS = 513
_POLL_S = 1.0


class LookupTables:
    """The tables of one payer."""

    def __init__(self, sender: Sender, store: TableStore, clock: Clock) -> None:
        self._sender = sender
        self._store = store
        self._clock = clock
        self._payer = sender.token.payer
        # Two batches that want new addresses must not fill the same places.
        self._turn = asyncio.Lock()

    async def covering(self, wanted: Sequence[Pubkey]) -> Table:
        """Return a table that holds all of *wanted*; make or extend one where none does."""
        async with self._turn:
            while True:
                table = await self._best(wanted)
                if table is None:
                    await self._make()
                    continue
                missing = [key for key in wanted if key not in set(table.addresses)]
                if not missing:
                    self._store.table_used(str(table.address), self._clock.now_ms())
                    return table
                await self._extend(table, missing[:EXTENSIONS_PER_TRANSACTION])

    async def _best(self, wanted: Sequence[Pubkey]) -> Table | None:
        """Return the table that lacks least and has room for it; retire one where all are full."""
        active = [one for one in self._store.tables() if one.state == "active"]
        found = await self._read([Pubkey.from_string(one.address) for one in active])
        usable = [table for table in found if table and table.deactivated_at_slot is None]
        rated = sorted(
            (len(set(wanted) - set(table.addresses)), n) for n, table in enumerate(usable)
        )
        for missing, n in rated:
            if not missing or len(usable[n].addresses) + missing <= TABLE_ADDRESSES:
                return usable[n]
        if len(active) >= MOST_TABLES:
            oldest = min(active, key=lambda one: one.used_at_ms)
            self._store.move_table(oldest.address, "retiring", self._clock.now_ms())
        return None

    async def _read(self, addresses: Sequence[Pubkey]) -> list[Table | None]:
        if not addresses:
            return []
        options = {**FINALIZED, "encoding": "base64"}
        texts = [str(address) for address in addresses]
        accounts = (await self._sender.rpc.call("getMultipleAccounts", texts, options))["value"]
        return [
            read_table(address, base64.b64decode(account["data"][0]))
            if account is not None and account["owner"] == str(LOOKUP)
            else None
            for address, account in zip(addresses, accounts, strict=True)
        ]

    async def _slot(self) -> int:
        return int(await self._sender.rpc.call("getSlot", FINALIZED))

    async def _make(self) -> None:
        """Bring the one table that is being made to its end, or begin one."""
        opening = next((one for one in self._store.tables() if one.state == "opening"), None)
        if opening is None:
            slot = await self._slot()
            planned = str(table_address(self._payer, slot))
            self._store.open_table(planned, slot, self._clock.now_ms())
            return
        address, slot = Pubkey.from_string(opening.address), opening.recent_slot

        async def made() -> bool:
            return (await self._read([address]))[0] is not None

        # The slot first: what is absent in a state at least that new can't be made any more.
        now_slot = await self._slot()
        if await made():
            self._store.move_table(opening.address, "active", self._clock.now_ms())
        elif now_slot > slot + CREATABLE_SLOTS:
            self._store.move_table(opening.address, "closed", self._clock.now_ms())
        else:
            await self._sender.until([create_table(self._payer, slot)], made)

    async def _extend(self, table: Table, added: Sequence[Pubkey]) -> None:
        async def there() -> bool:
            found = (await self._read([table.address]))[0]
            return found is not None and set(added) <= set(found.addresses)

        await self._sender.until([extend_table(self._payer, table.address, added)], there)

    async def sweep(self, *, needed: bool) -> None:
        """Retire what is idle, close what can be closed, take up what the store does not know.

        Args:
            needed: Transactions are built with tables; else all of them are retired.
        """
        async with self._turn:
            now_ms = self._clock.now_ms()
            await self._adopt(now_ms)
            for one in self._store.tables():
                if one.state == "active" and (not needed or now_ms - one.used_at_ms > IDLE_MS):
                    self._store.move_table(one.address, "retiring", now_ms)
            if not needed and any(one.state == "opening" for one in self._store.tables()):
                await self._make()
            for one in [one for one in self._store.tables() if one.state == "retiring"]:
                await self._retire(one)

    async def _retire(self, one: StoredTable) -> None:
        """Make the next move of a table that is not to be used any more."""
        address = Pubkey.from_string(one.address)
        slot = await self._slot()
        table = (await self._read([address]))[0]
        if table is None:
            self._store.move_table(one.address, "closed", self._clock.now_ms())
        elif table.deactivated_at_slot is None:

            async def deactivated() -> bool:
                found = (await self._read([address]))[0]
                return found is None or found.deactivated_at_slot is not None

            await self._sender.until([deactivate_table(self._payer, address)], deactivated)
        elif slot > table.deactivated_at_slot + _CLOSABLE_SLOTS:

            async def closed() -> bool:
                return (await self._read([address]))[0] is None

            if await self._sender.until([close_table(self._payer, address)], closed):
                self._store.move_table(one.address, "closed", self._clock.now_ms())

    async def _adopt(self, now_ms: int) -> None:
        """Write down tables of ours that the store has lost, so that their rent comes back."""
        known = {one.address for one in self._store.tables()}
        match = {"memcmp": {"offset": AUTHORITY_OFFSET, "bytes": str(self._payer)}}
        options = {
            **FINALIZED,
            "encoding": "base64",
            "filters": [match],
            "dataSlice": {"offset": 0, "length": 0},
        }
        try:
            found = await self._sender.rpc.call("getProgramAccounts", str(LOOKUP), options)
        except RpcRefusedError:
            # Many providers do not offer this call; then only the tables on record are known.
            return
        for entry in found:
            if entry["pubkey"] not in known:
                self._store.adopt_table(entry["pubkey"], now_ms)
