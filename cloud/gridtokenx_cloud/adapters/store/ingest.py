"""`IngestStore`: load what a batch touches, save all it changes."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from gridtokenx_cloud.adapters.store.database import Connection, Database
from gridtokenx_cloud.adapters.store.ingest_load import load_books
from gridtokenx_cloud.adapters.store.ingest_rows import save_changes
from gridtokenx_cloud.ports.ingest import Books, Changes, Identity, IngestUnit


class SqlIngestStore:
    """`IngestStore` in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @contextmanager
    def transaction(self) -> Iterator[IngestUnit]:
        """See `IngestStore.transaction`."""
        with self._database.transaction() as tx:
            yield SqlIngestUnit(tx)


class SqlIngestUnit:
    """`IngestUnit` inside one write transaction."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def load(self, gateway_ids: Iterable[str], wanted: Iterable[Identity]) -> Books:
        """See `IngestUnit.load`."""
        return load_books(self._tx, gateway_ids, wanted)

    def save(self, changes: Changes) -> None:
        """See `IngestUnit.save`."""
        save_changes(self._tx, changes)
