"""From where a key is to what signs with it."""

from collections.abc import Callable
from pathlib import Path

from pydantic import SecretStr
from solders.pubkey import Pubkey
from solders.signature import Signature

from gridtokenx_cloud.adapters.keystore.files import load_key
from gridtokenx_cloud.adapters.keystore.sealed import load_sealed_key
from gridtokenx_cloud.errors import ConfigError, SigningKeyError
from gridtokenx_cloud.ports.keys import KeyFile, KeySigner, KeySource, SealedKeyFile
from gridtokenx_cloud.settings.private_file import PrivateFileError, read_private

PROBE = b"\xffgridtokenx: this key can sign"
"""What a key signs to show that it can; the first byte begins no transaction."""


def open_signer(
    source: KeySource, password: Callable[[], SecretStr], timeout_s: float
) -> KeySigner:
    """Return what signs with a key; a service is not called before the first signature.

    Args:
        source: Where the key is.
        password: Asked for a sealed file's password.
        timeout_s: Patience with a service, for one signature.

    Raises:
        ConfigError: The library that speaks to the service is missing.
        SigningKeyError: The key can't be used.
    """
    if isinstance(source, KeyFile):
        return load_key(source.path)
    if isinstance(source, SealedKeyFile):
        return load_sealed_key(source.path, password())
    try:
        # Only those who sign elsewhere need it.
        from gridtokenx_cloud.adapters.keystore.keychain import remote_signer
    except ImportError as exc:
        raise ConfigError(
            (f"{source}: no signing library ({exc}); pip install 'gridtokenx[keychain]'",)
        ) from exc
    return remote_signer(source, timeout_s)


def read_password(path: Path) -> SecretStr:
    """Return the password of a file, without the last line's end.

    Raises:
        SigningKeyError: Not readable, readable by others, empty, or no text.
    """
    try:
        found = _password(read_private(path))
    except PrivateFileError as exc:
        raise SigningKeyError(f"password file {exc}") from None
    if found is None:
        raise SigningKeyError(f"password file {path} holds no password: one line of text")
    return found


def _password(content: bytes) -> SecretStr | None:
    try:
        text = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        return None
    return SecretStr(text) if text else None


async def prove(signer: KeySigner) -> None:
    """Let a key sign something that is no transaction, and check the signature.

    Raises:
        SignerUnavailableError: Its service did not answer.
        SigningKeyError: It can't sign, or signs with another key.
    """
    signature = Signature.from_bytes(await signer.sign(PROBE))
    if not signature.verify(Pubkey.from_string(signer.address), PROBE):
        raise SigningKeyError(f"what signs for {signer.address} holds another key")
