"""What a minter remembers of its batches between two looks; a crash may lose all of it."""

import logging
from collections import Counter
from collections.abc import Collection
from dataclasses import replace

from gridtokenx_cloud.mint_state import ChainError, InFlight, Observation
from gridtokenx_cloud.ports.mint import Attempt, MintBatch

logger = logging.getLogger(__name__)

REBROADCAST_S = 2.0
_SLOW_ATTEMPTS = 8
_MOST_DOUBTS = 30
MOST_ACCOUNTS_A_DAY = 3
"""An owner may close an account and keep its rent, which we would pay with each batch again."""
_DAY_MS = 86_400_000


class MintNotes:
    """When attempts were sent, how often something was looked for, what was reported."""

    def __init__(self) -> None:
        self._sent_at_ms: dict[str, int] = {}
        self._closed_slot: dict[str, int] = {}
        self._looks: dict[int, int] = {}
        self._doubts: dict[int, int] = {}
        self._slow: set[int] = set()
        self._poor: set[int] = set()
        self._wanted: set[str] = set()
        self._day = 0
        self._made: Counter[str] = Counter()

    def sent(self, batch_id: int, attempt: Attempt, now_ms: int) -> None:
        """Note that the attempt's bytes went out; the first time is reported."""
        first = attempt.signature not in self._sent_at_ms
        self._sent_at_ms[attempt.signature] = now_ms
        if first:
            fields = {"batch_id": batch_id, "n": attempt.n, "signature": attempt.signature}
            logger.info("attempt_sent", extra=fields)

    def is_send_due(self, attempt: Attempt, now_ms: int) -> bool:
        """Tell whether the same bytes should go out again."""
        return now_ms >= self._sent_at_ms.get(attempt.signature, 0) + int(1000 * REBROADCAST_S)

    def since_closed(self, state: InFlight, seen: Observation) -> Observation:
        """Judge by the first finalized slot beyond the attempt's last block.

        Any answer at least that new is proof; a node that always lags a little gives one too.
        """
        if seen.finalized_height <= state.last_valid_block_height:
            return seen
        slot = self._closed_slot.setdefault(state.signature, seen.finalized_slot)
        return replace(seen, finalized_slot=min(slot, seen.finalized_slot))

    def ended(self, signature: str) -> None:
        """Forget an attempt."""
        self._sent_at_ms.pop(signature, None)
        self._closed_slot.pop(signature, None)

    def accounts(
        self, wallets: Collection[str], missing: Collection[str], now_ms: int
    ) -> frozenset[str]:
        """Learn which token accounts are there; return the wallets to make none for today (UTC).

        An account counts as made once it is seen after we wanted it.
        """
        day = now_ms // _DAY_MS
        if day != self._day:
            self._day, self._made = day, Counter()
        there = self._wanted.intersection(wallets).difference(missing)
        self._made.update(there)
        spent = {wallet for wallet in missing if self._made[wallet] >= MOST_ACCOUNTS_A_DAY}
        self._wanted = (self._wanted - there).union(missing) - spent
        return frozenset(spent)

    def looks(self, batch_id: int) -> int:
        """Count a search for whoever made the batch's marker; return how many there were before."""
        before = self._looks.get(batch_id, 0)
        self._looks[batch_id] = before + 1
        return before

    def is_doubtful(self, batch_id: int) -> bool:
        """Count a failure that only the simulating node saw; false when it has been so for long."""
        before = self._doubts.get(batch_id, 0)
        self._doubts[batch_id] = before + 1
        return before < _MOST_DOUBTS

    def signed(self, batch_id: int) -> None:
        """Forget the doubts: the batch could be signed."""
        self._doubts.pop(batch_id, None)

    def over(self, batch_id: int) -> None:
        """Forget the searches: the batch has come to its end."""
        self._looks.pop(batch_id, None)

    def watch(self, batch: MintBatch, now_ms: int, slow_after_s: int) -> None:
        """Report once what takes long; age alone never judges an attempt."""
        age_s = (now_ms - batch.sealed_at_ms) // 1000
        slow = age_s > slow_after_s or batch.attempts > _SLOW_ATTEMPTS
        if slow and batch.batch_id not in self._slow:
            self._slow.add(batch.batch_id)
            fields = {"batch_id": batch.batch_id, "age_s": age_s, "attempts": batch.attempts}
            logger.warning("batch_slow", extra=fields)

    def payer_low(self, batch: MintBatch, error: ChainError) -> None:
        """Report once that a batch waits for lamports."""
        if batch.batch_id not in self._poor:
            self._poor.add(batch.batch_id)
            fields = {"batch_id": batch.batch_id, "error_code": str(error)}
            logger.warning("fee_payer_low", extra=fields)
