"""Clocks, randomness and the service manager; the only module that asks the machine for them."""

import asyncio
import ctypes
import os
import secrets
import socket
import sys
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

from gridtokenx_agent.clock import ClockTrust, KernelTime, rate, remember
from gridtokenx_agent.ports import Instant

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
        # Asked at every reading: the same structure each time, `modes` 0 = only read.
        self._adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
        self._timex = _Timex()
        self._timex_at = ctypes.byref(self._timex)
        self._trust = ClockTrust()

    def remember(self, stored: Iterable[Instant]) -> None:
        """Take into account what earlier runs wrote down, before anything is dated."""
        self._trust = remember(stored, self._boot_id)

    def now(self) -> Instant:
        """See `Clock.now`."""
        kernel = self._kernel_time()
        mono_ms = _boot_ms()
        wall_ms = time.time_ns() // 1_000_000
        self._trust, quality = rate(self._trust, kernel, mono_ms, wall_ms)
        return Instant(boot_id=self._boot_id, mono_ms=mono_ms, wall_ms=wall_ms, clock=quality)

    async def sleep_until(self, mono_ms: int) -> None:
        """See `Clock.sleep_until`; asyncio's own clock stands still while a machine sleeps."""
        while (left_ms := mono_ms - _boot_ms()) > 0:  # noqa: ASYNC110 - time is no event
            await asyncio.sleep(min(left_ms, _LONGEST_NAP_MS) / 1000)

    def error_ms(self) -> int:
        """See `TrueTime.error_ms`."""
        kernel = self._trust.kernel
        return 0 if kernel is None else -(-kernel.max_error_us // 1000)

    def _kernel_time(self) -> KernelTime:
        timex = self._timex
        answer = self._adjtimex(self._timex_at)
        # Not permitted, as in some containers: nobody knows, so nobody may rely on it.
        trusted = answer >= 0 and answer != _TIME_ERROR and not timex.status & _STA_UNSYNC
        return KernelTime(synchronised=trusted, max_error_us=max(0, timex.maxerror))


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


def restart_process() -> NoReturn:
    """Begin this program anew, in the same process, as it was started."""
    os.execv(sys.executable, [sys.executable, "-m", "gridtokenx_agent", *sys.argv[1:]])  # noqa: S606 - itself


def _boot_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def _read_boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip().replace("-", "")
    except OSError:
        # No /proc: this process counts as one boot, so nothing is compared across its end.
        return uuid.uuid4().hex
