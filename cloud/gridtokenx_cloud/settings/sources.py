"""Where a setting's text comes from: the environment, an `.env` file, or a file it names."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values

from gridtokenx_cloud.settings.private_file import PrivateFileError, read_private

_SECRET_BYTES_MAX = 64 * 1024


class SourceError(Exception):
    """A referenced file cannot be used; the text ends a sentence that begins with the name."""


@dataclass(frozen=True, slots=True)
class Given:
    """One variable as it was set.

    Attributes:
        text: As written, `file:` and `credential:` not yet followed.
        source: `environment`, or the path of the `.env` file.
    """

    text: str
    source: str

    @property
    def is_reference(self) -> bool:
        """Whether the value stands in a file."""
        return self.text.startswith(("file:", "credential:"))


def gather(
    environ: Mapping[str, str], env_file: Path | None, prefixes: tuple[str, ...]
) -> dict[str, Given]:
    """Return what is set under *prefixes*; the environment stands above the file."""
    given: dict[str, Given] = {}
    if env_file is not None:
        # Interpolation is off: a password may contain `${`.
        for name, text in dotenv_values(env_file, interpolate=False).items():
            given[name] = Given(text or "", str(env_file))
    for name, text in environ.items():
        given[name] = Given(text, "environment")
    return {name: value for name, value in given.items() if name.startswith(prefixes)}


def referenced_path(given: Given, environ: Mapping[str, str]) -> Path:
    """Return the file a `file:` or `credential:` value names.

    Raises:
        SourceError: No name, or a credential outside of a systemd service.
    """
    kind, _, name = given.text.partition(":")
    if not name:
        raise SourceError(f"names nothing; write {kind}:{'PATH' if kind == 'file' else 'NAME'}")
    if kind == "file":
        return Path(name)
    folder = environ.get("CREDENTIALS_DIRECTORY")
    if folder is None:
        raise SourceError(
            f"refers to the credential {name!r}, which only systemd hands over; "
            "add LoadCredential= to the unit or use file:PATH"
        )
    return Path(folder, name)


def read_text(path: Path, secret: bool) -> str:
    """Return the text of *path* without the last line's end.

    Raises:
        SourceError: Not readable, too long, no text, or a secret that others may read.
    """
    try:
        if secret:
            return _line(read_private(path))
        with path.open("rb") as file:
            content = file.read(_SECRET_BYTES_MAX + 1)
        if len(content) > _SECRET_BYTES_MAX:
            raise SourceError(f"names {path}, which is no setting but a large file")
        return _line(content)
    except PrivateFileError as exc:
        raise SourceError(f"names a file that cannot be used: {exc}") from None
    except OSError as exc:
        raise SourceError(f"names {path}, which cannot be read ({exc.strerror})") from exc
    except UnicodeDecodeError:
        # Without its cause, which carries the bytes that may be the secret.
        raise SourceError(f"names {path}, which holds no text") from None


def _line(content: bytes) -> str:
    return content.decode().removesuffix("\n").removesuffix("\r")
