"""How a setting says where a signing key is: `file:`, `enc:`, `credential:` or `keychain:`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qsl, urlsplit

from pydantic import PlainValidator

from gridtokenx_cloud.ports.keys import Backend, KeyFile, KeySource, RemoteKey, SealedKeyFile
from gridtokenx_wire import base58
from gridtokenx_wire.errors import MalformedLineError

_KINDS = ("file:", "enc:", "credential:", "keychain:")
_NEEDED: dict[Backend, tuple[str, ...]] = {
    "vault": ("url", "key", "address", "token"),
    "aws-kms": ("key", "address"),
    "gcp-kms": ("key", "address"),
}
_OPTIONAL: dict[Backend, tuple[str, ...]] = {
    "vault": ("ca",),
    "aws-kms": ("region",),
    "gcp-kms": (),
}
_VERSION_PATH = "projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/N"


def names_a_key(text: str) -> bool:
    """Whether a setting says where a key is; else it may be the key itself."""
    return text.startswith(_KINDS) and not any(
        name == "token" and not value.startswith(("file:", "credential:"))
        for name, value in _parameters(text)
    )


def with_credentials_found(text: str, path_of: Callable[[str], Path]) -> str:
    """Return the text with each `credential:NAME` in it turned into `file:PATH`.

    Args:
        text: A setting for which `names_a_key` holds.
        path_of: Finds a credential's file.
    """
    if text.startswith("credential:"):
        return f"file:{path_of(text)}"
    for name, value in _parameters(text):
        if name == "token" and value.startswith("credential:"):
            return text.replace(f"token={value}", f"token=file:{path_of(value)}")
    return text


def parse_key_source(text: str) -> KeySource:
    """Return where a key is.

    Raises:
        ValueError: Says all that is wrong with it.
    """
    kind, _, rest = text.partition(":")
    if kind in ("file", "enc"):
        if not rest:
            raise ValueError(f"names nothing; write {kind}:PATH")
        return KeyFile(Path(rest)) if kind == "file" else SealedKeyFile(Path(rest))
    if kind != "keychain":
        raise ValueError(f"is none of {', '.join(_KINDS)}")
    return _remote(rest.partition("?")[0], _parameters(text))


def _parameters(text: str) -> list[tuple[str, str]]:
    if not text.startswith("keychain:"):
        return []
    # `+` is a character of a key's name here, not a space.
    query = text.partition("?")[2].replace("+", "%2B")
    return parse_qsl(query, keep_blank_values=True)


def _remote(backend: str, parameters: list[tuple[str, str]]) -> RemoteKey:
    known = next((one for one in _NEEDED if one == backend), None)
    if known is None:
        raise ValueError(f"names the unknown service {backend!r}; known are {', '.join(_NEEDED)}")
    given = dict(parameters)
    faults = [
        *(f"{name} is missing" for name in _NEEDED[known] if not given.get(name)),
        *(
            f"{name} is no parameter of {known}"
            for name in given
            if name not in (*_NEEDED[known], *_OPTIONAL[known])
        ),
        *(f"{name} is given twice" for name in given if [n for n, _ in parameters].count(name) > 1),
        *_value_faults(known, given),
    ]
    if faults:
        raise ValueError(f"is no key of {known}: {', '.join(faults)}; see docs/keys.md")
    token, ca = given.get("token"), given.get("ca")
    return RemoteKey(
        backend=known,
        address=given["address"],
        key=given["key"],
        url=given.get("url"),
        region=given.get("region"),
        token_file=Path(token.removeprefix("file:")) if token else None,
        ca_file=Path(ca) if ca else None,
    )


def _value_faults(backend: Backend, given: dict[str, str]) -> list[str]:
    faults: list[str] = []
    if (address := given.get("address")) and not _is_address(address):
        faults.append(f"address {address} is no base58 text of 32 bytes")
    if (url := given.get("url")) and not _is_https(url):
        faults.append(f"url {url} is no https://HOST")
    if backend == "gcp-kms" and (key := given.get("key")):
        shape = [part for part in _VERSION_PATH.split("/") if not part.isupper()]
        if key.split("/")[::2] != shape or not all(key.split("/")[1::2]):
            faults.append(f"key {key} is no {_VERSION_PATH}")
    return faults


def _is_address(text: str) -> bool:
    try:
        base58.decode_key(text)
    except MalformedLineError:
        return False
    return True


def _is_https(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


KeyReference = Annotated[KeySource, PlainValidator(parse_key_source)]
"""Where a key is, as `parse_key_source` reads it."""
