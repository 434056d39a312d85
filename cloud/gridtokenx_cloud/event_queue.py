"""What waits for one slow connection: order kept, readings conflated, bytes counted."""

from collections import OrderedDict
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueuedEvent:
    """An event on its way to one connection.

    Attributes:
        stream: The stream's name as the client knows it, `me` or `admin`.
        offset: Its place in the stream.
        body: The CloudEvents object as JSON.
        conflate_key: Newer events with the same key replace this one; None = never.
        replayed: Part of a resume, so its bytes are bounded by the history and not by the cap.
    """

    stream: str
    offset: int
    body: str
    conflate_key: str | None = None
    replayed: bool = False


class EventQueue:
    """Events in order of arrival; of the readings of one meter only the newest stays."""

    def __init__(self) -> None:
        self.live_bytes = 0
        self._replayed = 0
        self._events: OrderedDict[tuple[str, str | int], QueuedEvent] = OrderedDict()

    def __len__(self) -> int:
        return len(self._events)

    @property
    def live(self) -> int:
        """How many wait that no resume asked for."""
        return len(self._events) - self._replayed

    @property
    def replays(self) -> bool:
        """Whether the next one is part of a resume."""
        return next(iter(self._events.values())).replayed if self._events else False

    def append(self, event: QueuedEvent) -> None:
        """Add *event*; an older one with its conflation key leaves the queue."""
        key: tuple[str, str | int] = (event.stream, event.offset)
        if event.conflate_key is not None and not event.replayed:
            key = (event.stream, event.conflate_key)
            self._count_off(self._events.pop(key, None))
        self._events[key] = event
        if event.replayed:
            self._replayed += 1
        else:
            self.live_bytes += len(event.body)

    def popleft(self) -> QueuedEvent | None:
        """Take the oldest event; None when the queue is empty."""
        if not self._events:
            return None
        _, event = self._events.popitem(last=False)
        self._count_off(event)
        return event

    def _count_off(self, event: QueuedEvent | None) -> None:
        if event is None:
            return
        if event.replayed:
            self._replayed -= 1
        else:
            self.live_bytes -= len(event.body)


@dataclass(slots=True)
class TokenBucket:
    """Allows *burst* at once and *rate_per_s* in the long run."""

    rate_per_s: float
    burst: float
    _level: float = -1.0
    _at_s: float = 0.0

    def take(self, now_s: float) -> bool:
        """Take one token; False when there is none."""
        if self._level < 0:
            self._level, self._at_s = self.burst, now_s
        self._level = min(self.burst, self._level + (now_s - self._at_s) * self.rate_per_s)
        self._at_s = now_s
        if self._level < 1:
            return False
        self._level -= 1
        return True
