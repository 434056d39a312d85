"""Read everything, check everything, and say everything that is wrong at once."""

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pydantic
from pydantic import SecretStr

from gridtokenx_cloud.errors import ConfigError
from gridtokenx_cloud.settings.base import Group
from gridtokenx_cloud.settings.blockchain import BlockchainSettings
from gridtokenx_cloud.settings.cloud import CloudSettings
from gridtokenx_cloud.settings.describe import allowed, default_text
from gridtokenx_cloud.settings.fault import Fault, FaultCode, fault
from gridtokenx_cloud.settings.keys import names_a_key, with_credentials_found
from gridtokenx_cloud.settings.rules import Groups, cross_faults
from gridtokenx_cloud.settings.sources import (
    Given,
    SourceError,
    gather,
    read_text,
    referenced_path,
)
from gridtokenx_cloud.settings.tokenization import TokenizationConfig
from gridtokenx_cloud.settings.websocket import WebSocketSettings

T = TypeVar("T")

GROUPS: dict[str, type[Group]] = {
    "tokenization": TokenizationConfig,
    "blockchain": BlockchainSettings,
    "websocket": WebSocketSettings,
    "cloud": CloudSettings,
}
_PREFIXES = tuple(str(group.model_config["env_prefix"]) for group in GROUPS.values())
_FIELDS = {
    group.env_name(field): (group_name, field)
    for group_name, group in GROUPS.items()
    for field in group.model_fields
}


@dataclass(frozen=True, slots=True)
class Settings(Groups):
    """Every setting of one process.

    Attributes:
        sources: Variable -> where it was set; what is absent has its default.
    """

    sources: Mapping[str, str]


def load_settings(
    env_file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    roles: str | None = None,
    database_url: str | None = None,
    complete: bool = True,
) -> Settings:
    """Read the environment, and for what is not set there *env_file* (default: `.env` here).

    Args:
        env_file: Must exist when named.
        environ: In place of the process environment.
        roles: In place of `GTX_CLOUD_ROLES`.
        database_url: In place of `GTX_CLOUD_DATABASE_URL`.
        complete: Whether what the roles need must be there; a command asks with `require`.

    Raises:
        ConfigError: With every fault at once.
    """
    if environ is None:
        environ = os.environ  # noqa: TID251 - this is the one place that reads it
    given = gather(environ, _existing(env_file), _PREFIXES)
    for name, option, text in (
        ("GTX_CLOUD_ROLES", "--roles", roles),
        ("GTX_CLOUD_DATABASE_URL", "--database-url", database_url),
    ):
        if text is not None:
            given[name] = Given(text, option)

    texts, faults = _texts(given, environ)
    groups, group_faults = _groups(texts)
    faults += group_faults
    spoilt = frozenset().union(*(found.names for found in faults))
    faults += [found for found in cross_faults(groups) if not found.names & spoilt]
    if groups.cloud.environment == "production":
        faults += _plain_secrets(given)
    if not complete:
        faults = [found for found in faults if found.code != "MissingVariable"]
    if faults:
        raise ConfigError(tuple(str(found) for found in faults))
    return Settings(
        tokenization=groups.tokenization,
        blockchain=groups.blockchain,
        websocket=groups.websocket,
        cloud=groups.cloud,
        sources={name: value.source for name, value in given.items()},
    )


def _existing(env_file: Path | None) -> Path | None:
    if env_file is None:
        return Path(".env") if Path(".env").is_file() else None
    if not env_file.is_file():
        raise ConfigError((f"--env-file {env_file} does not exist; name a file or leave it out",))
    return env_file


def require(value: T | None, name: str) -> T:
    """Return *value*, the setting *name*, which this use cannot do without.

    Raises:
        ConfigError: `MissingVariable`.
    """
    if value is None or value == ():
        raise ConfigError(
            (f"MissingVariable: {name} is not set, and this needs it; see docs/configuration.md",)
        )
    return value


def non_default_values(settings: Settings) -> dict[str, str]:
    """Return what was set, as `value (source)`; secrets as `***`."""
    values = {}
    for name, source in settings.sources.items():
        group_name, field = _FIELDS[name]
        value = getattr(getattr(settings, group_name), field)
        values[name] = f"{_shown(field, value)} ({source})"
    return values


def secret_values(settings: Settings) -> tuple[str, ...]:
    """Return every text that must never be written to a log."""
    found: list[str] = []
    for group_name, group_class in GROUPS.items():
        group = getattr(settings, group_name)
        for field in group_class.SECRETS:
            secret: SecretStr | None = getattr(group, field)
            if secret is not None:
                found.append(secret.get_secret_value())
    for url in settings.cloud.solana_rpc_urls:
        parts = urlsplit(url)
        found += [text for text in (parts.path.strip("/"), parts.query) if text]
    if password := urlsplit(settings.cloud.database_url).password:
        found.append(password)
    return tuple(found)


