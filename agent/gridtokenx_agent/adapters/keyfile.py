"""The gateway's Ed25519 key: 32 bytes of seed in a file nobody else can read."""

import os
import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from gridtokenx_agent.errors import KeyFileError
from gridtokenx_wire.base58 import encode_key

_SEED_BYTES = 32


class KeyFileSigner:
    """`RecordSigner` with the key in memory."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._gateway_id = encode_key(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

    @property
    def gateway_id(self) -> str:
        """See `RecordSigner.gateway_id`."""
        return self._gateway_id

    def sign(self, message: bytes) -> bytes:
        """See `RecordSigner.sign`."""
        return self._key.sign(message)


def load_key(path: Path) -> KeyFileSigner:
    """Read the key.

    Raises:
        KeyFileError: Missing, readable by others, or not 32 bytes.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            seed = file.read(_SEED_BYTES + 1)
    except FileNotFoundError as exc:
        raise KeyFileError(f"key file {path} is missing; create it with `gtx-agent init`") from exc
    except OSError as exc:
        raise KeyFileError(f"key file {path}: {exc.strerror}; check its owner and mode") from exc
    if mode & 0o077:
        raise KeyFileError(
            f"key file {path} has mode {mode:04o}, others can read it; run `chmod 600 {path}`"
        )
    if len(seed) != _SEED_BYTES:
        raise KeyFileError(
            f"key file {path} is no key: it must have exactly {_SEED_BYTES} bytes; restore it "
            "from your backup, or move it away and enrol a new one with `gtx-agent init`"
        )
    return KeyFileSigner(Ed25519PrivateKey.from_private_bytes(seed))


def create_key(path: Path) -> KeyFileSigner:
    """Create the key file, durably and in one step; an existing file is never touched.

    Raises:
        KeyFileError: There is a file already, or the folder cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    seed = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, seed)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        # A hard link, unlike a rename, never replaces a file that came in between.
        path.hardlink_to(draft)
        draft.unlink()
        _sync_folder(path.parent)
    except FileExistsError as exc:
        draft.unlink(missing_ok=True)
        raise KeyFileError(f"key file {path} exists already; keep it, or move it away") from exc
    except OSError as exc:
        draft.unlink(missing_ok=True)
        raise KeyFileError(f"key file {path} cannot be written: {exc.strerror}") from exc
    return KeyFileSigner(key)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
