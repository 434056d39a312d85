"""What the services need from the outside world; each port has one fake and one contract test."""

from dataclasses import dataclass
from typing import Literal, Protocol

from gridtokenx_wire.record import ClockQuality

ReadFunction = Literal[3, 4]
"""Modbus function code: 3 holding registers, 4 input registers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instant:
    """One moment on both clocks; see `gridtokenx_wire.record.Stamp` for the fields."""

    boot_id: str
    mono_ms: int
    wall_ms: int
    clock: ClockQuality


@dataclass(frozen=True, slots=True, kw_only=True)
class WordsRead:
    """The answer of a meter: 16-bit words in bus order, stamped when the last byte came in."""

    words: tuple[int, ...]
    at: Instant


class Clock(Protocol):
    """Boot-time and wall clock of the machine."""

    def now(self) -> Instant:
        """Return this moment."""
        ...

    async def sleep_until(self, mono_ms: int) -> None:
        """Return once the boot-time clock has reached *mono_ms*."""
        ...


class MeterBus(Protocol):
    """One serial port or TCP endpoint; one transaction at a time, retries are the caller's."""

    async def read_words(
        self, device_id: int, function: ReadFunction, address: int, count: int, min_gap_ms: int
    ) -> WordsRead:
        """Read *count* registers from 0-based *address*, *min_gap_ms* after the last byte.

        Raises:
            MeterTimeoutError: No true answer in time; the bus was kept quiet afterwards.
            MeterRefusedError: Exception 1, 2 or 3.
            MeterBusyError: Exception 4, 6, 0x0A or 0x0B.
            BusDownError: The port or endpoint is not there.
        """
        ...

    async def close(self) -> None:
        """Give the port back."""
        ...


class RecordSigner(Protocol):
    """Holds the gateway's Ed25519 key."""

    @property
    def gateway_id(self) -> str:
        """Public key in base58."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of *message*."""
        ...
