"""The role every process has: it deletes what has grown old, and makes room for what comes."""

import logging
from collections.abc import Callable

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.partitions import keep_months_ahead
from gridtokenx_cloud.adapters.store.upkeep import forget
from gridtokenx_cloud.errors import TransientError
from gridtokenx_cloud.ports.archive import ArchiveFile
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.supervisor import StopSignal

_INTERVAL_S = 3600.0
_HOUR_MS = 3_600_000
_log = logging.getLogger(__name__)


class UpkeepRole:
    """Looks once an hour; what it misses while the process is down it finds the next time.

    Args:
        database: The store.
        clock: Tells what is old.
        sample_retention_days: How long samples are kept.
        replay_hours: How long events are kept.
        archive: Moves old readings into the archive; None = they stay.
    """

    name = "upkeep"

    def __init__(
        self,
        database: Database,
        clock: Clock,
        sample_retention_days: int,
        replay_hours: int,
        archive: Callable[[], list[ArchiveFile]] | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._sample_ms = sample_retention_days * 24 * _HOUR_MS
        self._event_ms = replay_hours * _HOUR_MS
        self._archive = archive

    def run(self, stop: StopSignal) -> None:
        """See `Role.run`."""
        while not stop.is_set():
            now_ms = self._clock.now_ms()
            gone = forget(self._database, now_ms - self._sample_ms, now_ms - self._event_ms)
            if gone:
                _log.info("old_rows_deleted", extra={"rows": gone})
            self._make_room()
            stop.wait(_INTERVAL_S)

    def _make_room(self) -> None:
        """Readings are taken in without it: what can't be done now is done an hour later."""
        try:
            for month in keep_months_ahead(self._database):
                _log.info("month_made", extra={"month": month})
            for file in self._archive() if self._archive else ():
                _log.info("readings_archived", extra={"file": file.name, "readings": file.readings})
        except TransientError as exc:
            _log.warning("upkeep_put_off", extra={"error": str(exc)})

    def trouble(self) -> str | None:
        """See `Role.trouble`: nobody waits for this role."""
        return None
