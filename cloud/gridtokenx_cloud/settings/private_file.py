"""Files that hold a secret: refused when anybody else may read them."""

import os
from pathlib import Path

_SECRET_BYTES_MAX = 64 * 1024


class PrivateFileError(Exception):
    """The file can't be used; the text ends a sentence that begins with who names it."""


def exposure(mode: int, owner: int, *, read_only_mount: bool) -> str | None:
    """Return what is wrong with a secret's file; None = nobody else can read it.

    Group-readable is right in one case: root owns the file, nobody may write it, and it lies on a
    read-only mount. Kubernetes mounts a Secret so for the pod's own `fsGroup`, whatever
    `defaultMode` says, and systemd shows the access list of a credential as the group's bits.

    Args:
        mode: Permission bits.
        owner: User id.
        read_only_mount: Whether the file system is mounted read-only.
    """
    handed_over = owner == 0 and read_only_mount and not mode & ~0o440
    if mode & 0o077 and not handed_over:
        return f"has mode {mode:04o}, others may read it"
    return None


def read_private(path: Path) -> bytes:
    """Return the bytes of a file that nobody else can read.

    Raises:
        PrivateFileError: Not readable, readable by others, or too long.
    """
    try:
        # Looked at and read through one descriptor: nobody can exchange the file in between.
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            read_only = bool(os.fstatvfs(file.fileno()).f_flag & os.ST_RDONLY)
            fault = exposure(status.st_mode & 0o777, status.st_uid, read_only_mount=read_only)
            if fault:
                raise PrivateFileError(f"{path} {fault}; run: chmod 600 {path}")
            content = file.read(_SECRET_BYTES_MAX + 1)
    except OSError as exc:
        raise PrivateFileError(f"{path} cannot be read ({exc.strerror})") from exc
    if len(content) > _SECRET_BYTES_MAX:
        # Not shown by a traceback that renders locals: what is refused may still be a secret.
        del content
        raise PrivateFileError(f"{path} is no key or password but a large file")
    return content
