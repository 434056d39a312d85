"""What may change while the program runs: overrides above the environment, checked as a whole."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pydantic

from gridtokenx_cloud.errors import ConfigError, FixedSettingError, TransientError
from gridtokenx_cloud.settings.fault import Fault, fault
from gridtokenx_cloud.settings.load import Settings, bad_value, first_errors
from gridtokenx_cloud.settings.rules import Groups, cross_faults
from gridtokenx_cloud.settings.tokenization import TokenizationConfig

_log = logging.getLogger(__name__)
_FRESH_MS = 1_000
LIVE_FIELDS = tuple(
    field for field in TokenizationConfig.model_fields if field not in TokenizationConfig.FIXED
)


def texts_of(group: TokenizationConfig) -> dict[str, str]:
    """Return the changeable settings as they would stand in an `.env` file."""
    return {name: _text(getattr(group, name)) for name in LIVE_FIELDS}


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def overridden(settings: Settings, overrides: Mapping[str, str]) -> TokenizationConfig:
    """Return the `TOKENIZATION_*` group with *overrides* (field -> text) above what was set.

    Raises:
        FixedSettingError: A field that can't change while running.
        ConfigError: With every fault at once, also of rules that span several settings.
    """
    known(overrides)
    values: dict[str, Any] = settings.tokenization.model_dump() | dict(overrides)
    try:
        group = TokenizationConfig.model_validate(values)
    except pydantic.ValidationError as exc:
        bad = first_errors(exc)
        texts = {name: str(value) for name, value in values.items()}
        found = [bad_value(TokenizationConfig, name, texts, error) for name, error in bad.items()]
        raise ConfigError(tuple(map(str, found))) from exc
    groups = Groups(group, settings.blockchain, settings.websocket, settings.cloud)
    broken = [found for found in cross_faults(groups) if found.code != "MissingVariable"]
    if broken:
        raise ConfigError(tuple(map(str, broken)))
    return group


def known(names: Iterable[str]) -> None:
    """Refuse names of settings that cannot change while running.

    Raises:
        FixedSettingError: They exist, but the store and the chain are tied to them.
        ConfigError: One does not exist.
    """
    unknown = [name for name in names if name not in LIVE_FIELDS]
    if unknown:
        fixed = all(name in TokenizationConfig.model_fields for name in unknown)
        kind = FixedSettingError if fixed else ConfigError
        raise kind(tuple(str(_unknown(name)) for name in unknown))


def _unknown(name: str) -> Fault:
    if name in TokenizationConfig.model_fields:
        return fault(
            "IncompatibleValues",
            name,
            f"{name} is fixed in the store and on the chain; it cannot change while running",
        )
    return fault(
        "UnknownVariable",
        name,
        f"{name} is no setting that can change while running; choose of {', '.join(LIVE_FIELDS)}",
    )


class LiveTokenization:
    """The `TOKENIZATION_*` settings in force; every process sees a change within a second.

    Args:
        settings: As the process was started.
        read: Returns the stored overrides.
        now_ms: The wall clock.

    Raises:
        ConfigError: The stored overrides do not fit what was set since.
    """

    def __init__(
        self, settings: Settings, read: Callable[[], Mapping[str, str]], now_ms: Callable[[], int]
    ) -> None:
        self._settings = settings
        self._read = read
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._texts = dict(read())
        self._read_at_ms = now_ms()
        try:
            self._group = overridden(settings, self._texts)
        except ConfigError as exc:
            way_out = "a stored override does not fit; run `gtx-cloud config unset NAME`"
            raise ConfigError((*exc.faults, way_out)) from exc

    def current(self) -> TokenizationConfig:
        """Return the settings in force; the last good ones while the store cannot be read."""
        now_ms = self._now_ms()
        with self._lock:
            if not 0 <= now_ms - self._read_at_ms < _FRESH_MS:
                self._read_at_ms = now_ms
                self._renew()
            return self._group

    def forget(self) -> None:
        """Let the next use read the store."""
        with self._lock:
            self._read_at_ms -= _FRESH_MS

    def _renew(self) -> None:
        try:
            texts = dict(self._read())
            if texts == self._texts:
                return
            group = overridden(self._settings, texts)
        except TransientError as exc:
            _log.warning("config_not_read", extra={"error": str(exc)})
        except ConfigError as exc:
            _log.error("config_override_ignored", extra={"faults": list(exc.faults)})
        else:
            _log.info("config_changed", extra={"overrides": texts})
            self._texts, self._group = texts, group
