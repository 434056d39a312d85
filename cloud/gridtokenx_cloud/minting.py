"""Drives one sealed batch to its end; safe to begin again after a crash at any line.

Every round reads the batch from the store, looks at the chain, and makes one legal move. What
must survive is committed before the side effect that needs it.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from gridtokenx_cloud.errors import (
    ClaimsDifferError,
    DisputedBatchError,
    EmptyBatchError,
    SigningKeyError,
    TransientError,
)
from gridtokenx_cloud.mint_notes import MOST_ACCOUNTS_A_DAY, MintNotes
from gridtokenx_cloud.mint_state import (
    ChainError,
    Dispute,
    Expire,
    Fail,
    HoldRecipient,
    InFlight,
    Keep,
    Land,
    Resolve,
    Sealed,
    StopAll,
    TopUp,
    Wait,
    classify,
    next_step,
    resolve,
)
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.ports.mint import (
    AccountReport,
    Attempt,
    Compose,
    Landing,
    MintBatch,
    MintChain,
    MintHistory,
    MintStore,
    Refusal,
)

logger = logging.getLogger(__name__)

POLL_S = 1.0
TROUBLE_S = 15.0
_CLOSED = (
    f"its token account was closed each of {MOST_ACCOUNTS_A_DAY} times that we made it today; ask"
    " the owner, and requeue it tomorrow"
)

Sleep = Callable[[float], Awaitable[None]]


class Halts(Protocol):
    """Keeps new batches from being sealed while something is wrong that waiting can't cure."""

    @property
    def unsigned(self) -> str | None:
        """Why not even a sealed batch may be signed; None = it may."""
        ...

    def halt(self, batch_id: int, reason: str) -> None:
        """Stop sealing because of this batch."""
        ...

    def lift(self, batch_id: int) -> None:
        """This batch is no reason to stop any more."""
        ...


