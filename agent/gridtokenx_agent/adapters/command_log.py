"""Which commands were seen, in the buffer's file: none is ever carried out twice."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from gridtokenx_agent.errors import BufferFullError
from gridtokenx_agent.ports import CloudTime, SeenCommand

_BUSY_TIMEOUT_S = 10.0
_LAST = "last_command_ms"
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS cmdlog (nonce TEXT PRIMARY KEY, issued_ms INTEGER NOT NULL, "
    "expires_ms INTEGER NOT NULL, command TEXT NOT NULL, reply BLOB) WITHOUT ROWID"
)
T = TypeVar("T")


class SqliteCommandLog:
    """`CommandLog` with a connection of its own; the buffer's writer is never waited for long."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = asyncio.Lock()

    async def begin(self, nonce: str, issued_ms: int, expires_ms: int, command: str) -> bool:
        """See `CommandLog.begin`."""

        def write(db: sqlite3.Connection) -> bool:
            new = db.execute(
                "INSERT OR IGNORE INTO cmdlog VALUES (?, ?, ?, ?, NULL)",
                (nonce, issued_ms, expires_ms, command),
            )
            db.execute(
                "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE "
                "SET value = max(CAST(value AS INTEGER), CAST(excluded.value AS INTEGER))",
                (_LAST, str(issued_ms)),
            )
            return new.rowcount == 1

        return await self._run(write)

    async def finish(self, nonce: str, reply: bytes) -> None:
        """See `CommandLog.finish`."""
        await self._run(
            lambda db: db.execute("UPDATE cmdlog SET reply = ? WHERE nonce = ?", (reply, nonce))
        )

    async def seen(self, nonce: str) -> SeenCommand | None:
        """See `CommandLog.seen`."""

        def read(db: sqlite3.Connection) -> SeenCommand | None:
            row = db.execute(
                "SELECT command, reply FROM cmdlog WHERE nonce = ?", (nonce,)
            ).fetchone()
            return None if row is None else SeenCommand(nonce, *row)

        return await self._run(read)

    async def unfinished(self) -> list[SeenCommand]:
        """See `CommandLog.unfinished`."""

        def read(db: sqlite3.Connection) -> list[SeenCommand]:
            rows = db.execute("SELECT nonce, command FROM cmdlog WHERE reply IS NULL").fetchall()
            return [SeenCommand(nonce, command, None) for nonce, command in rows]

        return await self._run(read)

    async def cloud_time(self) -> CloudTime:
        """See `CommandLog.cloud_time`."""

        def read(db: sqlite3.Connection) -> CloudTime:
            known = dict(
                db.execute(
                    "SELECT key, value FROM meta WHERE key IN (?, 'last_receipt_ms')", (_LAST,)
                ).fetchall()
            )
            last_ms = int(known.get(_LAST, 0))
            return CloudTime(
                last_command_ms=last_ms,
                at_least_ms=max(last_ms, int(known.get("last_receipt_ms", 0))),
            )

        return await self._run(read)

    async def forget_before(self, wall_ms: int) -> None:
        """See `CommandLog.forget_before`."""
        await self._run(
            lambda db: db.execute(
                "DELETE FROM cmdlog WHERE expires_ms < ? AND reply IS NOT NULL", (wall_ms,)
            )
        )

    async def _run(self, call: Callable[[sqlite3.Connection], T]) -> T:
        async with self._lock:
            return await asyncio.to_thread(self._once, call)

    def _once(self, call: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with _open(self._path) as db:
                return call(db)
        except sqlite3.Error as exc:
            raise BufferFullError(
                f"the command log in {self._path} takes nothing ({exc}); check the disk"
            ) from exc


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=_BUSY_TIMEOUT_S)
    try:
        # A command seen must stay seen after a power cut.
        db.execute("PRAGMA synchronous=FULL")
        with db:
            db.execute(_SCHEMA)
            yield db
    finally:
        db.close()
