"""Moves old settled readings into files: a reading leaves the store once its copy is proven."""

from dataclasses import dataclass

from gridtokenx_cloud.ports.archive import ArchiveFile, ArchiveFolder, ArchiveStore
from gridtokenx_cloud.ports.common import Clock

READINGS_PER_FILE = 50_000
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class ArchiveService:
    """Killed at any line, every reading is in the store or in a verified file, and counted once.

    A file is announced in the store before it is begun; what a kill leaves of it is discarded by
    the next run, as its readings are still in the store. Deleting them and taking the file into
    the books is one commit.
    """

    store: ArchiveStore
    folder: ArchiveFolder
    clock: Clock
    readings_per_file: int = READINGS_PER_FILE

    def run(self, older_than_days: int) -> list[ArchiveFile]:
        """Archive all settled readings that came in before; return the new files.

        Raises:
            ArchiveUnavailableError: The folder takes nothing, or gives back something else.
            StoreBusyError: The store cannot do it now; what is archived so far is archived.
        """
        before_ms = self.clock.now_ms() - older_than_days * _DAY_MS
        with self.folder.locked():
            for name in self.store.unfinished():
                self.folder.discard(name)
                self.store.forget(name)
            files = []
            after, end = 0, self.store.end_of(before_ms)
            while True:
                some = self.store.settled(after, end, before_ms, self.readings_per_file)
                if not some:
                    break
                after = some[-1].reading_id
                now_ms = self.clock.now_ms()
                name = f"readings-{some[0].reading_id}-{after}-{now_ms}.parquet"
                self.store.announce(name, now_ms)
                written = self.folder.write(name, some, now_ms)
                self.store.remove(written, some)
                files.append(written)
            self.store.tidy(before_ms)
        return files
