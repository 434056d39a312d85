"""Room for rows: thins samples as the file fills, and keeps a reserve for a full disk."""

import os
from pathlib import Path

from sqlite_utils import Database

from gridtokenx_agent.clock import DAY_MS

ROWS_AT_ONCE = 2_000
"""Samples looked at in one go: the writer must not keep a bus waiting."""
_MB = 1024 * 1024
_SPARE_BYTES = 16 * _MB
"""The reserve is laid again only where so much more is free, or it would itself fill the disk."""
_SHRINK_PAGES = 256
_PAGES_PER_REFUSED = 8
"""Of so many pages one refused line may be kept: 8,192 in 256 MB, about 3 % of it."""
_LEVELS = ((95, 0, 0), (85, 900_000, 0), (70, 60_000, DAY_MS))
"""From this percentage of the bound on: one sample per bucket, of those older than the age."""


class Reserve:
    """A file of no use but to be deleted: on a full disk SQLite cannot even delete rows."""

    def __init__(self, path: Path, size_mb: int) -> None:
        self._path = path
        self._bytes = size_mb * _MB

    @property
    def laid(self) -> bool:
        """Whether the file is there, so the disk is not short of space."""
        return self._path.exists()

    def lay(self) -> None:
        """Create the file unless it is there or the disk has better use for the space."""
        try:
            if not self._bytes or self._path.exists():
                return
            disk = os.statvfs(self._path.parent)
            if disk.f_bavail * disk.f_frsize < self._bytes + _SPARE_BYTES:
                return
            with self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self._bytes)
        except OSError:
            # The disk is fuller than it said, or read-only: the rows still go where they can.
            self.give_up()

    def give_up(self) -> bool:
        """Delete the file; return whether that made room."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True


class Room:
    """Looks after the size of one open buffer; its caller owns the transactions."""

    def __init__(self, database: Database, max_pages: int) -> None:
        self._database = database
        self._max_pages = max_pages
        self._thinned_to_ms: dict[int, int] = {}

    def percent(self) -> int:
        """Return how full the file is."""
        return (
            (self._number("page_count") - self._number("freelist_count")) * 100 // (self._max_pages)
        )

    def thin(self) -> bool:
        """Look at the next samples to drop; slots, events and clock records always stay.

        Returns:
            Whether a look further on may make more room.
        """
        percent = self.percent()
        for threshold, bucket_ms, age_ms in _LEVELS:
            if percent >= threshold:
                return self._drop(bucket_ms, age_ms)
        return False

    def forget_refused(self) -> None:
        """Drop the oldest of the refused lines that are too many; the cloud keeps them as well.

        A meter that is not enrolled has every line refused, for months: they must not take the
        room of the slots of others.
        """
        self._database.execute(
            "DELETE FROM dead WHERE rowid <= min((SELECT max(rowid) FROM dead) - ?, "
            "(SELECT min(rowid) FROM dead) + ?)",
            (self._max_pages // _PAGES_PER_REFUSED, ROWS_AT_ONCE),
        )

    def shrink(self) -> None:
        """Give pages back to the disk, a few at a time, while most of the file is empty."""
        free = self._number("freelist_count")
        if free > _SHRINK_PAGES and free > self._number("page_count") // 2:
            # A plain `execute` gives back one page only: it stops at the first empty row.
            self._database.conn.executescript(f"PRAGMA incremental_vacuum({_SHRINK_PAGES});")

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file and begin it anew; its space stays ours."""
        self._database.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    def _drop(self, bucket_ms: int, age_ms: int) -> bool:
        if not bucket_ms:
            gone = self._database.execute(
                "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE kind = 'sample' "
                "ORDER BY wall_ms LIMIT ?)",
                (ROWS_AT_ONCE,),
            )
            return gone.rowcount == ROWS_AT_ONCE
        from_ms = self._thinned_to_ms.get(bucket_ms, -1)
        to_ms = self._look_until(from_ms, bucket_ms, age_ms)
        if to_ms <= from_ms:
            return False
        self._database.execute(
            "DELETE FROM outbox WHERE id IN (SELECT id FROM (SELECT id, row_number() OVER ("
            "  PARTITION BY meter_id, epoch, wall_ms / :bucket ORDER BY wall_ms, id) AS place"
            "  FROM outbox WHERE kind = 'sample' AND wall_ms >= :from AND wall_ms < :to)"
            " WHERE place > 1)",
            {"bucket": bucket_ms, "from": from_ms, "to": to_ms},
        )
        self._thinned_to_ms[bucket_ms] = to_ms
        return True

    def _look_until(self, from_ms: int, bucket_ms: int, age_ms: int) -> int:
        """Return the end of the next whole buckets, about `ROWS_AT_ONCE` samples further on."""
        newest_ms = self._wall_ms("SELECT max(wall_ms) FROM outbox WHERE kind = 'sample'", ())
        if newest_ms is None:
            return from_ms
        end_ms = (newest_ms - age_ms) // bucket_ms * bucket_ms
        ahead_ms = self._wall_ms(
            "SELECT wall_ms FROM outbox WHERE kind = 'sample' AND wall_ms >= ? "
            "ORDER BY wall_ms LIMIT 1 OFFSET ?",
            (from_ms, ROWS_AT_ONCE),
        )
        if ahead_ms is None:
            return end_ms
        return min(end_ms, (ahead_ms // bucket_ms + 1) * bucket_ms)

    def _wall_ms(self, query: str, values: tuple[int, ...]) -> int | None:
        row = self._database.execute(query, values).fetchone()
        return None if row is None else row[0]

    def _number(self, pragma: str) -> int:
        (number,) = self._database.execute(f"PRAGMA {pragma}").fetchone()
        return int(number)
