"""LiteSVM as an executor: state in, effect out; no blocks, no history."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from solders.account import Account
from solders.clock import Clock
from solders.hash import Hash
from solders.litesvm import LiteSVM
from solders.message import MessageV1
from solders.pubkey import Pubkey
from solders.rent import Rent
from solders.system_program import ID as SYSTEM_PROGRAM
from solders.transaction_metadata import FailedTransactionMetadata, TransactionMetadata

from gridtokenx_cloud.adapters.localnet.nonce import advanced, nonce_account
from gridtokenx_cloud.adapters.localnet.packet import (
    Incoming,
    priority_fee_lamports,
    split_accounts,
)
from gridtokenx_cloud.adapters.localnet.store import Block

_BUILTIN_UNITS = 150

State = Mapping[Pubkey, Account | None]


@dataclass(frozen=True, slots=True)
class Effect:
    """What a transaction did that is now in a block."""

    before: State
    """The accounts it may have written, as they were."""
    meta: dict[str, Any]
    """Error, fee, balances and logs, in the words of `getTransaction`."""


@dataclass(frozen=True, slots=True)
class Simulation:
    """What a transaction would do; *err* as JSON-RPC shows it."""

    err: Any
    logs: list[str]
    compute_units: int
    post_accounts: State


class Runtime:
    """The newest state, and the only part that knows LiteSVM."""

    def __init__(self) -> None:
        # Both checks are too narrow in LiteSVM (one blockhash, 32 signatures); the chain does them.
        self._svm = LiteSVM().with_blockhash_check(False).with_transaction_history(0)
        self._parent_hash = Hash.default()

    def account(self, address: Pubkey) -> Account | None:
        """Return an account of the newest state."""
        return self._svm.get_account(address)

    def owned_by(self, program: Pubkey) -> list[Pubkey]:
        """Return the addresses of all accounts of a program."""
        return [address for address, _ in self._svm.get_program_accounts(program)]

    def put(self, state: State) -> None:
        """Overwrite accounts; None removes one."""
        for address, account in state.items():
            self._svm.set_account(address, account or Account(0, b"", SYSTEM_PROGRAM))

    def enter(self, block: Block, parents: Sequence[tuple[int, Hash]]) -> None:
        """Make *block* the one that programs see; *parents* are (slot, hash), newest first."""
        epoch = self._svm.get_epoch_schedule().get_epoch(block.slot)
        self._svm.set_clock(Clock(block.slot, 0, epoch, epoch + 1, block.unix_s))
        self._svm.set_slot_hashes(parents)
        self._parent_hash = parents[0][1]
        # A nonce can't be advanced twice under one of these.
        self._svm.expire_blockhash()

    def set_rent(self, lamports_per_byte: int) -> None:
        """Change the rent from now on."""
        if self._svm.get_rent().lamports_per_byte != lamports_per_byte:
            self._svm.set_rent(Rent(lamports_per_byte))

    def rent_minimum_lamports(self, data_bytes: int) -> int:
        """Return the balance that keeps an account of this size."""
        return self._svm.minimum_balance_for_rent_exemption(data_bytes)

    def _lamports(self, addresses: Sequence[Pubkey]) -> list[int]:
        return [self._svm.get_balance(address) or 0 for address in addresses]

    def execute(self, incoming: Incoming) -> Effect | None:
        """Run one transaction; None when it leaves no trace on the chain."""
        keys, writable = split_accounts(incoming.tx.message, self.account)
        before = {key: self.account(key) for key in writable}
        pre_lamports = self._lamports(keys)
        nonce = nonce_account(incoming, self.account)
        result = self._svm.send_transaction(incoming.tx)
        failure = result if isinstance(result, FailedTransactionMetadata) else None
        # Whoever paid is in the block. A failure that costs nothing never got that far.
        if failure and self._lamports(keys[:1]) == pre_lamports[:1]:
            return None
        meta = result.meta() if isinstance(result, FailedTransactionMetadata) else result
        err = _err(failure) if failure else None
        if err is None and (err := _beyond_v1_limit(incoming, meta)):
            self.put(before)
            self._charge(incoming.payer, meta.fee())
        fee_lamports = meta.fee() + self._charge_v1(incoming)
        if nonce and (account := self.account(nonce)):
            # LiteSVM rolls it back on failure, and after a restart would repeat its values.
            self.put({nonce: advanced(account, self._parent_hash)})
        return Effect(
            before,
            {
                "err": err,
                "fee": fee_lamports,
                "accounts": [str(key) for key in keys],
                "preBalances": pre_lamports,
                "postBalances": self._lamports(keys),
                "logMessages": meta.logs(),
                "computeUnitsConsumed": meta.compute_units_consumed(),
            },
        )

    def _charge_v1(self, incoming: Incoming) -> int:
        """Take the priority fee that LiteSVM overlooks in version 1; return what was taken."""
        if not isinstance(incoming.tx.message, MessageV1):
            return 0
        return self._charge(incoming.payer, priority_fee_lamports(incoming.tx.message))

    def _charge(self, address: Pubkey, fee_lamports: int) -> int:
        payer = self.account(address)
        if payer is None:
            return 0
        lamports = min(fee_lamports, payer.lamports)
        left = payer.lamports - lamports
        self.put({address: Account(left, payer.data, payer.owner, payer.executable)})
        return lamports

    def simulate(self, incoming: Incoming, state: State, *, verify: bool) -> Simulation:
        """Run a transaction as if the accounts in *state* were so; change nothing."""
        self._svm.with_sigverify(verify)
        try:
            with self._pretending(state):
                result = self._svm.simulate_transaction(incoming.tx)
        finally:
            self._svm.with_sigverify(True)
        logs, compute_units = result.meta().logs(), result.meta().compute_units_consumed()
        if isinstance(result, FailedTransactionMetadata):
            return Simulation(_err(result), logs, compute_units, {})
        if err := _beyond_v1_limit(incoming, result.meta()):
            return Simulation(err, logs, compute_units, {})
        return Simulation(None, logs, compute_units, dict(result.post_accounts()))

    @contextmanager
    def _pretending(self, state: State) -> Iterator[None]:
        now = {address: self.account(address) for address in state}
        changed = [address for address in state if state[address] != now[address]]
        self.put({address: state[address] for address in changed})
        try:
            yield
        finally:
            self.put({address: now[address] for address in changed})


def _beyond_v1_limit(incoming: Incoming, meta: TransactionMetadata) -> Any:
    """Return the error of a version 1 that computed more than its header allows, or None.

    LiteSVM overlooks that limit. The instruction is the first at which the sum is too high.
    """
    message = incoming.tx.message
    limit = message.config.compute_unit_limit if isinstance(message, MessageV1) else None
    if limit is None or meta.compute_units_consumed() <= limit:
        return None
    used = 0
    for index, units in enumerate(_units_by_instruction(meta.logs())):
        used += units
        if used > limit:
            return {"InstructionError": [index, "ProgramFailedToComplete"]}
    return {"InstructionError": [0, "ProgramFailedToComplete"]}


def _units_by_instruction(logs: Sequence[str]) -> list[int]:
    """Return what each instruction computed; a builtin writes no number, and takes 150."""
    found: list[int] = []
    depth = 0
    for line in logs:
        words = line.split()
        if words[:1] != ["Program"] or len(words) < 3:
            continue
        if words[2] == "invoke":
            depth = int(words[3].strip("[]"))
            found += [_BUILTIN_UNITS] if depth == 1 else []
        elif words[2] == "consumed" and depth == 1:
            found[-1] = int(words[3])
        elif words[2] in ("success", "failed:"):
            depth -= 1
    return found


def _err(failure: FailedTransactionMetadata) -> Any:
    return json.loads(failure.to_json())["err"]
