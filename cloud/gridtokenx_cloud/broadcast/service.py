"""The service itself: runs in one event loop and never waits."""

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gridtokenx_cloud.broadcast.connections import Connections, Cursor, Subscriber
from gridtokenx_cloud.event_protocol import (
    EVERYTHING,
    CloseCode,
    Connect,
    EventSubscription,
    ProtocolFault,
    ResumePoint,
    dump,
    event_frame,
    sample_frame,
)
from gridtokenx_cloud.event_queue import QueuedEvent
from gridtokenx_cloud.events import (
    ADMIN_STREAM,
    MeterReadingReceived,
    from_json,
    rfc3339,
    to_json,
    user_stream,
)
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.ports.events import (
    Credential,
    EventStore,
    OutboxEvent,
    Outlet,
    Principal,
)

_BATCH = 500
_EXPIRY_NOTICE_MS = 60_000
_HEARTBEAT_S = 25.0
_HEARTBEAT_SPREAD_S = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastLimits:
    """How far one connection may lag, and how many there may be.

    Attributes:
        soft_bytes: From here on events queue up, and readings are conflated.
        hard_bytes: Live events waiting beyond this cut the connection.
        stalled_s: So does a peer that takes nothing for this long.
        history: Longest gap that is replayed; a longer one says `recovered: false`.
        per_user: Open connections of one owner, or of one staff token.
    """

    soft_bytes: int = 65_536
    hard_bytes: int = 262_144
    stalled_s: float = 5.0
    history: int = 1_000
    per_user: int = 5


def streams_of(principal: Principal) -> dict[str, str]:
    """Return label -> stream for all a principal may follow; the client never names a user."""
    if principal.user_id is not None:
        return {"me": user_stream(principal.user_id)}
    return {"admin": ADMIN_STREAM}