class BatchMinter:
    """Signs, sends and watches, one batch per call of `drive`."""

    def __init__(
        self,
        store: MintStore,
        chain: MintChain,
        history: MintHistory,
        compose: Compose,
        clock: Clock,
        sleep: Sleep,
        halts: Halts,
        mark_minted: Callable[[int, Landing], None],
    ) -> None:
        self._store = store
        self._chain = chain
        self._history = history
        self._compose = compose
        self._clock = clock
        self._sleep = sleep
        self._halts = halts
        self._mark_minted = mark_minted
        self._notes = MintNotes()

    async def drive(self, batch_id: int, slow_after_s: int = 60) -> None:
        """Return when the batch is final, void or disputed; RPC trouble only takes longer.

        Raises:
            DisputedBatchError: A second minter works on the same store.
            EmptyBatchError: The batch has no recipients.
        """
        while True:
            pause_s: float | None = await self._patiently()(self._round, batch_id, slow_after_s)
            if pause_s is None:
                self._notes.over(batch_id)
                return
            if pause_s:
                await self._sleep(pause_s)

    def _patiently(self) -> AsyncRetrying:
        backoff = wait_random_exponential(multiplier=0.5, max=30)

        def wait_s(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            return max(backoff(state), getattr(error, "retry_after_s", 0.0))

        return AsyncRetrying(
            retry=retry_if_exception_type(TransientError), wait=wait_s, sleep=self._sleep
        )

    async def _round(self, batch_id: int, slow_after_s: int) -> float | None:
        """Make one move; return how long to wait before the next, None when it is over."""
        batch = self._store.load(batch_id)
        if batch is None:
            return None
        if not batch.items:
            raise EmptyBatchError(f"batch {batch_id} has no recipients; see `gtx-cloud audit`")
        self._notes.watch(batch, self._clock.now_ms(), slow_after_s)
        if batch.attempt is None:
            try:
                return await self._sign(batch)
            except SigningKeyError as exc:
                self._halts.halt(batch_id, str(exc))
                return TROUBLE_S
        if not batch.attempt.sent:
            return await self._first_send(batch.batch_id, batch.attempt)
        return await self._follow(batch, batch.attempt)

    async def _first_send(self, batch_id: int, attempt: Attempt) -> float:
        await self._send(batch_id, attempt)
        self._store.mark_sent(batch_id, attempt.n, self._clock.now_ms())
        return POLL_S

    async def _sign(self, batch: MintBatch) -> float | None:
        report = await self._chain.inspect(batch)
        if report.marker_exists:
            return await self._resolve(batch, Sealed())
        if reason := self._halts.unsigned:
            # Its credits may be minted in another batch already, one that the store has lost.
            self._halts.halt(batch.batch_id, reason)
            return TROUBLE_S
        if unfit := self._unfit(batch, report):
            # Nothing of the batch can land, so they may leave.
            for wallet, refusal in unfit.items():
                self._hold(batch, wallet, refusal)
            return 0.0
        if report.missing:
            await self._chain.create_token_accounts(report.missing)
            return 0.0
        attempt = await self._chain.prepare(batch)
        if isinstance(attempt, ChainError):
            return await self._classified(batch, attempt, simulated=True)
        return await self._signed(batch, attempt)

    def _unfit(self, batch: MintBatch, report: AccountReport) -> dict[str, Refusal]:
        """Return the recipients that refuse tokens, and those beyond what one transaction holds."""
        most = self._chain.most_recipients(batch.memo)
        reason = f"one transaction carries {most} recipients now; minted with the next batch"
        surplus = {item.wallet: Refusal("BatchTooLarge", reason) for item in batch.items[most:]}
        wallets = [item.wallet for item in batch.items]
        closed = self._notes.accounts(wallets, report.missing, self._clock.now_ms())
        refused = dict.fromkeys(closed, _CLOSED) | report.refused
        return surplus | {w: Refusal("RecipientRefused", why) for w, why in refused.items()}

    async def _signed(self, batch: MintBatch, attempt: Attempt) -> float | None:
        self._notes.signed(batch.batch_id)
        try:
            self._store.record_attempt(batch.batch_id, attempt, self._clock.now_ms())
        except ClaimsDifferError as exc:
            self._dispute(batch, str(exc))
            return None
        self._halts.lift(batch.batch_id)
        logger.info("attempt_signed", extra=_fields(batch, attempt))
        return await self._first_send(batch.batch_id, attempt)

    async def _send(self, batch_id: int, attempt: Attempt) -> None:
        await self._chain.send(attempt.raw)
        self._notes.sent(batch_id, attempt, self._clock.now_ms())

    async def _follow(self, batch: MintBatch, attempt: Attempt) -> float | None:
        state = InFlight(attempt.n, attempt.signature, attempt.last_valid_block_height)
        seen = await self._chain.observe(state, batch.marker)
        decision = next_step(state, self._notes.since_closed(state, seen))
        match decision:
            case Land():
                await self._land(batch, decision)
                return None
            case Fail():
                return await self._failed(batch, attempt, decision.error)
            case Expire():
                self._store.end_attempt(batch.batch_id, attempt.n, None, self._clock.now_ms())
                self._notes.ended(attempt.signature)
                logger.info("attempt_expired", extra=_fields(batch, attempt))
                return 0.0
            case Resolve():
                return await self._resolve(batch, state)
            case Keep():
                if self._notes.is_send_due(attempt, self._clock.now_ms()):
                    await self._send(batch.batch_id, attempt)
            case Wait():
                pass
        return POLL_S

    async def _land(self, batch: MintBatch, landed: Land) -> None:
        fee = await self._history.fee_lamports(landed.signature)
        landing = Landing(landed.signature, landed.slot, fee)
        try:
            self._mark_minted(batch.batch_id, landing)
        except DisputedBatchError as exc:
            self._dispute(batch, str(exc))
            return
        self._notes.ended(landed.signature)
        logger.info(
            "batch_final",
            extra={
                "batch_id": batch.batch_id,
                "signature": landed.signature,
                "wh": sum(item.credit_wh for item in batch.items),
                "duration_s": (self._clock.now_ms() - batch.sealed_at_ms) // 1000,
            },
        )

    async def _failed(self, batch: MintBatch, attempt: Attempt, error: ChainError) -> float | None:
        self._store.end_attempt(batch.batch_id, attempt.n, error, self._clock.now_ms())
        logger.warning(
            "batch_classified", extra=_fields(batch, attempt) | {"error_code": str(error)}
        )
        return await self._classified(batch, error, simulated=False)

    async def _classified(
        self, batch: MintBatch, error: ChainError, *, simulated: bool
    ) -> float | None:
        """Act on a failure while nothing of the batch can land."""
        match classify(error, len(batch.items)):
            case HoldRecipient(position, reason):
                wallet = batch.items[position].wallet
                await self._refused(batch, wallet, reason, simulated=simulated)
                return POLL_S if simulated else 0.0
            case Resolve():
                return await self._resolve(batch, Sealed())
            case StopAll(reason):
                self._halts.halt(batch.batch_id, f"{reason} ({error})")
                return TROUBLE_S
            case TopUp():
                self._notes.payer_low(batch, error)
                return TROUBLE_S
        return POLL_S

    async def _refused(
        self, batch: MintBatch, wallet: str, reason: str, *, simulated: bool
    ) -> None:
        report = await self._chain.inspect(batch)
        if wallet in report.missing:
            # A fork took the account, or its owner closed it: the next round makes it again.
            return
        # The node that simulates may not have seen the account yet.
        alone = simulated and wallet not in report.refused
        if alone and self._notes.is_doubtful(batch.batch_id):
            return
        reason = report.refused.get(wallet, reason)
        self._hold(batch, wallet, Refusal("RecipientRefused", reason))

    def _hold(self, batch: MintBatch, wallet: str, refusal: Refusal) -> None:
        self._store.reseal_without(
            batch.batch_id, wallet, refusal, self._compose, self._clock.now_ms()
        )
        logger.warning(
            "recipient_held",
            extra={"batch_id": batch.batch_id, "wallet": wallet, "error_code": refusal.code},
        )

    async def _resolve(self, batch: MintBatch, state: Sealed | InFlight) -> float | None:
        looks = self._notes.looks(batch.batch_id)
        origin = await self._history.marker_origin(batch)
        match resolve(state, origin, looks):
            case Land() as landed:
                await self._land(batch, landed)
                return None
            case Dispute(reason):
                self._dispute(batch, reason)
                return None
        return POLL_S

    def _dispute(self, batch: MintBatch, reason: str) -> None:
        self._store.dispute(batch.batch_id, reason, self._clock.now_ms())
        logger.error("batch_disputed", extra={"batch_id": batch.batch_id, "reason": reason})
        self._halts.halt(batch.batch_id, reason)


def _fields(batch: MintBatch, attempt: Attempt) -> dict[str, object]:
    return {"batch_id": batch.batch_id, "n": attempt.n, "signature": attempt.signature}
