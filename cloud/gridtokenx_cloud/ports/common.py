"""Ports that every service shares."""

from typing import Protocol


class Clock(Protocol):
    """The wall clock of the machine."""

    def now_ms(self) -> int:
        """Return Unix time in milliseconds, UTC."""
        ...
