"""`MintChain` over JSON-RPC: accounts, signing, sending, watching."""

import base64
from collections.abc import Callable, Sequence
from typing import Any

from solders.instruction import Instruction
from solders.pubkey import Pubkey

from gridtokenx_cloud.adapters.solana_rpc.accounts import account_fault, exists, wallet_fault
from gridtokenx_cloud.adapters.solana_rpc.lookup import Table
from gridtokenx_cloud.adapters.solana_rpc.rpc import FailoverRpc
from gridtokenx_cloud.adapters.solana_rpc.sending import FINALIZED, Recent, Sender
from gridtokenx_cloud.adapters.solana_rpc.status import StatusPoll, chain_error
from gridtokenx_cloud.adapters.solana_rpc.tables import LookupTables
from gridtokenx_cloud.adapters.solana_rpc.transactions import (
    AnyMessage,
    Budget,
    MintContent,
    compile_message,
    create_account_instruction,
    mint_instructions,
    unsigned,
    wallet_key,
)
from gridtokenx_cloud.batching import Markers, compute_unit_limit
from gridtokenx_cloud.errors import RpcUnavailableError, TransactionTooLargeError
from gridtokenx_cloud.formats import (
    TransactionFormat,
    check_recipients,
    format_for,
    max_recipients,
    transaction_bytes,
)
from gridtokenx_cloud.mint_state import ChainError, InFlight, Marker, Observation, needs_marker
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.ports.mint import AccountReport, Attempt, MintBatch

_MAX_COMPUTE_UNITS = 1_400_000
_ACCOUNTS_PER_CALL = 100
_CREATIONS_PER_TRANSACTION = 8
_SHAPE_AGE_MS = 600_000
_PERSON_AGE_MS = 3_600_000
_CONFIRMED = {"commitment": "confirmed"}


