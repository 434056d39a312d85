"""Tells by a receipt that this buffer is an older copy of the one that sent before."""

from collections.abc import Iterator
from typing import Final

from sqlite_utils import Database

from gridtokenx_wire.receipt import Receipt

_LARGEST_SEQ: Final = 2**52
"""Half of what the wire carries: whatever a receipt says, there are numbers left."""
_CLASH: Final = "ConflictingReading"
_LEAP: Final = 1_000_000
"""More than a gateway numbers in a week of one sample a second."""


def taken_numbers(database: Database, receipt: Receipt) -> Iterator[tuple[str, str, int]]:
    """Yield meter, epoch and last number of what the cloud has and this buffer never gave.

    Ask before the receipt is worked in: afterwards the lines it is about are gone.
    """
    yield from _ahead(database, receipt)
    yield from _clashes(database, receipt)


def _ahead(database: Database, receipt: Receipt) -> Iterator[tuple[str, str, int]]:
    """Yield where the cloud stored numbers beyond the last one that was ever committed here."""
    for meter_id, epochs in receipt.durable.items():
        row = database.execute(
            "SELECT epoch, seq FROM meter WHERE meter_id = ?", (meter_id,)
        ).fetchone()
        epoch, seq = row or ("", 0)
        last = max((last for _, last in epochs.get(epoch, ())), default=0)
        if row is not None and seq < last <= _LARGEST_SEQ:
            yield meter_id, epoch, last


def _clashes(database: Database, receipt: Receipt) -> Iterator[tuple[str, str, int]]:
    """Yield where the cloud has other bytes under a number; nobody says how many more."""
    for entry in receipt.rejected:
        if entry.code == _CLASH:
            for meter_id, epoch, seq in database.execute(
                "SELECT meter_id, epoch, seq FROM outbox WHERE line_hash = ?", (entry.line,)
            ).fetchall():
                yield meter_id, epoch, min(seq + _LEAP, _LARGEST_SEQ)
