"""Records in the buffer, read by another process while the agent runs."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gridtokenx_agent.errors import StoreError
from gridtokenx_wire.encoding import parse_line
from gridtokenx_wire.errors import WireError
from gridtokenx_wire.record import Record

_SELECT = """
SELECT CASE WHEN sent = 1 THEN 'sent' ELSE 'waiting' END AS state, '' AS reason,
       meter_id, epoch, seq, line FROM outbox
UNION ALL
SELECT 'refused', code || ': ' || reason, meter_id, epoch, seq, line FROM dead
ORDER BY meter_id, epoch, seq
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRecord:
    """One line that is still here.

    Attributes:
        state: waiting, sent (the broker took it, no receipt yet), or refused by the cloud.
        reason: Why the cloud refused it.
        line: The signed bytes.
        record: What they say.
    """

    state: str
    reason: str
    line: str
    record: Record


def stored_records(path: Path) -> Iterator[StoredRecord]:
    """Return what the buffer holds, by meter, epoch and seq, without disturbing the agent.

    Raises:
        StoreError: There is no buffer, or it cannot be read.
    """
    if not path.is_file():
        raise StoreError(f"there is no buffer {path} yet; start `gtx-agent run`")
    return _read(path)


def _read(path: Path) -> Iterator[StoredRecord]:
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=5)
        try:
            for state, reason, _, _, _, line in connection.execute(_SELECT):
                yield StoredRecord(
                    state=state, reason=reason, line=line.decode("ascii"), record=parse_line(line)
                )
        finally:
            connection.close()
    except (sqlite3.DatabaseError, WireError, UnicodeDecodeError) as exc:
        raise StoreError(f"buffer {path} cannot be read: {exc}") from exc
