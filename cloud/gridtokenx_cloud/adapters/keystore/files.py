"""Key files as the Solana command line writes them, and files that appear whole or not at all."""

import json
import os
import secrets
from pathlib import Path

from solders.keypair import Keypair

from gridtokenx_cloud.adapters.keystore.local import LocalSigner
from gridtokenx_cloud.errors import SigningKeyError
from gridtokenx_cloud.settings.private_file import PrivateFileError, read_private


def load_key(path: Path) -> LocalSigner:
    """Return the key of a file as the Solana command line writes it.

    Raises:
        SigningKeyError: Missing, readable by others, or no JSON array of 64 numbers.
    """
    # No name is bound to the text: an error's traceback would hold it.
    signer = _parsed(private_bytes(path))
    if signer is None:
        raise SigningKeyError(
            f"key file {path} is no Solana key: a JSON array of 64 numbers from 0 to 255 whose"
            " halves belong together; restore it from the backup"
        )
    return signer


def private_bytes(path: Path) -> bytes:
    """Return the bytes of a key file that nobody else can read.

    Raises:
        SigningKeyError: Not readable, or readable by others.
    """
    try:
        return read_private(path)
    except PrivateFileError as exc:
        raise SigningKeyError(f"key file {exc}") from None


def _parsed(content: bytes) -> LocalSigner | None:
    """Return the key; None for whatever is none, so that no error carries the text away."""
    try:
        numbers = json.loads(content)
        if not isinstance(numbers, list) or len(numbers) != 64:
            return None
        secret = bytes(numbers)
        pair = Keypair.from_seed(secret[:32])
    except (ValueError, TypeError):
        return None
    return LocalSigner(pair) if bytes(pair) == secret else None


def write_keypair(path: Path, pair: Keypair) -> None:
    """Write a new key file with mode 0600; an existing file is never overwritten.

    Raises:
        SigningKeyError: The file exists, or the folder can't be written.
    """
    write_signer(path, LocalSigner(pair))


def write_signer(path: Path, signer: LocalSigner) -> None:
    """Write a key as `write_keypair` does."""
    write_new(path, json.dumps(list(signer.expose())).encode())


def write_new(path: Path, content: bytes) -> None:
    """Write a file with mode 0600 that is there whole or not at all, and on disk on return.

    Raises:
        SigningKeyError: The file exists, or the folder can't be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        _write_through(draft, content)
        try:
            # Unlike a rename, a link never replaces a file: that may be the only copy of a key.
            path.hardlink_to(draft)
        finally:
            draft.unlink()
        _sync(path.parent)
    except OSError as exc:
        del content
        raise SigningKeyError(f"key file {path} can't be made: {exc.__class__.__name__}") from None


def _write_through(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
