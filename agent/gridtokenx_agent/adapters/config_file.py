"""The configuration file, replaced whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gridtokenx_agent.errors import ConfigError


class StagedConfig:
    """A new configuration beside the one in force; gone at the end unless it was adopted."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self._target = target

    def adopt(self) -> None:
        """Put it in the old one's place.

        Raises:
            ConfigError: The folder takes no change; the old one is as it was.
        """
        try:
            self.path.replace(self._target)
            _sync_folder(self._target.parent)
        except OSError as exc:
            raise _no_leave(self._target, exc) from exc


@contextmanager
def staged(target: Path, text: str) -> Iterator[StagedConfig]:
    """Write *text* beside *target*, on disk before anything relies on it.

    A link is followed: the service may write where the file is, not where the link is.

    Raises:
        ConfigError: The folder takes no file.
    """
    target = target.resolve()
    path = target.with_name(f".{target.name}.new")
    try:
        mode = target.stat().st_mode & 0o777
        with path.open("w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as exc:
        raise _no_leave(target, exc) from exc
    try:
        yield StagedConfig(path, target)
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def _no_leave(target: Path, exc: OSError) -> ConfigError:
    return ConfigError(
        (
            f"{target} cannot be replaced ({exc.strerror}); change it on site, or move it to a "
            "folder that the agent may write in and leave a link here",
        )
    )


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
