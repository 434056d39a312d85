"""How long to wait for a meter, learned from how it answered so far."""

from collections import deque
from typing import Final

SHORTEST_S: Final = 0.2
LONGEST_S: Final = 2.0
_UNKNOWN_S: Final = 0.5
_MARGIN: Final = 4
_REMEMBERED: Final = 16


class UnitTiming:
    """Latencies of one unit, without the time its answers spend on the wire.

    Attributes:
        usual_s: Four times the 95th percentile, between 0.2 and 2 s.
        timeout_s: How long to wait now: the usual time, doubled by every miss in a row.
    """

    # The doubling lets a meter that has become slow be heard again; without it the old figures
    # would condemn it. It ends where the quiet time that follows a miss (twice the usual time)
    # reaches to 2 s: an answer that comes in it is heard, too, and teaches how long to wait.
    # A dead meter costs its bus no more than that.

    def __init__(self) -> None:
        self._latencies_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._misses = 0
        self.usual_s = _UNKNOWN_S
        self.timeout_s = _UNKNOWN_S

    def answered(self, latency_s: float) -> None:
        """Note an answer that took *latency_s*."""
        self._latencies_s.append(max(latency_s, 0.0))
        self._misses = 0
        # Of 16 values the largest is the nearest-rank 95th percentile.
        self.usual_s = min(max(_MARGIN * max(self._latencies_s), SHORTEST_S), LONGEST_S)
        self.timeout_s = self.usual_s

    def missed(self) -> None:
        """Note that no true answer came."""
        self._misses += 1
        longest_s = max(self.usual_s, LONGEST_S - 2 * self.usual_s)
        self.timeout_s = min(self.usual_s * 2.0 ** min(self._misses, 8), longest_s)
