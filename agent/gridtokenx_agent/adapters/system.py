"""Clocks, randomness and the service manager; the only module that asks the machine for them."""

import asyncio
import ctypes
import secrets
import socket
import time
import uuid
from pathlib import Path

from gridtokenx_agent.ports import Instant
from gridtokenx_wire.record import ClockQuality

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_STA_UNSYNC = 0x0040
_TIME_ERROR = 5
_LONGEST_NAP_MS = 60_000


class _Timex(ctypes.Structure):
    """`struct timex` of adjtimex(2)."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time", ctypes.c_long * 2),
        ("tick", ctypes.c_long),
        ("rest", ctypes.c_long * 32),
    )


class SystemClock:
    """`Clock` and `TrueTime` of this machine."""

    def __init__(self) -> None:
        self._boot_id = _read_boot_id()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._seen_synchronised = False
        self._error_ms = 0

    def now(self) -> Instant:
        """See `Clock.now`."""
        quality = self._quality()
        return Instant(
            boot_id=self._boot_id,
            mono_ms=_boot_ms(),
            wall_ms=time.time_ns() // 1_000_000,
            clock=quality,
        )

    async def sleep_until(self, mono_ms: int) -> None:
        """See `Clock.sleep_until`; asyncio's own clock stands still while a machine sleeps."""
        while (left_ms := mono_ms - _boot_ms()) > 0:  # noqa: ASYNC110 - time is no event
            await asyncio.sleep(min(left_ms, _LONGEST_NAP_MS) / 1000)

    def error_ms(self) -> int:
        """See `TrueTime.error_ms`."""
        return self._error_ms

    def _quality(self) -> ClockQuality:
        timex = _Timex()
        answer = self._libc.adjtimex(ctypes.byref(timex))
        # Not permitted, as in some containers: nobody knows, so nobody may rely on it.
        trusted = answer >= 0 and answer != _TIME_ERROR and not timex.status & _STA_UNSYNC
        if trusted:
            self._seen_synchronised = True
            self._error_ms = -(-timex.maxerror // 1000)
            return ClockQuality.SYNCHRONISED
        return ClockQuality.HOLDOVER if self._seen_synchronised else ClockQuality.UNSYNCHRONISED


def new_epoch() -> str:
    """Draw an epoch: 16 hex digits nobody has used before."""
    return secrets.token_hex(8)


def jitter(longest_s: float) -> float:
    """Draw a wait between 0 and *longest_s*: gateways must not come back all at once."""
    return secrets.randbelow(1_000_000) / 1_000_000 * longest_s


def notify(address: str | None, message: str) -> None:
    """Tell systemd; *address* is its NOTIFY_SOCKET, None when nobody listens."""
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(message.encode(), name)


def _boot_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def _read_boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip().replace("-", "")
    except OSError:
        # No /proc: this process counts as one boot, so nothing is compared across its end.
        return uuid.uuid4().hex
