"""A cluster of one: blocks, commitment, history and forks around a runtime.

Everything here is synchronous and belongs to one event loop.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from solders.account import Account
from solders.compute_budget import set_compute_unit_limit
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM_PROGRAM
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from gridtokenx_cloud.adapters.localnet.faults import Faults
from gridtokenx_cloud.adapters.localnet.nonce import nonce_account
from gridtokenx_cloud.adapters.localnet.packet import Incoming, decode_transaction, split_accounts
from gridtokenx_cloud.adapters.localnet.runtime import Effect, Runtime, Simulation
from gridtokenx_cloud.adapters.localnet.store import KEPT_BLOCKS, Block, ChainStore, Landed

LAG_BLOCKS: Mapping[str, int] = {"processed": 0, "confirmed": 1, "finalized": 32}
MAX_AGE_BLOCKS = 150
_KEPT_UNDO_BLOCKS = 256
# Far above the height, as on mainnet: code that mixes the two up must not pass here.
GENESIS_SLOT = 435_888_000
_GENESIS_UNIX_S = 1_767_225_600
_FAUCET_LAMPORTS = 500_000_000 * 10**9


class Localnet:
    """One chain.

    Args:
        state_file: Where the chain lives; None keeps it in memory.
        unix_time_s: Clock for block times; None counts 0.4 s per slot from a fixed date.
    """

    def __init__(
        self, state_file: Path | None = None, *, unix_time_s: Callable[[], int] | None = None
    ) -> None:
        self.faults = Faults()
        self.store = ChainStore(state_file)
        self._unix_time_s = unix_time_s
        self._runtime = Runtime()
        if self.store.meta("genesis") is None:
            self._found()
        self._runtime.put(self.store.accounts())
        self.genesis_hash = Hash(self.store.meta("genesis") or b"")
        self._faucet = Keypair.from_bytes(self.store.meta("faucet") or b"")
        self._blocks = self.store.blocks()
        self._heights = {block.hash: block.height for block in self._blocks}
        self._next_slot = max(self.tip.slot + 1, int(self.store.meta("next_slot") or 0))
        # Former states of accounts are not on disk: what was read from there counts as final.
        self._floor_height = self._rooted_height = self.tip.height
        self._undo: deque[tuple[int, dict[Pubkey, Account | None]]] = deque()
        self._pending: dict[str, tuple[int, Incoming]] = {}
        self._airdrops = 0
        self._entered: Block | None = None

    def _found(self) -> None:
        faucet = Keypair()
        accounts = {faucet.pubkey(): Account(_FAUCET_LAMPORTS, b"", SYSTEM_PROGRAM)}
        constants = {"genesis": os.urandom(32), "faucet": bytes(faucet)}
        self.store.found(self._new_block(0, GENESIS_SLOT), constants, accounts)

    @contextmanager
    def seen_by(self, faults: Faults | None) -> Iterator[None]:
        """Answer as another node of this chain would, one with *faults* of its own."""
        own, self.faults = self.faults, faults or self.faults
        try:
            yield
        finally:
            self.faults = own

    def snapshot(self, path: Path) -> None:
        """Write the chain as it is to a new file, from which another can go on."""
        self.store.snapshot(path)

    def close(self) -> None:
        """Close the state file."""
        self.store.close()

    @property
    def tip(self) -> Block:
        """The newest block."""
        return self._blocks[-1]

    @property
    def oldest(self) -> Block:
        """The oldest block that is kept."""
        return self._blocks[0]

    def unix_time_of(self, slot: int) -> int | None:
        """Return when the block of a slot was made; None when it is not kept or was empty."""
        return next((one.unix_s for one in reversed(self._blocks) if one.slot == slot), None)

    def block_at(self, commitment: str, lag_blocks: int = 0) -> Block:
        """Return the newest block of a commitment, as seen by a node *lag_blocks* behind."""
        height = self.tip.height - lag_blocks - LAG_BLOCKS[commitment]
        # A fork takes blocks away at the tip, never what was final.
        lowest = self._floor_height if lag_blocks else self._rooted_height
        return self._blocks[max(height, lowest) - self._blocks[0].height]

    def account_at(self, address: Pubkey, block: Block) -> Account | None:
        """Return the account as it was after *block*."""
        for height, before in self._undo:
            if height > block.height and address in before:
                return before[address]
        return self._runtime.account(address)

    def accounts_of(self, program: Pubkey, block: Block) -> dict[Pubkey, Account]:
        """Return all accounts that *program* owned after *block*."""
        addresses = set(self._runtime.owned_by(program))
        addresses.update(*(before for height, before in self._undo if height > block.height))
        found = {address: self.account_at(address, block) for address in addresses}
        return {
            key: account for key, account in found.items() if account and account.owner == program
        }

    def last_valid_height(self, blockhash: Hash) -> int | None:
        """Return the last block height that takes this blockhash; None if it is unknown."""
        height = self._heights.get(blockhash)
        return None if height is None else height + MAX_AGE_BLOCKS

    def is_recent(self, blockhash: Hash, parent: Block, height: int) -> bool:
        """Tell whether a block of *height* on top of *parent* may take this blockhash."""
        known = self._heights.get(blockhash)
        return known is not None and known <= parent.height and height <= known + MAX_AGE_BLOCKS

    def rent_minimum_lamports(self, data_bytes: int) -> int:
        """Return the balance that keeps an account of this size."""
        self._apply_rent()
        return self._runtime.rent_minimum_lamports(data_bytes)

    def _apply_rent(self) -> None:
        if self.faults.rent_lamports_per_byte:
            self._runtime.set_rent(self.faults.rent_lamports_per_byte)

    def _refusal(self, incoming: Incoming, parent: Block, height: int) -> str | None:
        """Return why a block of *height* on top of *parent* can't take it; None if it can."""
        recent = self.is_recent(incoming.tx.message.recent_blockhash, parent, height)
        # Age first, as on a validator: an expired duplicate hears "blockhash not found".
        if not recent and not nonce_account(incoming, lambda key: self.account_at(key, parent)):
            return "BlockhashNotFound"
        landed = self.store.by_message(incoming.message_hash)
        return "AlreadyProcessed" if landed and landed.height <= parent.height else None

    def submit(self, incoming: Incoming) -> None:
        """Queue a transaction; it is checked when its block is made, and dropped if invalid."""
        if self.faults.take("drop_silently"):
            return
        due_height = self.tip.height + 1 + self.faults.land_late_blocks
        if self.faults.land_in_last_valid_block:
            last_height = self.last_valid_height(incoming.tx.message.recent_blockhash)
            due_height = max(due_height, last_height or 0)
        earlier = self._pending.get(incoming.signature)
        if earlier is None or due_height < earlier[0]:
            self._pending[incoming.signature] = (due_height, incoming)

    def airdrop(self, address: Pubkey, lamports: int) -> str:
        """Queue a transfer from the faucet; return its signature."""
        # Equal transfers in one block would be duplicates; the odd limit tells them apart.
        self._airdrops += 1
        payer = self._faucet.pubkey()
        params = TransferParams(from_pubkey=payer, to_pubkey=address, lamports=lamports)
        instructions = [set_compute_unit_limit(1_000 + self._airdrops), transfer(params)]
        message = Message.new_with_blockhash(instructions, payer, self.tip.hash)
        incoming = decode_transaction(bytes(VersionedTransaction(message, [self._faucet])), v1=True)
        self._pending[incoming.signature] = (self.tip.height + 1, incoming)
        return incoming.signature

    def simulate(
        self, incoming: Incoming, block: Block, *, verify: bool, any_blockhash: bool = False
    ) -> Simulation:
        """Execute on the state after *block* and change nothing."""
        refusal = None if any_blockhash else self._refusal(incoming, block, block.height)
        if refusal:
            return Simulation(refusal, [], 0, {})
        keys, _ = split_accounts(incoming.tx.message, lambda key: self.account_at(key, block))
        tables = getattr(incoming.tx.message, "address_table_lookups", [])
        keys += [table.account_key for table in tables]
        self._enter(self.tip)
        state = {key: self.account_at(key, block) for key in keys}
        return self._runtime.simulate(incoming, state, verify=verify)

    def advance(self, blocks: int = 1) -> None:
        """Make blocks; the first takes every transaction that is due."""
        for _ in range(blocks):
            self._make_block()

    def _make_block(self) -> None:
        block = self._new_block(self.tip.height + 1, self._next_slot)
        before: dict[Pubkey, Account | None] = {}
        landed = self._execute_due(block, before)
        after = {address: self._runtime.account(address) for address in before}
        self.store.append(block, after, landed)
        self._blocks.append(block)
        self._heights[block.hash] = block.height
        self._next_slot = block.slot + 1
        self._rooted_height = max(self._rooted_height, block.height - LAG_BLOCKS["finalized"])
        if before:
            self._undo.append((block.height, before))
        self._forget()

    def _new_block(self, height: int, slot: int) -> Block:
        counted_s = _GENESIS_UNIX_S + (slot - GENESIS_SLOT) * 2 // 5
        unix_s = self._unix_time_s() if self._unix_time_s else counted_s
        return Block(height, slot, Hash(os.urandom(32)), unix_s)

    def _execute_due(self, block: Block, before: dict[Pubkey, Account | None]) -> list[Landed]:
        """Run what is due in *block*; add to *before* how the touched accounts were."""
        due = [incoming for height, incoming in self._pending.values() if height <= block.height]
        landed: dict[bytes, Landed] = {}
        if due:
            self._enter(block)
        for incoming in due:
            del self._pending[incoming.signature]
            twice = incoming.message_hash in landed
            if twice or self._refusal(incoming, self.tip, block.height):
                continue
            if effect := self._runtime.execute(incoming):
                landed[incoming.message_hash] = _landed(incoming, block, effect)
                for address, account in effect.before.items():
                    before.setdefault(address, account)
        return list(landed.values())

    def _enter(self, block: Block) -> None:
        self._apply_rent()
        if block == self._entered:
            return
        self._entered = block
        parents = [(parent.slot, parent.hash) for parent in reversed(self._blocks)]
        self._runtime.enter(block, parents)

    def _forget(self) -> None:
        if len(self._blocks) > KEPT_BLOCKS:
            del self._heights[self._blocks.pop(0).hash]
        oldest_height = self.tip.height - _KEPT_UNDO_BLOCKS
        self._floor_height = max(self._floor_height, oldest_height)
        while self._undo and self._undo[0][0] <= oldest_height:
            self._undo.popleft()

    def drop_fork(self, blocks: int) -> None:
        """Forget the newest blocks as if their fork had lost; their slots stay empty.

        What was in them is not queued again: a client that still wants it has to send it.

        Raises:
            ValueError: Blocks that are final can't be dropped.
        """
        droppable = self.tip.height - self._rooted_height
        if not 0 < blocks <= droppable:
            raise ValueError(f"cannot drop {blocks} blocks; {droppable} are not final yet")
        tip = self._blocks[-1 - blocks]
        restored: dict[Pubkey, Account | None] = {}
        while self._undo and self._undo[-1][0] > tip.height:
            restored.update(self._undo.pop()[1])
        self.store.drop(tip, self._next_slot, restored)
        self._runtime.put(restored)
        for block in self._blocks[-blocks:]:
            del self._heights[block.hash]
        del self._blocks[-blocks:]


def _landed(incoming: Incoming, block: Block, effect: Effect) -> Landed:
    return Landed(
        signature=incoming.signature,
        message_hash=incoming.message_hash,
        height=block.height,
        slot=block.slot,
        unix_s=block.unix_s,
        version=incoming.version,
        raw=incoming.raw,
        meta=effect.meta,
    )