def _shown(field: str, value: object) -> str:
    if isinstance(value, SecretStr):
        return "***"
    if field == "solana_rpc_urls" and isinstance(value, tuple):
        # The path and the query of an RPC provider's URL are the account's key.
        return ",".join(_without_key(url) for url in value)
    if field == "database_url":
        return without_password(str(value))
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else str(value)


def without_password(url: str) -> str:
    """Return a store's URL as it may be shown."""
    parts = urlsplit(url)
    return url.replace(f":{parts.password}@", ":***@") if parts.password else url


def _without_key(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _texts(
    given: Mapping[str, Given], environ: Mapping[str, str]
) -> tuple[dict[str, str], list[Fault]]:
    """Follow every reference; return what is known and readable, and the faults."""
    texts: dict[str, str] = {}
    faults: list[Fault] = []
    for name, value in given.items():
        if name not in _FIELDS:
            faults.append(_unknown(name))
            continue
        try:
            texts[name] = _text(name, value, environ)
        except SourceError as exc:
            faults.append(fault("ValidationFailed", name, f"{name} {exc}"))
        except _KeyInPlainError:
            faults.append(
                fault("PlainSecret", name, f"{name}=*** must name the key's file: file:PATH")
            )
    return texts, faults


class _KeyInPlainError(Exception):
    """A key stands where only the name of its file may stand."""


def _text(name: str, given: Given, environ: Mapping[str, str]) -> str:
    group_name, field = _FIELDS[name]
    group = GROUPS[group_name]
    if field in group.SIGNING_KEYS:
        if not names_a_key(given.text):
            raise _KeyInPlainError
        return with_credentials_found(
            given.text, lambda text: referenced_path(Given(text, given.source), environ)
        )
    if field in group.KEY_FILES:
        if not given.is_reference:
            raise _KeyInPlainError
        return str(referenced_path(given, environ))
    if given.is_reference:
        return read_text(referenced_path(given, environ), field in group.SECRETS)
    return given.text


def _unknown(name: str) -> Fault:
    close = difflib.get_close_matches(name, _FIELDS, n=1)
    hint = f"did you mean {close[0]}?" if close else "see docs/configuration.md for all names"
    return fault("UnknownVariable", name, f"{name} is no setting; {hint}")


def _groups(texts: Mapping[str, str]) -> tuple[Groups, list[Fault]]:
    """Build every group; what is faulty in one takes its default so the rest is checked too."""
    built: dict[str, Any] = {}
    faults: list[Fault] = []
    for group_name, group in GROUPS.items():
        values = {
            field: texts[group.env_name(field)]
            for field in group.model_fields
            if group.env_name(field) in texts
        }
        try:
            built[group_name] = group.model_validate(values)
        except pydantic.ValidationError as exc:
            bad = first_errors(exc)
            faults += [bad_value(group, field, values, error) for field, error in bad.items()]
            kept = {field: text for field, text in values.items() if field not in bad}
            built[group_name] = group.model_validate(kept)
    return Groups(**built), faults


def first_errors(exc: pydantic.ValidationError) -> dict[str, Any]:
    """Return field -> what was found wrong with it first; what follows from that is no news."""
    bad: dict[str, Any] = {}
    for error in exc.errors():
        bad.setdefault(str(error["loc"][0]), error)
    return bad


def bad_value(group: type[Group], field: str, values: Mapping[str, str], error: Any) -> Fault:
    """Return the fault of a text that pydantic refused with *error*."""
    name, info = group.env_name(field), group.model_fields[field]
    hidden = group.SECRETS | group.SIGNING_KEYS | {"solana_rpc_urls"}
    shown = "***" if field in hidden else values[field]
    if field == "database_url":
        shown = without_password(shown)
    what = str(error["ctx"]["error"]) if error["type"] == "value_error" else "is not allowed"
    if error["type"] in ("string_too_short", "too_short"):
        what = f"is too short; give at least {error['ctx']['min_length']}"
    elif limits := allowed(info):
        what += f"; set it to {limits}, or remove it for {default_text(info)}"
    too_fast = field == "polling_interval_secs" and error["type"] == "greater_than_equal"
    code: FaultCode = "InsufficientPollingInterval" if too_fast else "ValidationFailed"
    return fault(code, name, f"{name}={shown} {what}")


def _plain_secrets(given: Mapping[str, Given]) -> Iterator[Fault]:
    for name, value in given.items():
        group_name, field = _FIELDS.get(name, ("", ""))
        secret = group_name and field in GROUPS[group_name].SECRETS
        secret = secret or (field == "database_url" and urlsplit(value.text).password is not None)
        if secret and not value.is_reference:
            yield fault(
                "PlainSecret",
                name,
                f"{name}=*** stands in the {value.source} in production; use file:PATH",
            )
