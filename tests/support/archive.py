"""An archive over a store of the tests."""

from dataclasses import dataclass
from pathlib import Path

from gridtokenx_cloud.adapters.parquet import ParquetFolder
from gridtokenx_cloud.adapters.store.archive import SqlArchive
from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.mint_audit import SqlAuditStore
from gridtokenx_cloud.archiving import ArchiveService
from gridtokenx_cloud.batching import parse_memo
from gridtokenx_cloud.proof import is_in_batch, make_proof
from tests.support.build_cloud import FakeClock

DAYS = 90
DAY_MS = 86_400_000


@dataclass
class Archive:
    """An archive, and what is to be had from it."""

    database: Database
    folder: ParquetFolder
    clock: FakeClock
    service: ArchiveService

    def run(self) -> int:
        """Archive; return how many readings went."""
        return sum(file.readings for file in self.service.run(DAYS))

    def proves(self, reading_id: int) -> bool:
        """Tell whether the proof of a reading leads to the root of its batch."""
        source = SqlAuditStore(self.database, self.folder).proof_source(reading_id)
        memo = parse_memo(source.memo)
        assert memo is not None
        return is_in_batch(make_proof(source), memo)


def archive(database: Database, folder: Path, now_ms: int, per_file: int = 3) -> Archive:
    files, clock = ParquetFolder(folder), FakeClock(now_ms)
    service = ArchiveService(SqlArchive(database, actor="test"), files, clock, per_file)
    return Archive(database, files, clock, service)


def stored(database: Database) -> list[int]:
    """Return the numbers of the readings that are in the store."""
    rows = database.connection.execute("SELECT reading_id FROM meter_readings ORDER BY reading_id")
    return [row["reading_id"] for row in rows]
