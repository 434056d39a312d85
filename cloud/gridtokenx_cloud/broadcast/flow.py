"""How fast each connection is sent what waits for it: as its peer takes it and its role allows."""

from dataclasses import dataclass

from gridtokenx_cloud.broadcast.connections import Subscriber
from gridtokenx_cloud.event_protocol import event_frame


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastLimits:
    """How far one connection may lag, and how many there may be.

    Attributes:
        soft_bytes: From here on events queue up, and readings are conflated.
        hard_bytes: Live events waiting beyond this cut the connection.
        stalled_s: So does a peer that takes nothing for this long.
        history: Most live events that wait for one connection, and the longest gap that is
            replayed; a longer one says `recovered: false`.
        per_user: Open connections of one owner, of one staff token, or of one address.
        events_per_minute: Sent to who did not sign in; others get a multiple. What is above it
            waits; a replay does not, it is bounded by *history*.
    """

    soft_bytes: int = 65_536
    hard_bytes: int = 262_144
    stalled_s: float = 5.0
    history: int = 1_000
    per_user: int = 5
    events_per_minute: int = 60


class Flow:
    """Sends what waits, and remembers for whom something still does."""

    def __init__(self, limits: BroadcastLimits) -> None:
        self._limits = limits
        self._congested: set[Subscriber] = set()

    def forget(self, subscriber: Subscriber) -> None:
        """Wait for this connection no more; safe to repeat."""
        self._congested.discard(subscriber)

    def push(self, subscriber: Subscriber, now_s: float) -> None:
        """Send what waits while peer and allowance take it; note since when the peer does not."""
        sent = False
        while subscriber.waits() and not self.is_stuck(subscriber) and _may(subscriber, now_s):
            _send_next(subscriber)
            sent = True
        if sent:
            subscriber.heard_at_s = now_s
        if not subscriber.waits():
            self._congested.discard(subscriber)
            subscriber.stalled_since_s = None
            return
        self._congested.add(subscriber)
        if not self.is_stuck(subscriber):
            subscriber.stalled_since_s = None
        elif sent or subscriber.stalled_since_s is None:
            subscriber.stalled_since_s = now_s

    def go_on(self, now_s: float) -> list[Subscriber]:
        """Push all that had to wait; return those that are too far behind to be waited for."""
        congested = tuple(self._congested)
        for subscriber in congested:
            self.push(subscriber, now_s)
        return [one for one in congested if self._is_hopeless(one, now_s)]

    def is_stuck(self, subscriber: Subscriber) -> bool:
        """Return whether the peer takes no more now."""
        return subscriber.outlet.buffered_bytes() >= self._limits.soft_bytes

    def _is_hopeless(self, subscriber: Subscriber, now_s: float) -> bool:
        since_s, queue = subscriber.stalled_since_s, subscriber.queue
        stalled = since_s is not None and now_s - since_s > self._limits.stalled_s
        too_many = queue.live > self._limits.history
        return stalled or too_many or queue.live_bytes > self._limits.hard_bytes


def _may(subscriber: Subscriber, now_s: float) -> bool:
    return subscriber.queue.replays or subscriber.allowance.take(now_s)


def _send_next(subscriber: Subscriber) -> None:
    event = subscriber.queue.popleft()
    if event is None:
        meter_id = next(iter(subscriber.samples))
        subscriber.outlet.send(subscriber.samples.pop(meter_id))
        return
    cursor = next(c for c in subscriber.cursors.values() if c.label == event.stream)
    frame = event_frame(event.stream, event.offset, cursor.told, event.body)
    cursor.told = event.offset
    subscriber.outlet.send(frame)
