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


@dataclass(slots=True)
class Quota:
    """How often each name may ask: so many times at once, and as many in every minute.

    Attributes:
        per_minute: Of one name; a name that was not heard of has its whole allowance.
    """

    per_minute: int
    _whole_at: dict[str, int] = field(default_factory=dict)
    """Name -> when its allowance is whole again, in parts of a ms: `per_minute` make one."""

    def wait_ms(self, name: str, now_ms: int) -> int:
        """Return how long *name* has to wait; 0 = it may ask now."""
        return -(-max(0, self._used(name, now_ms) + _MINUTE_MS - self._full) // self.per_minute)

    def take(self, name: str, now_ms: int) -> int:
        """Count one request and return 0, or count nothing and return the wait in ms."""
        if wait_ms := self.wait_ms(name, now_ms):
            return wait_ms
        if name not in self._whole_at and len(self._whole_at) >= _MOST_NAMES:
            self._forget(now_ms)
        used = self._used(name, now_ms)
        self._whole_at[name] = now_ms * self.per_minute + used + _MINUTE_MS
        return 0

    @property
    def _full(self) -> int:
        return self.per_minute * _MINUTE_MS

    def _used(self, name: str, now_ms: int) -> int:
        left = self._whole_at.get(name, 0) - now_ms * self.per_minute
        # A clock that was set back must not lock anybody out.
        return min(max(0, left), self._full)

    def _forget(self, now_ms: int) -> None:
        """Drop who has a whole allowance, or everybody: a flood of names costs no memory."""
        now = now_ms * self.per_minute
        self._whole_at = {name: at for name, at in self._whole_at.items() if at > now}
        if len(self._whole_at) >= _MOST_NAMES:
            self._whole_at = {}
