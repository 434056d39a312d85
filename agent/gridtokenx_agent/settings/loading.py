"""Reads the configuration: the file, and the environment above it."""

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from gridtokenx_agent.errors import ConfigError
from gridtokenx_agent.settings.faults import cross_faults, model_faults, unknown_variables
from gridtokenx_agent.settings.model import AgentSettings

DEFAULT_PATH: Final = Path("/etc/gridtokenx/agent.toml")


def load_settings(
    path: Path,
    check_profile: Callable[[str], object],
    check_bus: Callable[[str], object],
) -> AgentSettings:
    """Read the configuration and refuse it unless it is wholly right.

    Args:
        path: The TOML file.
        check_profile: Raises for a profile that does not exist or has faults.
        check_bus: Raises for a URL that is none.

    Raises:
        ConfigError: Lists every fault.
    """
    values = _read(path)
    faults = [*unknown_variables(), *cross_faults(values, check_profile, check_bus)]
    try:
        settings = AgentSettings(**values)
    except ValidationError as exc:
        found = model_faults(exc.errors())
        raise ConfigError(tuple(f"{path}: {fault}" for fault in (*found, *faults))) from exc
    if faults:
        raise ConfigError(tuple(f"{path}: {fault}" for fault in faults))
    return settings


def notify_socket() -> str | None:
    """Return where systemd listens, None when the agent is not its service."""
    return os.environ.get("NOTIFY_SOCKET")


def _read(path: Path) -> dict[str, Any]:
    try:
        # An editor of Windows puts a mark before the first character; it is no part of the text.
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as exc:
        raise ConfigError((f"{path} does not exist; write it with `gtx-agent init`",)) from exc
    except PermissionError as exc:
        raise ConfigError((f"{path} is not for this user to read; run it with sudo",)) from exc
    except OSError as exc:
        raise ConfigError((f"{path} cannot be read: {exc.strerror}",)) from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError((f"{path} is no TOML: {exc}",)) from exc
