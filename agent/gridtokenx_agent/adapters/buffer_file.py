"""The buffer's SQLite file: schema, opening, and what to do with a broken one."""

import fcntl
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from sqlite_utils import Database

from gridtokenx_agent.adapters.buffer_room import Reserve
from gridtokenx_agent.errors import StoreError

SCHEMA_VERSION = "1"
RESERVE_MB = 8
_PAGE_BYTES = 4096
_BUSY_TIMEOUT_S = 10.0

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE meter (
    meter_id TEXT PRIMARY KEY, epoch TEXT NOT NULL, profile TEXT NOT NULL, identity TEXT NOT NULL,
    seq INTEGER NOT NULL, prev TEXT NOT NULL, unit TEXT NOT NULL, slot_wall_ms INTEGER,
    import_raw_wh INTEGER, import_turned_wh INTEGER,
    export_raw_wh INTEGER, export_turned_wh INTEGER,
    boot_id TEXT, mono_ms INTEGER, wall_ms INTEGER, clock INTEGER
) WITHOUT ROWID;
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    meter_id TEXT NOT NULL, epoch TEXT NOT NULL, seq INTEGER NOT NULL,
    kind TEXT NOT NULL, wall_ms INTEGER NOT NULL, opens INTEGER NOT NULL,
    line BLOB NOT NULL, line_hash TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0, sent INTEGER NOT NULL DEFAULT 0,
    due_ms INTEGER NOT NULL DEFAULT 0
);
CREATE UNIQUE INDEX outbox_identity ON outbox (meter_id, epoch, seq);
CREATE INDEX outbox_due ON outbox (due_ms, id);
CREATE INDEX outbox_hash ON outbox (line_hash);
CREATE INDEX outbox_opener ON outbox (meter_id, epoch) WHERE opens = 1;
CREATE INDEX outbox_sample ON outbox (wall_ms, meter_id, epoch) WHERE kind = 'sample';
CREATE INDEX outbox_new_slot ON outbox (id) WHERE kind = 'slot' AND tries = 0;
CREATE TABLE dead (
    line_hash TEXT PRIMARY KEY, meter_id TEXT NOT NULL, epoch TEXT NOT NULL, seq INTEGER NOT NULL,
    kind TEXT NOT NULL, code TEXT NOT NULL, reason TEXT NOT NULL, line BLOB NOT NULL
);
CREATE TABLE refusal (
    meter_id TEXT NOT NULL, code TEXT NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (meter_id, code)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFile:
    """An open buffer file.

    Attributes:
        max_pages: Bound of the file.
        reserve: Space to give up when the disk is full.
        suspect: Made when the file fails at work, so that the next start looks through all of it.
        lock: Held as long as this process owns the file.
        moved_aside: Where a broken file went; None when there was none.
    """

    database: Database
    max_pages: int
    reserve: Reserve
    suspect: Path
    lock: IO[bytes]
    moved_aside: Path | None


def open_file(
    path: Path, gateway_id: str, max_mb: int, wall_ms: int, reserve_mb: int = RESERVE_MB
) -> OpenFile:
    """Open or create the buffer and own it.

    A file that fails its integrity check is renamed, never deleted, and a new one begins.

    Raises:
        StoreError: No permission, another agent owns it, or it is another gateway's.
    """
    lock = _own(path)
    try:
        reserve = Reserve(path.with_name(path.name + ".reserve"), reserve_mb)
        return _open_locked(path, gateway_id, max_mb, wall_ms, lock, reserve)
    except BaseException:
        lock.close()
        raise


def change_gateway(path: Path, former_id: str, gateway_id: str) -> None:
    """Let the next key of a device own its buffer, with all that waits in it; again is no change.

    Raises:
        StoreError: No permission, an agent uses it, or it is a third key's.
    """
    if not path.exists():
        return  # A lock made here would belong to whoever types this, not to the service.
    with _own(path):
        try:
            database = _connect(path, "quick_check")
        except sqlite3.Error as exc:
            raise StoreError(f"buffer {path}: {exc}; check owner, mode and free space") from exc
        try:
            _give(database, path, former_id, gateway_id)
        finally:
            database.close()


def _give(database: Database, path: Path, former_id: str, gateway_id: str) -> None:
    with database.atomic():
        rows = database.query("SELECT value FROM meta WHERE key = 'gateway_id'")
        (owner,) = [row["value"] for row in rows]
        if owner not in (former_id, gateway_id):
            raise StoreError(
                f"buffer {path} belongs to gateway {owner}, the configured key is {former_id}; "
                "name the key of that gateway as key_file first"
            )
        database.execute("UPDATE meta SET value = ? WHERE key = 'gateway_id'", [gateway_id])


def _own(path: Path) -> IO[bytes]:
    """Return the lock of a buffer, held until it is closed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(path.name + ".lock").open("wb")
    except OSError as exc:
        raise StoreError(
            f"buffer {path}: {exc.strerror}; check the folder's owner, or change buffer.path"
        ) from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        lock.close()
        raise StoreError(f"buffer {path} is in use by another gtx-agent; stop that one") from exc
    return lock


def _open_locked(
    path: Path, gateway_id: str, max_mb: int, wall_ms: int, lock: IO[bytes], reserve: Reserve
) -> OpenFile:
    max_pages = max_mb * 1024 * 1024 // _PAGE_BYTES
    suspect = path.with_name(path.name + ".suspect")
    while True:
        try:
            database, moved = _begin(path, gateway_id, max_pages, wall_ms, suspect)
        except sqlite3.OperationalError as exc:
            # On a full disk SQLite cannot even open a file: that is what the reserve is for.
            if not reserve.give_up():
                raise StoreError(f"buffer {path}: {exc}; check owner, mode and free space") from exc
        except sqlite3.DatabaseError as exc:
            raise StoreError(f"buffer {path} cannot be used: {exc}; move it away") from exc
        else:
            reserve.lay()
            return OpenFile(
                database=database,
                max_pages=max_pages,
                reserve=reserve,
                suspect=suspect,
                lock=lock,
                moved_aside=moved,
            )


def _begin(
    path: Path, gateway_id: str, max_pages: int, wall_ms: int, suspect: Path
) -> tuple[Database, Path | None]:
    """Open the file, or a new one where it is broken; return where the broken one went."""
    moved: Path | None = None
    # A quick look sees no index that tells another story than its table: a page that a card
    # never wrote. Only what failed at work is looked through, as that takes minutes.
    check = "integrity_check" if suspect.exists() else "quick_check"
    try:
        database = _connect(path, check)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        moved = _move_aside(path, wall_ms)
        database = _connect(path, "quick_check")
    try:
        _adopt(database, path, gateway_id, max_pages)
        suspect.unlink(missing_ok=True)
    except BaseException:
        database.close()
        raise
    return database, moved


def _connect(path: Path, check: str) -> Database:
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA page_size={_PAGE_BYTES}")
        if not path.stat().st_size:
            # Before the first table, or never: it lets a drained buffer give its pages back.
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
        connection.execute("PRAGMA journal_mode=WAL")
        # FULL: a `seq` the cloud has seen must not be used again after a power cut.
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_autocheckpoint=256")
        connection.execute("PRAGMA journal_size_limit=4194304")
        (verdict,) = connection.execute(f"PRAGMA {check}(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)  # noqa: TRY301 - one way out for a broken file
    except BaseException:
        connection.close()
        raise
    return Database(connection)


def _adopt(database: Database, path: Path, gateway_id: str, max_pages: int) -> None:
    database.execute(f"PRAGMA max_page_count={max_pages}")
    if not database.table("meta").exists():
        with database.atomic():
            for statement in _SCHEMA.split(";\n"):
                if statement.strip():
                    database.execute(statement)
            entries = [("schema", SCHEMA_VERSION), ("gateway_id", gateway_id)]
            database.table("meta").insert_all(
                {"key": key, "value": value} for key, value in entries
            )
    known = {row["key"]: row["value"] for row in database.table("meta").rows}
    if known["schema"] != SCHEMA_VERSION:
        raise StoreError(
            f"buffer {path} has schema {known['schema']}, this program knows {SCHEMA_VERSION}; "
            "install the version that wrote it until it is empty"
        )
    if known["gateway_id"] != gateway_id:
        raise StoreError(
            f"buffer {path} belongs to gateway {known['gateway_id']}, the key file to "
            f"{gateway_id}; restore that key, or give the buffer to the new one with "
            "`gtx-agent change-key`"
        )


def _move_aside(path: Path, wall_ms: int) -> Path:
    target = path.with_name(f"{path.name}.bad-{wall_ms}")
    try:
        for suffix in ("", "-wal", "-shm"):
            part = path.with_name(path.name + suffix)
            if part.exists():
                part.rename(target.with_name(target.name + suffix))
    except OSError as exc:
        raise StoreError(
            f"buffer {path} is broken and cannot be moved aside: {exc.strerror}; check that the "
            "disk can be written, or replace it"
        ) from exc
    return target
