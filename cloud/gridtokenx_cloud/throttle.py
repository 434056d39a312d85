"""How much one gateway may send before others are served first; pure."""

from dataclasses import dataclass, field

_MINUTE_MS = 60_000
_MOST_NAMES = 10_000
"""Names remembered at most; a full table forgets who has a full bucket anyway."""


@dataclass(slots=True)
class TokenBuckets:
    """One bucket of lines per gateway; a full one is a week's backlog at once.

    Attributes:
        lines_per_s: What flows back.
        burst: What a bucket holds; a gateway that was not heard of has a full one.
    """

    lines_per_s: int
    burst: int
    _levels: dict[str, tuple[int, int]] = field(default_factory=dict)

    def take(self, gateway_id: str, lines: int, now_ms: int) -> int:
        """Take *lines* and return 0, or take none and return the wait in ms until they fit.

        More than a bucket holds passes when the bucket is full, and leaves a debt.
        """
        level = self._level(gateway_id, now_ms)
        wanted = min(lines, self.burst) * 1000
        if level < wanted:
            return -(-(wanted - level) // self.lines_per_s)
        self._levels[gateway_id] = (level - lines * 1000, now_ms)
        return 0

    def _level(self, gateway_id: str, now_ms: int) -> int:
        """Return the level in thousandths of a line."""
        full = self.burst * 1000
        if gateway_id not in self._levels and len(self._levels) >= _MOST_NAMES:
            self._forget_full(now_ms)
        level, since_ms = self._levels.get(gateway_id, (full, now_ms))
        return min(full, level + max(0, now_ms - since_ms) * self.lines_per_s)

    def _forget_full(self, now_ms: int) -> None:
        full = self.burst * 1000
        self._levels = {
            name: (level, since_ms)
            for name, (level, since_ms) in self._levels.items()
            if level + max(0, now_ms - since_ms) * self.lines_per_s < full
        }


@dataclass(slots=True)
class RejectionBudget:
    """How many refused lines of a gateway are kept one by one in a minute; more are counted."""

    per_minute: int = 600
    _minute: int = -1
    _seen: dict[str, int] = field(default_factory=dict)

    def allows(self, gateway_id: str, now_ms: int) -> bool:
        """Count one refused line; return whether it is to be kept."""
        minute = now_ms // _MINUTE_MS
        if minute != self._minute:
            self._minute, self._seen = minute, {}
        seen = self._seen[gateway_id] = self._seen.get(gateway_id, 0) + 1
        return seen <= self.per_minute
