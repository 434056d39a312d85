"""Commands about old readings: archive them, list the files, check them."""

from pathlib import Path

import click

from gridtokenx_cloud.adapters.store.archive import SqlArchive
from gridtokenx_cloud.archive_wiring import archive_service, open_folder
from gridtokenx_cloud.commands.context import CommandContext, Row
from gridtokenx_cloud.events import rfc3339
from gridtokenx_cloud.ports.archive import ArchiveFile
from gridtokenx_cloud.settings import require

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
folder_option = click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the files; default: GTX_CLOUD_ARCHIVE_DIR.",
)


@click.group("archive")
def archive() -> None:
    """Old settled readings, moved into files that keep every proof."""


@archive.command("run")
@click.option(
    "--older-than-days",
    type=click.IntRange(min=1),
    help="Age from which on readings go; default: GTX_CLOUD_ARCHIVE_AFTER_DAYS.",
)
@folder_option
@json_option
@click.pass_obj
def run(
    context: CommandContext, older_than_days: int | None, folder: Path | None, as_json: bool
) -> None:
    """Move old readings that are finally minted, worth nothing or rejected into files."""
    days = older_than_days or require(
        context.settings.cloud.archive_after_days, "GTX_CLOUD_ARCHIVE_AFTER_DAYS"
    )
    service = archive_service(
        context.database(),
        open_folder(_folder(context, folder)),
        context.clock,
        actor=context.actor,
    )
    context.emit([_row(file) for file in service.run(days)], as_json)


@archive.command("list")
@json_option
@click.pass_obj
def list_files(context: CommandContext, as_json: bool) -> None:
    """List the files that readings have gone into."""
    files = SqlArchive(context.database(), actor=context.actor).files()
    context.emit([_row(file) for file in files], as_json)


@archive.command("verify")
@folder_option
@json_option
@click.pass_obj
def verify(context: CommandContext, folder: Path | None, as_json: bool) -> int:
    """Read every file and compare it with what the store knows; exit 1 when one is not whole."""
    where = open_folder(_folder(context, folder))
    files = SqlArchive(context.database(), actor=context.actor).files()
    faults = {file.name: "; ".join(where.faults(file)) for file in files}
    rows = [
        {"file": file.name, "readings": file.readings, "fault": faults[file.name] or None}
        for file in files
    ]
    context.emit(rows, as_json)
    return 1 if any(faults.values()) else 0


def _folder(context: CommandContext, given: Path | None) -> Path:
    return given or require(context.settings.cloud.archive_dir, "GTX_CLOUD_ARCHIVE_DIR")


def _row(file: ArchiveFile) -> Row:
    return {
        "file": file.name,
        "readings": file.readings,
        "first_at": rfc3339(file.first_at_ms),
        "last_at": rfc3339(file.last_at_ms),
        "sha256": file.sha256,
    }


GROUPS = (archive,)
