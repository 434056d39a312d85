"""Where meter profiles lie: the user's own directory, then those that come with the agent."""

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from gridtokenx_agent.errors import ConfigError
from gridtokenx_agent.profiles import MeterProfile, load_profile

USER_DIRECTORY: Final = Path("/etc/gridtokenx/meters")
"""Profiles of one's own; one of the same name hides a shipped one."""
_PACKAGE = Path(__file__).resolve().parents[1]
_SHIPPED = (
    _PACKAGE / "meters",  # an installed wheel
    _PACKAGE.parents[1] / "firmware-config" / "meters",  # a checkout
)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_SUFFIX: Final = ".toml"


def profile_paths(user_directory: Path = USER_DIRECTORY) -> dict[str, Path]:
    """Return every profile's file by name; the user's own hide shipped ones of the same name."""
    found: dict[str, Path] = {}
    for directory in (user_directory, *_SHIPPED):
        for path in sorted(directory.glob(f"*{_SUFFIX}")):
            if _NAME.fullmatch(path.stem):
                found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def find_profile(name: str, user_directory: Path = USER_DIRECTORY) -> MeterProfile:
    """Load the profile called *name*, or the one in the file *name* if it ends in .toml.

    Raises:
        ConfigError: There is no such profile, or its file cannot be read.
        ProfileError: The profile has faults.
    """
    path = Path(name) if name.endswith(_SUFFIX) else _path_of(name, user_directory)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError((f"meter profile {path} cannot be read: {exc}",)) from exc
    return load_profile(text, name)


def _path_of(name: str, user_directory: Path) -> Path:
    paths = profile_paths(user_directory)
    path = paths.get(name)
    if path is None:
        near = get_close_matches(name, paths, n=3) or list(paths)
        raise ConfigError((f"there is no meter profile {name!r}; there is {', '.join(near)}",))
    return path
