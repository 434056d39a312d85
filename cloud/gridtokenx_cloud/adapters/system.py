"""The machine's own clock."""

import ctypes
import resource
import time

_PR_SET_DUMPABLE = 4


def forbid_core_dumps() -> None:
    """Keep what this process has in memory from ever being written to a file, or read by another.

    No core file, also where a dump is piped to a program (which no size limit stops), and no
    debugger without privileges. What it starts begins anew.
    """
    # Under systemd it is so already, and the sandbox may forbid to change limits.
    if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_DUMPABLE")


class SystemClock:
    """`Clock` of the operating system."""

    def now_ms(self) -> int:
        """See `Clock.now_ms`."""
        return time.time_ns() // 1_000_000
