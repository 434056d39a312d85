"""Where meter profiles lie: the user's own directory, then those that come with the agent."""

import re
from difflib import get_close_matches
from pathlib import Path

from gridtokenx_agent.errors import ConfigError
from gridtokenx_agent.profiles import MeterProfile, load_profile

_PACKAGE = Path(__file__).resolve().parents[1]
_SHIPPED = (
    _PACKAGE / "meters",  # an installed wheel
    _PACKAGE.parents[1] / "firmware-config" / "meters",  # a checkout
)
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


def profile_paths(user_directory: Path | None = None) -> dict[str, Path]:
    """Return every profile's file by name; the user's own hide shipped ones of the same name."""
    found: dict[str, Path] = {}
    for directory in (user_directory, *_SHIPPED):
        if directory is None:
            continue
        for path in sorted(directory.glob("*.toml")):
            if _NAME.fullmatch(path.stem):
                found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def find_profile(name: str, user_directory: Path | None = None) -> MeterProfile:
    """Load the profile called *name*.

    Raises:
        ConfigError: There is no such profile, or its file cannot be read.
        ProfileError: The profile has faults.
    """
    paths = profile_paths(user_directory)
    path = paths.get(name)
    if path is None:
        near = get_close_matches(name, paths, n=3) or list(paths)
        raise ConfigError((f"there is no meter profile {name!r}; there is {', '.join(near)}",))
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError((f"meter profile {path} cannot be read: {exc}",)) from exc
    return load_profile(text, name)
