"""Who is connected, and how far each connection has been told."""

from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from gridtokenx_cloud.event_protocol import EventSubscription
from gridtokenx_cloud.event_queue import EventQueue, TokenBucket
from gridtokenx_cloud.ports.events import Outlet, Principal


@dataclass(slots=True)
class Cursor:
    """One stream of one connection: how far it was considered, and what the client was told."""

    label: str
    considered: int
    told: int


@dataclass(slots=True, eq=False)
class Subscriber:
    """One connection that has said who it is.

    Attributes:
        heard_at_s: When a frame was last sent to it, monotonic.
        stalled_since_s: Since when the peer takes nothing while events wait; None = it flows.
        allowance: How many events it may still get at once, and how fast more.
        samples: Newest live value per meter that waits for the queue to empty.
    """

    conn: str
    principal: Principal
    outlet: Outlet
    subscription: EventSubscription
    heard_at_s: float
    allowance: TokenBucket
    cursors: dict[str, Cursor] = field(default_factory=dict)
    queue: EventQueue = field(default_factory=EventQueue)
    samples: dict[str, str] = field(default_factory=dict)
    stalled_since_s: float | None = None
    expiry_told: bool = False

    def waits(self) -> bool:
        """Return whether anything is still to be sent."""
        return bool(self.queue) or bool(self.samples)


class Connections:
    """All connections: by id, by principal for the limit, by stream for the fan-out."""

    def __init__(self) -> None:
        self._by_id: dict[str, Subscriber] = {}
        self._by_key: dict[str, set[Subscriber]] = {}
        self._by_stream: dict[str, set[Subscriber]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Subscriber]:
        # A copy: closing one on the way must not disturb the walk.
        return iter(tuple(self._by_id.values()))

    def get(self, conn: str) -> Subscriber | None:
        """Return the connection of this id, None when it has ended."""
        return self._by_id.get(conn)

    def count(self, key: str) -> int:
        """Return how many connections one principal has."""
        return len(self._by_key.get(key, ()))

    def on(self, stream: str) -> tuple[Subscriber, ...]:
        """Return the connections that follow *stream*."""
        return tuple(self._by_stream.get(stream, ()))

    def streams(self) -> Container[str]:
        """Return the streams that anybody follows."""
        return self._by_stream.keys()

    def add(self, subscriber: Subscriber) -> None:
        """Enter a connection under its id, key and streams."""
        self._by_id[subscriber.conn] = subscriber
        self._by_key.setdefault(subscriber.principal.key, set()).add(subscriber)
        for stream in subscriber.cursors:
            self._by_stream.setdefault(stream, set()).add(subscriber)

    def remove(self, conn: str) -> Subscriber | None:
        """Forget a connection and return it; leaves no empty sets behind, safe to repeat."""
        subscriber = self._by_id.pop(conn, None)
        if subscriber is not None:
            _discard(self._by_key, subscriber.principal.key, subscriber)
            for stream in subscriber.cursors:
                _discard(self._by_stream, stream, subscriber)
        return subscriber


def _discard(index: dict[str, set[Subscriber]], name: str, subscriber: Subscriber) -> None:
    group = index[name]
    group.discard(subscriber)
    if not group:
        del index[name]
