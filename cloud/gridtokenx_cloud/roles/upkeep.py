"""The role every process has: it deletes what has grown old."""

import logging

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.upkeep import forget
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.supervisor import StopSignal

_INTERVAL_S = 3600.0
_HOUR_MS = 3_600_000
_log = logging.getLogger(__name__)


class UpkeepRole:
    """Looks once an hour; what it misses while the process is down it finds the next time."""

    name = "upkeep"

    def __init__(
        self, database: Database, clock: Clock, sample_retention_days: int, replay_hours: int
    ) -> None:
        self._database = database
        self._clock = clock
        self._sample_ms = sample_retention_days * 24 * _HOUR_MS
        self._event_ms = replay_hours * _HOUR_MS

    def run(self, stop: StopSignal) -> None:
        """See `Role.run`."""
        while not stop.is_set():
            now_ms = self._clock.now_ms()
            gone = forget(self._database, now_ms - self._sample_ms, now_ms - self._event_ms)
            if gone:
                _log.info("old_rows_deleted", extra={"rows": gone})
            stop.wait(_INTERVAL_S)

    def trouble(self) -> str | None:
        """See `Role.trouble`: nobody waits for this role."""
        return None
