"""`ArchiveFolder` of Parquet files; each has a manifest beside it, and both are never changed."""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gridtokenx_cloud.errors import ArchiveUnavailableError
from gridtokenx_cloud.ports.archive import COLUMNS, ArchivedReading, ArchiveFile

_TEXTS = frozenset(
    ("meter_id", "epoch", "gateway_id", "user_id", "boot_id", "status", "reason", "memo")
) | {"mint_tx_signature"}
_ROWS_PER_GROUP = 10_000


def _kind(name: str) -> Any:
    if name == "line":
        return pa.binary()
    return pa.string() if name in _TEXTS else pa.int64()


_SCHEMA = pa.schema([(name, _kind(name)) for name in COLUMNS])


class ParquetFolder:
    """Files `NAME` with `NAME.json` in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """See `ArchiveFolder.locked`."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as exc:
            raise ArchiveUnavailableError(
                f"{self.folder} cannot be written ({exc}); name another"
            ) from exc
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                raise ArchiveUnavailableError(
                    f"another program archives into {self.folder} now; wait for its end"
                ) from exc
            yield
        finally:
            os.close(descriptor)

    def write(
        self, name: str, readings: Sequence[ArchivedReading], created_at_ms: int
    ) -> ArchiveFile:
        """See `ArchiveFolder.write`."""
        target, part = self.folder / name, self.folder / f"{name}.part"
        try:
            with part.open("xb") as file:
                part.chmod(0o600)
                columns = {key: [getattr(one, key) for one in readings] for key in COLUMNS}
                pq.write_table(
                    pa.table(columns, schema=_SCHEMA),
                    file,
                    compression="zstd",
                    row_group_size=_ROWS_PER_GROUP,
                )
                file.flush()
                os.fsync(file.fileno())
            if self._read(part) != list(readings):
                raise ArchiveUnavailableError(
                    f"{part}: the disk does not give back what was written to it"
                )
            described = _described(name, _sha256(part), readings, created_at_ms)
            self._write_manifest(described)
            part.replace(target)
            self._sync_folder()
        except (OSError, pa.ArrowException) as exc:
            raise ArchiveUnavailableError(
                f"{target} cannot be written ({exc}); name another folder"
            ) from exc
        return described

    def _write_manifest(self, described: ArchiveFile) -> None:
        with (self.folder / f"{described.name}.json").open("x", encoding="ascii") as file:
            json.dump({"v": 1, **asdict(described)}, file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())

    def discard(self, name: str) -> None:
        """See `ArchiveFolder.discard`."""
        for left in (f"{name}.part", f"{name}.json", name):
            (self.folder / left).unlink(missing_ok=True)
        self._sync_folder()

    def _sync_folder(self) -> None:
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def of_batch(self, names: Sequence[str], batch_id: int) -> list[ArchivedReading]:
        """See `ArchiveFolder.of_batch`."""
        return [one for name in names for one in self._pick(name, "batch_id", batch_id)]

    def reading(self, names: Sequence[str], reading_id: int) -> ArchivedReading | None:
        """See `ArchiveFolder.reading`."""
        for name in names:
            for one in self._pick(name, "reading_id", reading_id):
                return one
        return None

    def _pick(self, name: str, column: str, value: int) -> list[ArchivedReading]:
        try:
            return self._read(self.folder / name, [(column, "=", value)])
        except (OSError, pa.ArrowException) as exc:
            raise ArchiveUnavailableError(
                f"{self.folder / name} cannot be read ({exc}); restore it from a backup"
            ) from exc

    def _read(self, path: Path, filters: list[Any] | None = None) -> list[ArchivedReading]:
        table = pq.read_table(path, filters=filters, schema=_SCHEMA)
        return [ArchivedReading(**row) for row in table.to_pylist()]

    def faults(self, file: ArchiveFile) -> list[str]:
        """See `ArchiveFolder.faults`."""
        path = self.folder / file.name
        try:
            if _sha256(path) != file.sha256:
                return ["its SHA-256 is not the one of what was written"]
            manifest = json.loads((self.folder / f"{file.name}.json").read_text("ascii"))
            if manifest != {"v": 1, **asdict(file)}:
                return ["its manifest is not what the store has"]
            count = pq.read_metadata(path).num_rows
        except (OSError, ValueError, pa.ArrowException) as exc:
            return [f"it cannot be read: {exc}"]
        return [] if count == file.readings else [f"{count} readings, not {file.readings}"]


def _described(
    name: str, sha256: str, readings: Sequence[ArchivedReading], created_at_ms: int
) -> ArchiveFile:
    batches = [one.batch_id for one in readings if one.batch_id is not None]
    times = [one.submitted_at_ms for one in readings]
    return ArchiveFile(
        name=name,
        sha256=sha256,
        readings=len(readings),
        credit_wh=sum(one.credit_wh for one in readings),
        first_reading_id=readings[0].reading_id,
        last_reading_id=readings[-1].reading_id,
        first_batch_id=min(batches, default=None),
        last_batch_id=max(batches, default=None),
        first_at_ms=min(times),
        last_at_ms=max(times),
        created_at_ms=created_at_ms,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
