"""The archive as an operator and the hourly upkeep use it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gridtokenx_cloud.__main__ import cli
from gridtokenx_cloud.__main__ import run as run_command
from gridtokenx_cloud.archive_wiring import archiver
from gridtokenx_cloud.errors import ArchiveUnavailableError, ConfigError
from gridtokenx_cloud.ports.archive import ArchiveFile
from gridtokenx_cloud.roles.upkeep import UpkeepRole
from gridtokenx_cloud.settings import load_settings
from gridtokenx_cloud.supervisor import StopSignal
from tests.support import build_cloud as build
from tests.support.archive import stored
from tests.support.build_cloud import GATEWAY, Cloud


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with build.cloud(tmp_path) as made:
        made.take(GATEWAY.sends(*(build.slot(seq, 1_000) for seq in range(90, 96))))
        yield made


def invoke(cloud: Cloud, *words: str) -> Result:
    base = ["--database-url", f"sqlite:///{cloud.database.name}"]
    return CliRunner().invoke(cli, [*base, *words], catch_exceptions=False)


def test_readings_are_archived_listed_and_verified(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GTX_CLOUD_ARCHIVE_DIR", str(tmp_path / "archive"))

    # The machine's clock is years behind the readings' own: only what came long ago goes.
    with cloud.database.transaction() as tx:
        tx.execute("UPDATE meter_readings SET submitted_at_ms = 0 WHERE seq < 95")
    done = invoke(cloud, "archive", "run", "--older-than-days", "90", "--json")
    listed = invoke(cloud, "archive", "list", "--json")
    good = invoke(cloud, "archive", "verify")
    (file,) = json.loads(done.output)
    (tmp_path / "archive" / file["file"]).write_bytes(b"")
    bad = invoke(cloud, "archive", "verify")
    base = ["--database-url", f"sqlite:///{cloud.database.name}"]
    exit_code = run_command([*base, "archive", "verify"])

    assert file["readings"] == 4
    assert json.loads(listed.output) == [file]
    assert len(stored(cloud.database)) == 2
    assert "fault" in good.output
    assert "SHA-256" not in good.output
    assert "its SHA-256 is not the one" in bad.output
    assert exit_code == 1


def test_without_a_folder_or_an_age_the_command_says_what_is_missing(cloud: Cloud) -> None:
    with pytest.raises(ConfigError, match="GTX_CLOUD_ARCHIVE_AFTER_DAYS is not set"):
        invoke(cloud, "archive", "run")
    with pytest.raises(ConfigError, match="GTX_CLOUD_ARCHIVE_DIR is not set"):
        invoke(cloud, "archive", "verify")


def test_upkeep_archives_where_that_is_set_and_survives_a_folder_that_fails(
    cloud: Cloud, tmp_path: Path
) -> None:
    cloud.clock.at_ms += 500 * 86_400_000
    environ = {
        "GTX_CLOUD_ARCHIVE_AFTER_DAYS": "400",
        "GTX_CLOUD_ARCHIVE_DIR": str(tmp_path / "archive"),
    }
    settings = load_settings(environ=environ, complete=False).cloud
    nothing = load_settings(environ={}, complete=False).cloud
    works = archiver(settings, cloud.database, cloud.clock)
    assert works is not None

    def fails() -> list[ArchiveFile]:
        raise ArchiveUnavailableError("the disk is full")

    for archive in (fails, works):
        once(cloud, archive)

    assert archiver(nothing, cloud.database, cloud.clock) is None
    assert len(stored(cloud.database)) == 2
    assert len(list((tmp_path / "archive").glob("*.parquet"))) == 1


def once(cloud: Cloud, archive: Callable[[], list[ArchiveFile]]) -> None:
    """Run upkeep for one hour's work."""
    stop = StopSignal()

    def last() -> list[ArchiveFile]:
        stop.set()
        return archive()

    UpkeepRole(cloud.database, cloud.clock, 30, 24, last).run(stop)
