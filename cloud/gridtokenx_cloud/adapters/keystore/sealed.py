"""Key files that a password opens: scrypt makes the key, AES-256-GCM seals the seed.

One JSON object, described in docs/keys.md. Everything but `sealed` is authenticated with it, so
that neither the costs nor the public key can be exchanged without the password.
"""

import base64
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from pydantic import SecretStr
from solders.keypair import Keypair

from gridtokenx_cloud.adapters.keystore.files import private_bytes
from gridtokenx_cloud.adapters.keystore.local import LocalSigner
from gridtokenx_cloud.errors import SigningKeyError

_FORMAT, _VERSION = "gridtokenx-key", 1
_NAMES = {"format", "version", "public_key", "kdf", "n", "r", "p", "salt", "cipher", "nonce"}
_SALT_BYTES, _NONCE_BYTES, _KEY_BYTES, _SEALED_BYTES = 16, 12, 32, 48
_LEAST_N, _MOST_MEMORY_BYTES, _MOST_P = 2**14, 2**30, 16


@dataclass(frozen=True, slots=True)
class ScryptCost:
    """What each guess of a password costs: 128 x n x r bytes, and p times the work."""

    n: int = 2**17
    r: int = 8
    p: int = 1

    @property
    def is_sane(self) -> bool:
        """Neither too cheap to protect, nor so dear that a bad file could stop the machine."""
        power_of_two = self.n > 0 and self.n & (self.n - 1) == 0
        memory = 128 * self.n * self.r
        return (
            power_of_two
            and self.n >= _LEAST_N
            and self.r >= 8
            and memory <= _MOST_MEMORY_BYTES
            and 1 <= self.p <= _MOST_P
        )


@dataclass(frozen=True, slots=True)
class _Document:
    public_key: str
    cost: ScryptCost
    salt: bytes
    nonce: bytes
    sealed: bytes
    header: bytes


def seal(signer: LocalSigner, password: SecretStr, cost: ScryptCost | None = None) -> bytes:
    """Return the content of a sealed key file."""
    chosen = cost or ScryptCost()
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    header: dict[str, object] = {
        "format": _FORMAT,
        "version": _VERSION,
        "public_key": signer.address,
        "kdf": "scrypt",
        "n": chosen.n,
        "r": chosen.r,
        "p": chosen.p,
        "salt": _text(salt),
        "cipher": "aes-256-gcm",
        "nonce": _text(nonce),
    }
    sealed = AESGCM(_derive(password, salt, chosen)).encrypt(
        nonce, signer.expose()[:32], _canonical(header)
    )
    return json.dumps(header | {"sealed": _text(sealed)}, indent=1).encode() + b"\n"


def load_sealed_key(path: Path, password: SecretStr) -> LocalSigner:
    """Return the key of a sealed file.

    Raises:
        SigningKeyError: Not readable, no sealed key, or the password does not open it.
    """
    document = _document(path)
    signer = _opened(document, password)
    if signer is None:
        raise SigningKeyError(
            f"key file {path} does not open: the password is wrong, or the file was changed"
        )
    return signer


def sealed_address(path: Path) -> str:
    """Return the address that a sealed file says it has; only opening it proves it.

    Raises:
        SigningKeyError: Not readable, or no sealed key.
    """
    return _document(path).public_key


def _document(path: Path) -> _Document:
    document = _parsed(private_bytes(path))
    if document is None:
        raise SigningKeyError(
            f"key file {path} is no sealed key of version {_VERSION}; make one with"
            " `gtx-cloud keys encrypt`, or restore it from the backup"
        )
    return document


def _opened(document: _Document, password: SecretStr) -> LocalSigner | None:
    try:
        seed = AESGCM(_derive(password, document.salt, document.cost)).decrypt(
            document.nonce, document.sealed, document.header
        )
    except InvalidTag:
        return None
    signer = LocalSigner(Keypair.from_seed(seed))
    return signer if signer.address == document.public_key else None


def _derive(password: SecretStr, salt: bytes, cost: ScryptCost) -> bytes:
    kdf = Scrypt(salt=salt, length=_KEY_BYTES, n=cost.n, r=cost.r, p=cost.p)
    return kdf.derive(password.get_secret_value().encode())


def _parsed(content: bytes) -> _Document | None:
    try:
        fields: dict[str, Any] = json.loads(content)
        sealed = _bytes(fields.pop("sealed"), _SEALED_BYTES)
        document = _Document(
            public_key=fields["public_key"],
            cost=ScryptCost(*(_whole(fields[name]) for name in ("n", "r", "p"))),
            salt=_bytes(fields["salt"], _SALT_BYTES),
            nonce=_bytes(fields["nonce"], _NONCE_BYTES),
            sealed=sealed,
            header=_canonical(fields),
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    kind = tuple(fields.get(name) for name in ("format", "version", "kdf", "cipher"))
    known = kind == (_FORMAT, _VERSION, "scrypt", "aes-256-gcm") and fields.keys() == _NAMES
    return document if known and document.cost.is_sane else None


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError("no whole number")
    return value


def _canonical(header: dict[str, object]) -> bytes:
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _bytes(text: str, length: int) -> bytes:
    content = base64.b64decode(text, validate=True)
    if len(content) != length:
        raise ValueError("wrong length")
    return content
