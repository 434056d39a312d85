"""What long work tells meanwhile: one line that changes on a terminal, plain lines elsewhere."""

import shutil
import sys
from types import TracebackType
from typing import Self


class Progress:
    """Writes to stderr, so that what is printed at the end can be piped on.

    Elsewhere than on a terminal only every new stage is told, not every step of it.
    """

    def __init__(self) -> None:
        self._stream = sys.stderr
        self._terminal = self._stream.isatty()
        self._stage = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._terminal:
            self._write("\r\x1b[K")

    def tell(self, line: str) -> None:
        """Show what is done now, as `stage: step`."""
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            self._write(f"\r\x1b[K{line[:width]}")
            return
        stage = line.rpartition(":")[0]
        if stage != self._stage:
            self._stage = stage
            self._write(f"{line}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
