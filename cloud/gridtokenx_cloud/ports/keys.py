"""Where a signing key is, and what holds one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A key in the Solana command line's format, readable by its owner only."""

    path: Path

    def __str__(self) -> str:
        return f"file:{self.path}"


@dataclass(frozen=True, slots=True)
class SealedKeyFile:
    """A key in a file that a password opens."""

    path: Path

    def __str__(self) -> str:
        return f"enc:{self.path}"


Backend = Literal["vault", "aws-kms", "gcp-kms"]


@dataclass(frozen=True, slots=True)
class RemoteKey:
    """A key that never leaves the service that signs with it.

    Attributes:
        backend: Which kind of service.
        address: Base58 public key; what the service signs is checked against it.
        key: Name of the key there: transit key, KMS key id or alias, resource name.
        url: Where Vault is.
        region: Of AWS; None = as its own configuration says.
        token_file: Holds Vault's token; read for each signature, for tokens are renewed.
        ca_file: Authority of Vault's certificate; None = those of the system.
    """

    backend: Backend
    address: str
    key: str
    url: str | None = None
    region: str | None = None
    token_file: Path | None = None
    ca_file: Path | None = None

    def __str__(self) -> str:
        return f"keychain:{self.backend}?key={self.key}&address={self.address}"


KeySource = KeyFile | SealedKeyFile | RemoteKey


class KeySigner(Protocol):
    """Signs with one key; near or far, it shows nothing but its address."""

    @property
    def address(self) -> str:
        """Base58 public key."""
        ...

    async def sign(self, message: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature over *message*.

        Raises:
            SignerUnavailableError: The service that holds the key did not answer.
            SigningKeyError: It refuses, or the key can't be used.
        """
        ...