class SolanaMintChain:
    """Mints one token on one cluster.

    Args:
        rpc: The way to the cluster.
        sender: Signs and sends.
        markers: Derives each batch's marker.
        form: The best format the cluster takes.
        tables: For `V0`.
        clock: For what need not be read anew each time.
        poll: Looks after attempts.
    """

    def __init__(
        self,
        rpc: FailoverRpc,
        sender: Sender,
        markers: Markers,
        form: TransactionFormat,
        tables: LookupTables,
        clock: Clock,
        poll: StatusPoll | None = None,
    ) -> None:
        self._rpc = rpc
        self._sender = sender
        self._token = sender.token
        self._markers = markers
        self._form = form
        self._tables = tables
        self._clock = clock
        self._poll = poll or StatusPoll(rpc)
        self._shapes: dict[tuple[TransactionFormat, int, int], tuple[int, int]] = {}
        self._persons: dict[str, int] = {}

    def most_recipients(self, memo: str) -> int:
        """See `MintChain.most_recipients`."""
        return max_recipients(self._form, self._sender.signatures, len(memo))

    async def inspect(self, batch: MintBatch) -> AccountReport:
        """See `MintChain.inspect`."""
        tokens = [item.token_account for item in batch.items]
        marker, *accounts = await self._accounts([batch.marker, *tokens])
        refused = await self._no_persons([item.wallet for item in batch.items])
        missing: list[str] = []
        for item, account in zip(batch.items, accounts, strict=True):
            reason = account_fault(account, item.wallet, self._token)
            if reason:
                refused.setdefault(item.wallet, reason)
            elif not exists(account) and item.wallet not in refused:
                missing.append(item.wallet)
        return AccountReport(refused, tuple(missing), marker is not None)

    async def _no_persons(self, wallets: Sequence[str]) -> dict[str, str]:
        """Return why a wallet is none; one that was a person's is asked about once an hour."""
        now_ms = self._clock.now_ms()
        asked = [
            wallet
            for wallet in wallets
            if not 0 <= now_ms - self._persons.get(wallet, -_PERSON_AGE_MS) < _PERSON_AGE_MS
        ]
        refused: dict[str, str] = {}
        for wallet, account in zip(asked, await self._accounts(asked), strict=True):
            if reason := wallet_fault(account):
                refused[wallet] = reason
            else:
                self._persons[wallet] = now_ms
        return refused

    async def create_token_accounts(self, wallets: Sequence[str]) -> None:
        """See `MintChain.create_token_accounts`."""
        for start in range(0, len(wallets), _CREATIONS_PER_TRANSACTION):
            keys = [wallet_key(wallet) for wallet in wallets[start:][:_CREATIONS_PER_TRANSACTION]]
            accounts = [str(self._token.account_of(key)) for key in keys]

            async def made(accounts: list[str] = accounts) -> bool:
                return all(exists(account) for account in await self._accounts(accounts))

            # A try that expired ends too: the caller looks again and tries again.
            await self._sender.until(
                [create_account_instruction(self._token, key) for key in keys], made
            )

    async def prepare(self, batch: MintBatch) -> Attempt | ChainError:
        """See `MintChain.prepare`."""
        count, memo, signatures = len(batch.items), len(batch.memo), self._sender.signatures
        form = format_for(self._form, count, signatures, memo)
        table = await self._table(batch) if form is TransactionFormat.V0 else None
        price = await self._sender.unit_price(batch.attempts)
        instructions = mint_instructions(self._token, await self._content(batch))
        # An attempt that failed must not be signed again as the same bytes.
        recent = await self._sender.recent(fresh=batch.attempts > 0)

        def draft() -> AnyMessage:
            budget = Budget(_MAX_COMPUTE_UNITS, price)
            return self._message(instructions, form, budget, recent, table)

        used = await self._units(batch, form, draft)
        if isinstance(used, ChainError):
            return used
        limit = compute_unit_limit(used, batch.exhausted_attempts)
        message = self._message(instructions, form, Budget(limit, price), recent, table)
        seen = {str(table.address): [str(key) for key in table.addresses]} if table else {}
        signature, raw = await self._sender.sign(message, form, seen)
        if len(raw) != (size := transaction_bytes(form, count, memo, signatures)):
            raise TransactionTooLargeError(
                f"batch {batch.batch_id}: {len(raw)} bytes, and a {form.value} transaction with"
                f" {count} recipients has {size}; nothing was sent, report this as a fault"
            )
        height = recent.last_valid_block_height
        return Attempt(batch.attempts + 1, signature, raw, height, sent=False)

    async def _table(self, batch: MintBatch) -> Table:
        check_recipients(len(batch.items), TransactionFormat.V0, self._sender.signatures)
        accounts = [Pubkey.from_string(item.token_account) for item in batch.items]
        return await self._tables.covering([self._token.mint, *accounts])

    async def _content(self, batch: MintBatch) -> MintContent:
        return MintContent(
            memo=batch.memo,
            marker=Pubkey.from_string(batch.marker),
            marker_seed=self._markers.seed(batch.batch_id),
            marker_lamports=await self._sender.marker_rent(),
            payments=tuple(
                (Pubkey.from_string(item.token_account), item.amount_base_units)
                for item in batch.items
            ),
        )

    def _message(
        self,
        instructions: Sequence[Instruction],
        form: TransactionFormat,
        budget: Budget,
        recent: Recent,
        table: Table | None,
    ) -> AnyMessage:
        return compile_message(
            instructions,
            self._token.payer,
            recent.blockhash,
            form,
            budget,
            table.account if table else None,
        )

    async def _units(
        self, batch: MintBatch, form: TransactionFormat, draft: Callable[[], AnyMessage]
    ) -> int | ChainError:
        """Return what the transaction computes; its accounts have just been looked at.

        Equal shapes compute the same, so one simulation serves for a while. A batch that has
        failed before is always simulated.
        """
        shape = (form, len(batch.items), len(batch.memo))
        at_ms, used = self._shapes.get(shape, (0, 0))
        now_ms = self._clock.now_ms()
        if not batch.attempts and 0 <= now_ms - at_ms < _SHAPE_AGE_MS:
            return used
        found = await self._simulate(draft())
        if not isinstance(found, ChainError):
            self._shapes[shape] = (now_ms, found)
        return found

    async def _simulate(self, message: AnyMessage) -> int | ChainError:
        text = base64.b64encode(unsigned(message)).decode()
        options = {**_CONFIRMED, "encoding": "base64", "sigVerify": False}
        # A node that has not seen our blockhash yet must not make this a failure.
        reply = await self._rpc.call(
            "simulateTransaction", text, options | {"replaceRecentBlockhash": True}
        )
        error = chain_error(reply["value"].get("err"))
        return error or int(reply["value"].get("unitsConsumed") or _MAX_COMPUTE_UNITS)

    async def send(self, raw: bytes) -> None:
        """See `MintChain.send`."""
        await self._sender.send(raw)

    async def observe(self, state: InFlight, marker: str) -> Observation:
        """See `MintChain.observe`."""
        look = await self._poll.look(state.signature)
        seen = None
        if needs_marker(state, look.height, look.status):
            account = await self._rpc.call(
                "getAccountInfo", marker, {**FINALIZED, "encoding": "base64"}
            )
            seen = Marker(account["value"] is not None, account["context"]["slot"])
        return Observation(look.slot, look.height, look.status, seen)

    async def _accounts(self, addresses: Sequence[str]) -> list[dict[str, Any] | None]:
        found: list[dict[str, Any] | None] = []
        for start in range(0, len(addresses), _ACCOUNTS_PER_CALL):
            part = list(addresses[start : start + _ACCOUNTS_PER_CALL])
            options = {**_CONFIRMED, "encoding": "base64"}
            reply = await self._rpc.call("getMultipleAccounts", part, options)
            if len(reply["value"]) != len(part):
                raise RpcUnavailableError("getMultipleAccounts answered for other accounts")
            found += reply["value"]
        return found
