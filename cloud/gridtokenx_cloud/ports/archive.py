"""Old readings on their way into files, and what proofs read from there."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

COLUMNS = (
    "reading_id",
    "meter_id",
    "epoch",
    "seq",
    "gateway_id",
    "user_id",
    "reading_timestamp_ms",
    "submitted_at_ms",
    "interval_s",
    "import_wh",
    "export_wh",
    "clock",
    "flags",
    "remarks",
    "boot_id",
    "mono_ms",
    "active_power_w",
    "credit_wh",
    "status",
    "reason",
    "minted",
    "batch_id",
    "mint_tx_signature",
    "memo",
    "line",
)
"""What a file keeps of a reading: its whole row, and the memo of its batch on the chain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchivedReading:
    """A row of a file; each field is a column of `COLUMNS`."""

    reading_id: int
    meter_id: str
    epoch: str
    seq: int
    gateway_id: str
    user_id: str
    reading_timestamp_ms: int | None
    submitted_at_ms: int
    interval_s: int
    import_wh: int
    export_wh: int
    clock: int
    flags: int
    remarks: int
    boot_id: str
    mono_ms: int
    active_power_w: int | None
    credit_wh: int
    status: str
    reason: str | None
    minted: int
    batch_id: int | None
    mint_tx_signature: str | None
    memo: str | None
    line: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveFile:
    """What is known of a file, in its manifest as in the store.

    Attributes:
        first_batch_id: None where no reading of it was minted.
        first_at_ms: When the oldest of its readings came in.
    """

    name: str
    sha256: str
    readings: int
    credit_wh: int
    first_reading_id: int
    last_reading_id: int
    first_batch_id: int | None
    last_batch_id: int | None
    first_at_ms: int
    last_at_ms: int
    created_at_ms: int


class ArchiveFolder(Protocol):
    """Where the files are."""

    def locked(self) -> AbstractContextManager[None]:
        """Keep other programs of this machine from archiving into the same folder.

        Raises:
            ArchiveUnavailableError: One does so now, or nothing can be written there.
        """
        ...

    def write(
        self, name: str, readings: Sequence[ArchivedReading], created_at_ms: int
    ) -> ArchiveFile:
        """Write a file and its manifest and read them back; both are on the disk afterwards.

        Raises:
            ArchiveUnavailableError: The disk does not give back what was written, or takes nothing.
        """
        ...

    def discard(self, name: str) -> None:
        """Remove what a write that was cut short has left."""
        ...

    def of_batch(self, names: Sequence[str], batch_id: int) -> list[ArchivedReading]:
        """Return a batch's readings that are in these files.

        Raises:
            ArchiveUnavailableError: A file is missing, or is not what was written.
        """
        ...

    def reading(self, names: Sequence[str], reading_id: int) -> ArchivedReading | None:
        """Return one reading, if one of these files has it; raises as `of_batch`."""
        ...

    def faults(self, file: ArchiveFile) -> list[str]:
        """Return what is wrong with a file; none = it is what was written."""
        ...


class ArchiveStore(Protocol):
    """The store's side; each method is one commit."""

    def unfinished(self) -> list[str]:
        """Return the names of files that were announced and whose readings are still here."""
        ...

    def forget(self, name: str) -> None:
        """Take an announcement back."""
        ...

    def end_of(self, before_ms: int) -> int:
        """Return the number from which on readings came in later than that."""
        ...

    def settled(self, after: int, end: int, before_ms: int, limit: int) -> list[ArchivedReading]:
        """Return readings nobody needs here any more, in the order of their numbers.

        Finally minted, worth nothing, or rejected; and none that the next one of its meter is
        judged by.
        """
        ...

    def announce(self, name: str, now_ms: int) -> None:
        """Write down that a file of this name will be written."""
        ...

    def remove(self, file: ArchiveFile, readings: Sequence[ArchivedReading]) -> None:
        """Delete readings that are in a file, and keep what they were worth.

        Raises:
            StoreBusyError: One of them has changed since it was read, or somebody else took the
                announcement back; nothing is deleted.
        """
        ...

    def tidy(self, before_ms: int) -> None:
        """Give back the room of what has gone, where the database does not do so by itself."""
        ...

    def files(self) -> list[ArchiveFile]:
        """Return the finished files, the oldest first."""
        ...
