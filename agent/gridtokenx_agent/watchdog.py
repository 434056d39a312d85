"""Tells the service manager that the agent lives, while every part of it makes progress."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from gridtokenx_agent.health import stuck
from gridtokenx_agent.ports import Clock

FEED_MS = 10_000
STUCK_AFTER_MS = 180_000
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Heart:
    """When each part last made progress; one that never did counts from its first mention."""

    beats: dict[str, int] = field(default_factory=dict)

    def beat(self, name: str, now_ms: int) -> None:
        """Note progress of one part."""
        self.beats[name] = now_ms

    def late(self, names: tuple[str, ...], now_ms: int) -> tuple[str, ...]:
        """Return those of *names* that stand still."""
        for name in names:
            self.beats.setdefault(name, now_ms)
        return stuck(self.beats, dict.fromkeys(names, STUCK_AFTER_MS), now_ms)


class Watchdog:
    """Feeds systemd's watchdog."""

    def __init__(
        self,
        heart: Heart,
        names: Callable[[], tuple[str, ...]],
        clock: Clock,
        tell: Callable[[str], None],
    ) -> None:
        self._heart = heart
        self._names = names
        self._clock = clock
        self._tell = tell
        self._told: tuple[str, ...] = ()

    def late(self) -> tuple[str, ...]:
        """Return the parts that stand still now."""
        return self._heart.late(self._names(), self._clock.now().mono_ms)

    async def run(self) -> None:
        """Feed it until cancelled."""
        self._tell("READY=1")
        while True:
            self.feed()
            await self._clock.sleep_until(self._clock.now().mono_ms + FEED_MS)

    def feed(self) -> None:
        """Feed it once, or log what stands still."""
        late = self.late()
        if not late:
            self._tell("WATCHDOG=1")
        elif late != self._told:
            _log.error("stands still; the watchdog is not fed", extra={"parts": ",".join(late)})
        self._told = late
