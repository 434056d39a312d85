"""How much waits in the buffer, counted beside the agent's own writer."""

import sqlite3
from pathlib import Path

from gridtokenx_agent.errors import StoreError
from gridtokenx_agent.metrics import BufferDepth

_KINDS = ("slot", "sample", "event", "clock")


def buffer_depth(path: Path) -> BufferDepth:
    """Count the rows.

    Raises:
        StoreError: The file cannot be read.
    """
    try:
        db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            rows = dict(db.execute("SELECT kind, count(*) FROM outbox GROUP BY kind").fetchall())
            oldest = db.execute("SELECT wall_ms FROM outbox ORDER BY id LIMIT 1").fetchone()
            (dead,) = db.execute("SELECT count(*) FROM dead").fetchone()
        finally:
            db.close()
        size = sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*"))
    except (sqlite3.DatabaseError, OSError) as exc:
        raise StoreError(f"buffer {path} cannot be read: {exc}") from exc
    return BufferDepth(
        rows={kind: rows.get(kind, 0) for kind in _KINDS},
        oldest_wall_ms=None if oldest is None else oldest[0],
        dead=dead,
        file_bytes=size,
    )