class Broadcast:
    """Tails the outbox and hands each event to the connections of its stream."""

    def __init__(
        self, store: EventStore, clock: Clock, limits: BroadcastLimits | None = None
    ) -> None:
        self.connections = Connections()
        self._store = store
        self._clock = clock
        self._limits = limits or BroadcastLimits()
        self._position: int | None = None
        self._congested: set[Subscriber] = set()
        self._last_samples: dict[str, tuple[str, MeterReadingReceived, str]] = {}
        self._samples_seen = 0

    def prepare(self, principal: Principal) -> None:
        """See `Audience.prepare`."""
        for stream in streams_of(principal).values():
            self._store.ensure_stream(stream)

    def admit(self, principal: Principal, outlet: Outlet, request: Connect, now_s: float) -> str:
        """See `Audience.admit`; replay and registration are one step: nothing falls between."""
        if self.connections.count(principal.key) >= self._limits.per_user:
            detail = f"{self._limits.per_user} connections are open already; close one first"
            raise ProtocolFault(CloseCode.TOO_MANY_CONNECTIONS, "too_many_connections", detail)
        allowed = streams_of(principal)
        points = request.streams or tuple(ResumePoint(stream=label) for label in allowed)
        if foreign := {point.stream for point in points} - set(allowed):
            detail = f"this ticket does not allow the stream {min(foreign)}"
            raise ProtocolFault(CloseCode.FORBIDDEN, "forbidden", detail)
        subscriber = Subscriber(
            conn=secrets.token_hex(8),
            principal=principal,
            outlet=outlet,
            subscription=request.subscription,
            heard_at_s=now_s,
        )
        states = [self._resume(subscriber, allowed[point.stream], point) for point in points]
        self.connections.add(subscriber)
        outlet.send(self._welcome(subscriber, states))
        self._flush(subscriber, now_s)
        for user_id, event, body in self._last_samples.values():
            if principal.user_id in (None, user_id):
                self._send_sample(subscriber, event, body, now_s)
        return subscriber.conn

    def _welcome(self, subscriber: Subscriber, states: Sequence[dict[str, object]]) -> str:
        expires_at_ms = subscriber.principal.expires_at_ms
        return dump(
            {
                "op": "welcome",
                "conn": subscriber.conn,
                "server_time": rfc3339(self._clock.now_ms()),
                "expires": None if expires_at_ms is None else rfc3339(expires_at_ms),
                "streams": states,
            }
        )

    def _resume(self, subscriber: Subscriber, stream: str, point: ResumePoint) -> dict[str, object]:
        """Queue what *point* missed, whole or not at all; return the stream's welcome entry."""
        head = self._store.head(stream)
        state: dict[str, object] = {"s": point.stream, "epoch": head.epoch, "o": head.last_offset}
        cursor = Cursor(point.stream, considered=head.last_offset, told=head.last_offset)
        subscriber.cursors[stream] = cursor
        if point.offset is None:
            return state
        missed = head.last_offset - point.offset
        recovered = point.epoch == head.epoch and 0 <= missed <= self._limits.history
        if recovered and missed:
            kept = self._store.history(stream, point.offset, head.last_offset)
            recovered = len(kept) == missed
            if recovered:
                cursor.told = point.offset
                self._queue_replay(subscriber, kept, point.stream)
        return {**state, "recovered": recovered}

    @staticmethod
    def _queue_replay(subscriber: Subscriber, kept: Iterable[OutboxEvent], label: str) -> None:
        for event in kept:
            if _wanted(subscriber.subscription, event):
                replayed = QueuedEvent(label, event.offset, event.body, replayed=True)
                subscriber.queue.append(replayed)

    def release(self, conn: str) -> None:
        """See `Audience.release`."""
        subscriber = self.connections.remove(conn)
        if subscriber is not None:
            self._congested.discard(subscriber)

    def set_filter(self, conn: str, subscription: EventSubscription) -> None:
        """See `Audience.set_filter`."""
        if (subscriber := self.connections.get(conn)) is not None:
            subscriber.subscription = subscription

    def refresh(self, conn: str, principal: Principal) -> None:
        """See `Audience.refresh`."""
        subscriber = self.connections.get(conn)
        if subscriber is None:
            return
        before = subscriber.principal
        if (principal.key, principal.role) != (before.key, before.role):
            detail = "the new ticket belongs to somebody else"
            raise ProtocolFault(CloseCode.FORBIDDEN, "forbidden", detail)
        subscriber.principal = principal
        subscriber.expiry_told = False

    def pump(self, now_s: float) -> bool:
        """See `Feed.pump`."""
        if self._position is None:
            self._position = self._store.last_number()
        events = self._store.read_after(self._position, _BATCH)
        for event in events:
            for subscriber in self.connections.on(event.stream):
                self._deliver(subscriber, event, now_s)
        if events:
            self._position = events[-1].event_number
        return len(events) == _BATCH

    def _deliver(self, subscriber: Subscriber, event: OutboxEvent, now_s: float) -> None:
        cursor = subscriber.cursors[event.stream]
        # Already in this connection's replay.
        if event.offset <= cursor.considered:
            return
        cursor.considered = event.offset
        if not _wanted(subscriber.subscription, event):
            return
        conflate = event.meter_id if event.type == MeterReadingReceived.type else None
        subscriber.queue.append(QueuedEvent(cursor.label, event.offset, event.body, conflate))
        self._flush(subscriber, now_s)

    def _flush(self, subscriber: Subscriber, now_s: float) -> None:
        """Send what waits while the peer takes it; note since when it takes nothing."""
        outlet, waiting = subscriber.outlet, subscriber.waits()
        sent = False
        while waiting and outlet.buffered_bytes() < self._limits.soft_bytes:
            self._send_next(subscriber)
            sent, waiting = True, subscriber.waits()
        if sent:
            subscriber.heard_at_s = now_s
        if not waiting:
            self._congested.discard(subscriber)
            subscriber.stalled_since_s = None
            return
        self._congested.add(subscriber)
        if sent or subscriber.stalled_since_s is None:
            subscriber.stalled_since_s = now_s

    @staticmethod
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

    def drain(self, now_s: float) -> None:
        """See `Feed.drain`."""
        for subscriber in tuple(self._congested):
            self._flush(subscriber, now_s)
            since = subscriber.stalled_since_s
            stalled = since is not None and now_s - since > self._limits.stalled_s
            if stalled or subscriber.queue.live_bytes > self._limits.hard_bytes:
                self.release(subscriber.conn)
                subscriber.outlet.abort()

    def publish_sample(self, user_id: str, event: MeterReadingReceived, now_s: float) -> None:
        """See `Feed.publish_sample`."""
        self._samples_seen += 1
        now_ms = self._clock.now_ms()
        body = to_json(event, f"sample-{event.meter_id}-{now_ms}-{self._samples_seen}", now_ms)
        self._last_samples[event.meter_id] = (user_id, event, body)
        for stream in (user_stream(user_id), ADMIN_STREAM):
            for subscriber in self.connections.on(stream):
                self._send_sample(subscriber, event, body, now_s)

    def _send_sample(
        self, subscriber: Subscriber, event: MeterReadingReceived, body: str, now_s: float
    ) -> None:
        if subscriber.subscription.matches(event):
            label = next(iter(subscriber.cursors.values())).label
            subscriber.samples[event.meter_id] = sample_frame(label, body)
            self._flush(subscriber, now_s)

    def tick(self, now_s: float) -> frozenset[Credential]:
        """See `Feed.tick`."""
        now_ms = self._clock.now_ms()
        for subscriber in self.connections:
            self._check_expiry(subscriber, now_ms)
            spread = hash(subscriber.conn) % (2 * _HEARTBEAT_SPREAD_S) - _HEARTBEAT_SPREAD_S
            quiet_s = now_s - subscriber.heard_at_s
            if quiet_s >= _HEARTBEAT_S + spread and not subscriber.queue:
                subscriber.heard_at_s = now_s
                subscriber.outlet.send(_heartbeat(subscriber, now_ms))
        return frozenset(subscriber.principal.credential for subscriber in self.connections)

    def _check_expiry(self, subscriber: Subscriber, now_ms: int) -> None:
        expires_at_ms = subscriber.principal.expires_at_ms
        if expires_at_ms is None:
            return
        left_ms = expires_at_ms - now_ms
        if left_ms <= 0:
            self._end(subscriber, CloseCode.SESSION_EXPIRED, "session expired; get a new ticket")
        elif left_ms <= _EXPIRY_NOTICE_MS and not subscriber.expiry_told:
            subscriber.expiry_told = True
            subscriber.outlet.send(dump({"op": "expiring", "in": left_ms // 1000}))

    def end_credentials(self, credentials: frozenset[Credential]) -> None:
        """See `Feed.end_credentials`."""
        for subscriber in self.connections:
            if subscriber.principal.credential in credentials:
                self._end(subscriber, CloseCode.FORBIDDEN, "signed out")

    def _end(self, subscriber: Subscriber, code: CloseCode, reason: str) -> None:
        self.release(subscriber.conn)
        subscriber.outlet.close(code, reason)


def _wanted(subscription: EventSubscription, event: OutboxEvent) -> bool:
    # Decoding costs more than sending; without a filter there is nothing to decode for.
    return subscription is EVERYTHING or subscription.matches(from_json(event.body))


def _heartbeat(subscriber: Subscriber, now_ms: int) -> str:
    """Say the time, and how far filtered streams were considered, so a resume starts there."""
    offsets = {}
    for cursor in subscriber.cursors.values():
        cursor.told = cursor.considered
        offsets[cursor.label] = cursor.told
    return dump({"op": "hb", "t": rfc3339(now_ms), "o": offsets})
