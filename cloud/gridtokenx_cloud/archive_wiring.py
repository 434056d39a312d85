"""Where old readings go: opened only by those who archive, or read from there."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from gridtokenx_cloud.adapters.store.archive import SqlArchive
from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.archiving import ArchiveService
from gridtokenx_cloud.errors import ConfigError
from gridtokenx_cloud.ports.archive import ArchiveFile, ArchiveFolder
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.settings import CloudSettings


def open_folder(folder: Path) -> ArchiveFolder:
    """Return the folder of the archive's files; it need not be there yet.

    Raises:
        ConfigError: The library that reads and writes Parquet is not installed.
    """
    try:
        # 170 MB that only those need who archive, or prove what is archived.
        from gridtokenx_cloud.adapters.parquet import ParquetFolder
    except ImportError as exc:
        raise ConfigError(
            (f"{folder}: no Parquet library ({exc}); pip install 'gridtokenx[archive]'",)
        ) from exc
    return ParquetFolder(folder)


def archive_folder(cloud: CloudSettings) -> ArchiveFolder | None:
    """Return the configured folder, if there is one; raises as `open_folder`."""
    return None if cloud.archive_dir is None else open_folder(cloud.archive_dir)


def archive_service(
    database: Database, folder: ArchiveFolder, clock: Clock, *, actor: str
) -> ArchiveService:
    """Return what moves old readings of a store into a folder."""
    return ArchiveService(SqlArchive(database, actor=actor), folder, clock)


def archiver(
    cloud: CloudSettings, database: Database, clock: Clock
) -> Callable[[], list[ArchiveFile]] | None:
    """Return what upkeep is to do about old readings; None = nothing; raises as `open_folder`."""
    folder = archive_folder(cloud)
    if folder is None or cloud.archive_after_days is None:
        return None
    service = archive_service(database, folder, clock, actor="upkeep")
    return partial(service.run, cloud.archive_after_days)
