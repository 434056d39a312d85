"""The minting service: unminted credits -> sealed batches -> tokens, exactly once."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from gridtokenx_cloud.batching import (
    Markers,
    MintBatchData,
    MintResult,
    optimize_batch,
)
from gridtokenx_cloud.driving import Driving
from gridtokenx_cloud.errors import PermanentError, TransientError, ValidationError
from gridtokenx_cloud.mint_rules import MintRules, composer
from gridtokenx_cloud.minting import BatchMinter, Sleep
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.ports.mint import (
    Backlog,
    Landing,
    MintChain,
    MintHistory,
    MintStore,
    Refusal,
    Selection,
    UnmintedReading,
    Wallets,
)

logger = logging.getLogger(__name__)

WAKE_DELAY_S = 2.0
"""Credits of one publish window come together; a little later they share a transaction."""


class MintingHaltedError(PermanentError):
    """No new batch is sealed until an operator has acted."""


class MeterPollingService:
    """Looks for unminted credits and brings each of them to the chain once.

    Attributes:
        on_final: Called after each commit that makes a batch final.
    """

    def __init__(
        self,
        store: MintStore,
        chain: MintChain,
        history: MintHistory,
        wallets: Wallets,
        *,
        rules: Callable[[], MintRules],
        markers: Markers,
        clock: Clock,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._store = store
        self._wallets = wallets
        self._rules = rules
        self._clock = clock
        self._sleep = sleep
        self._compose = composer(markers)
        self._driving = Driving(self.mint_energy_tokens_batch)
        self._minter = BatchMinter(
            store,
            chain,
            history,
            self._compose,
            clock,
            sleep,
            self._driving,
            self.mark_reading_as_minted,
        )
        self.on_final: Callable[[], None] = lambda: None
        self._asked: list[asyncio.Future[None]] = []
        self._poked = asyncio.Event()

    @property
    def halted(self) -> tuple[str, ...]:
        """Why no new batch is sealed; empty = all is well."""
        return self._driving.halted

    def halt(self, batch_id: int, reason: str) -> None:
        """See `Halts.halt`; by `WHOLE_STORE` nothing is signed either."""
        self._driving.halt(batch_id, reason)

    def fetch_unminted_readings(
        self, limit: int, *, draining: bool = False
    ) -> list[UnmintedReading]:
        """Return unminted credits that are due, the oldest first."""
        rules = self._rules()
        return self._store.fetch_unminted(
            Selection(
                limit=limit,
                now_ms=self._clock.now_ms(),
                threshold_wh=0 if draining else rules.mint_threshold_wh,
                owner_percent=100 if draining else rules.auto_mint_percentage,
            )
        )

    def validate_reading(self, reading: UnmintedReading) -> MintBatchData | Refusal:
        """Check what may have changed since the reading was accepted."""
        try:
            amount = self._rules().amount_of(reading.credit_wh)
            self._wallets.token_account(reading.wallet_address)
        except ValidationError as exc:
            return Refusal(exc.code, str(exc))
        return MintBatchData(
            reading_id=reading.reading_id,
            user_id=reading.user_id,
            wallet_address=reading.wallet_address,
            meter_id=reading.meter_id,
            credit_wh=reading.credit_wh,
            amount_base_units=amount,
        )

    async def process_batch(self, readings: Sequence[UnmintedReading]) -> list[MintResult]:
        """Mint what is good, queue the rest; one result per reading given.

        At most `max_transactions_per_batch` transactions; what finds no place stays unminted.
        """
        good = self._validated(readings)
        await self.mint_tokens_for_batch(good)
        return self._store.results_of([reading.reading_id for reading in readings])

    async def mint_tokens_for_batch(self, credits_due: Sequence[MintBatchData]) -> list[MintResult]:
        """Seal transactions for the credits and drive them to their end, several at once."""
        rules = self._rules()
        batches = self._seal(credits_due, rules.max_transactions_per_batch)
        room = asyncio.Semaphore(rules.concurrent_batches)

        async def mint(batch_id: int) -> None:
            async with room:
                await self.mint_energy_tokens_batch(batch_id)

        await asyncio.gather(*(mint(batch_id) for batch_id in batches))
        return self._store.results_of([item.reading_id for item in credits_due])

    async def mint_energy_tokens_batch(self, batch_id: int) -> None:
        """Drive one sealed batch through sign, persist, send and watch to its end.

        Raises:
            EmptyBatchError: The batch has no recipients.
        """
        await self._minter.drive(batch_id, self._rules().transaction_timeout_s)

    def mark_reading_as_minted(self, batch_id: int, landing: Landing) -> None:
        """Mark all readings of a finalized batch minted, in one commit with their events.

        Raises:
            DisputedBatchError: They are not the ones that were sealed; nothing is changed.
        """
        self._store.mark_final(batch_id, landing, self._clock.now_ms())
        self.on_final()

    async def run(self, stop: asyncio.Event, wake: asyncio.Event) -> None:
        """Work until *stop*; *wake* is raised after a credit was committed.

        First what is in flight, then new batches; sealed batches are brought to their end also
        while automatic minting is off.
        """
        try:
            while not stop.is_set():
                if not self._try_pass():
                    await self._pause(stop, wake)
        finally:
            await self._driving.put_down()

    async def pass_now(self) -> None:
        """Let `run` seal all that is due, also while automatic minting is off; return when it has.

        Waits as long as something halts the minting.
        """
        made: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._asked.append(made)
        self._poked.set()
        await made

    async def drain(self) -> Backlog:
        """Mint all there is, dust included; return what waits for a retry or an operator.

        Raises:
            MintingHaltedError: Something only an operator can cure keeps batches from ending.
        """
        try:
            while True:
                progress = self._pass(draining=True)
                left = self._store.backlog(self._clock.now_ms())
                if self._driving.stuck:
                    raise MintingHaltedError("; ".join(self.halted))
                if not left.unminted and not left.live_batches:
                    return left
                if not progress and self._driving:
                    await self._driving.any_ended()
                elif not progress:
                    await self._sleep(1.0)
        finally:
            await self._driving.put_down()

    def _try_pass(self) -> bool:
        try:
            return self._pass(draining=False)
        except TransientError as exc:
            logger.warning("cycle_put_off", extra={"error": str(exc)})
            return False

    def _pass(self, *, draining: bool) -> bool:
        """Take up batches and seal new ones; true when there is more to do at once."""
        self._driving.reap()
        self._poked.clear()
        rules = self._rules()
        self._driving.take_up(self._store.live_batches(), rules.concurrent_batches)
        # Sealed ahead while there is room to drive, so that one look at the queue fills several.
        idle = len(self._driving) < rules.concurrent_batches
        wanted = draining or rules.auto_mint_enabled or bool(self._asked)
        if not idle or self.halted or not wanted:
            return False
        more = self._seal_due(rules, draining)
        if not more:
            self._answer_asked()
        return more

    def _seal_due(self, rules: MintRules, draining: bool) -> bool:
        readings = self.fetch_unminted_readings(rules.batch_size, draining=draining)
        if not readings:
            return False
        logger.info("cycle_started", extra={"in_flight": len(self._driving)})
        logger.info("readings_fetched", extra={"readings": len(readings)})
        good = self._validated(readings)
        batches = self._seal(good, rules.max_transactions_per_batch)
        self._driving.take_up(self._store.live_batches(), rules.concurrent_batches)
        logger.info("cycle_finished", extra={"readings": len(good), "batches": len(batches)})
        return len(readings) == rules.batch_size and (bool(batches) or len(good) < len(readings))

    def _answer_asked(self) -> None:
        asked, self._asked = self._asked, []
        for made in asked:
            if not made.done():
                made.set_result(None)

    def _validated(self, readings: Sequence[UnmintedReading]) -> list[MintBatchData]:
        good: list[MintBatchData] = []
        for reading in readings:
            checked = self.validate_reading(reading)
            if isinstance(checked, MintBatchData):
                good.append(checked)
                continue
            parked = self._store.refuse([reading.reading_id], checked, self._clock.now_ms())
            fields = {"reading_id": reading.reading_id, "meter_id": reading.meter_id}
            event = "reading_parked" if parked else "retry_scheduled"
            logger.warning(event, extra=fields | {"error_code": checked.code})
        return good

    def _seal(self, credits_due: Sequence[MintBatchData], most: int) -> list[int]:
        """Commit up to *most* batches; a group that another worker touched is left for later."""
        sealed: list[int] = []
        for group in optimize_batch(credits_due, self._rules().limits)[:most]:
            accounts = {wallet: self._wallets.token_account(wallet) for wallet in group.wallets}
            batch_id = self._store.seal(group, accounts, self._compose, self._clock.now_ms())
            if batch_id is None:
                continue
            sealed.append(batch_id)
            logger.info(
                "batch_sealed",
                extra={
                    "batch_id": batch_id,
                    "readings": len(group.items),
                    "recipients": len(group.wallets),
                    "wh": sum(item.credit_wh for item in group.items),
                },
            )
        return sealed

    async def _pause(self, stop: asyncio.Event, wake: asyncio.Event) -> None:
        """Wait for a batch to end, the next poll, a credit, or the end of the service."""
        rules = self._rules()
        signals = [asyncio.create_task(stop.wait()), asyncio.create_task(self._poked.wait())]
        if rules.auto_trigger_on_submit:
            signals.append(asyncio.create_task(wake.wait()))
        try:
            await asyncio.wait(
                [*signals, *self._driving.tasks],
                timeout=rules.polling_interval_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if wake.is_set() and not stop.is_set():
                await self._sleep(WAKE_DELAY_S)
                wake.clear()
        finally:
            for signal in signals:
                signal.cancel()
