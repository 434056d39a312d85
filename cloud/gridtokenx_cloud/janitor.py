"""Takes back the rent of old markers and idle tables, and watches what the payer has left."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from gridtokenx_cloud.metrics import Figure
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.ports.upkeep import MarkerStore, PayerFloat, UpkeepChain

_log = logging.getLogger(__name__)

_DAY_MS = 86_400_000
_MARKERS_AT_ONCE = 56


@dataclass(frozen=True, slots=True)
class JanitorRules:
    """What of it can be set.

    Attributes:
        marker_retention_days: A marker stands at least as long as any backup of the store is
            kept: it is what forbids a second mint after such a backup was restored.
        low_transactions: A payer with less than this many mints left is reported.
    """

    marker_retention_days: int
    low_transactions: int


class Janitor:
    """Safe to stop at any line: every step is written down before it is taken."""

    def __init__(
        self, store: MarkerStore, chain: UpkeepChain, clock: Clock, rules: JanitorRules
    ) -> None:
        self._store = store
        self._chain = chain
        self._clock = clock
        self._rules = rules
        self._float: PayerFloat | None = None
        self._low = False

    async def watch_payer(self) -> None:
        """Look at the payer's balance; say so once when it gets low, and once when it is well."""
        self._float = found = await self._chain.payer_float()
        low = found.transactions < self._rules.low_transactions
        if low != self._low:
            self._low = low
            fields = {"lamports": found.lamports, "transactions": found.transactions}
            if low:
                _log.warning("payer_low", extra=fields)
            else:
                _log.info("payer_topped_up", extra=fields)

    def figures(self) -> Iterator[Figure]:
        """Yield what is known of the payer."""
        if self._float is None:
            return
        yield Figure("payer_balance_lamports", "Balance of the fee payer", self._float.lamports)
        yield Figure(
            "payer_transactions_left",
            "Mint transactions that the fee payer's balance pays for",
            self._float.transactions,
        )

    async def tidy(self) -> None:
        """Empty the markers that are old enough, and sweep the lookup tables."""
        while await self._reclaim():
            pass
        await self._chain.sweep_tables()

    async def _reclaim(self) -> bool:
        """Empty some markers; true when there may be more."""
        before_ms = self._clock.now_ms() - self._rules.marker_retention_days * _DAY_MS
        markers = self._store.markers_to_reclaim(before_ms, _MARKERS_AT_ONCE)
        if not markers:
            return False
        # On record first: whoever looks between here and the end must not miss a marker.
        self._store.intend_reclaim(markers, self._clock.now_ms())
        lamports = await self._chain.empty_markers(markers)
        if lamports is None:
            return False
        self._store.reclaimed(markers, lamports, self._clock.now_ms())
        _log.info("markers_reclaimed", extra={"markers": len(markers), "lamports": lamports})
        return len(markers) == _MARKERS_AT_ONCE
