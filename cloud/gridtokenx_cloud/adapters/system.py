"""The machine's own clock."""

import time


class SystemClock:
    """`Clock` of the operating system."""

    def now_ms(self) -> int:
        """See `Clock.now_ms`."""
        return time.time_ns() // 1_000_000
