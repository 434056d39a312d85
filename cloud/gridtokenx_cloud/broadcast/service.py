"""The service itself: runs in one event loop and never waits."""

import secrets
from collections.abc import Iterable, Sequence

from gridtokenx_cloud.broadcast.connections import Connections, Cursor, Subscriber
from gridtokenx_cloud.broadcast.flow import BroadcastLimits, Flow
from gridtokenx_cloud.broadcast.sight import allowance, streams_of, wanted
from gridtokenx_cloud.event_protocol import (
    CloseCode,
    Connect,
    EventSubscription,
    ProtocolFault,
    ResumePoint,
    dump,
    sample_frame,
)
from gridtokenx_cloud.event_queue import QueuedEvent
from gridtokenx_cloud.events import (
    ADMIN_STREAM,
    MeterReadingReceived,
    rfc3339,
    to_json,
    user_stream,
)
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.ports.events import (
    ANONYMOUS,
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
        self._flow = Flow(self._limits)
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
            allowance=allowance(principal, self._limits.events_per_minute),
        )
        states = [self._resume(subscriber, allowed[point.stream], point) for point in points]
        self.connections.add(subscriber)
        outlet.send(self._welcome(subscriber, states))
        self._flow.push(subscriber, now_s)
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
            if wanted(subscriber.principal, subscriber.subscription, event):
                replayed = QueuedEvent(label, event.offset, event.body, replayed=True)
                subscriber.queue.append(replayed)

    def release(self, conn: str) -> None:
        """See `Audience.release`."""
        subscriber = self.connections.remove(conn)
        if subscriber is not None:
            self._flow.forget(subscriber)

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
        tail = self._store.read_after(self._position, _BATCH, self.connections.streams())
        for event in tail.events:
            for subscriber in self.connections.on(event.stream):
                self._deliver(subscriber, event, now_s)
        self._position = tail.last_number
        return tail.more

    def _deliver(self, subscriber: Subscriber, event: OutboxEvent, now_s: float) -> None:
        cursor = subscriber.cursors[event.stream]
        # Already in this connection's replay.
        if event.offset <= cursor.considered:
            return
        cursor.considered = event.offset
        if not wanted(subscriber.principal, subscriber.subscription, event):
            return
        conflate = event.meter_id if event.type == MeterReadingReceived.type else None
        subscriber.queue.append(QueuedEvent(cursor.label, event.offset, event.body, conflate))
        self._flow.push(subscriber, now_s)

    def drain(self, now_s: float) -> None:
        """See `Feed.drain`."""
        for subscriber in self._flow.go_on(now_s):
            if self._flow.is_stuck(subscriber):
                # It would not take a farewell either.
                self.release(subscriber.conn)
                subscriber.outlet.abort()
            else:
                self._end(subscriber, CloseCode.SLOW, "too many events wait; resume by offset")

    def publish_sample(self, user_id: str, event: MeterReadingReceived, now_s: float) -> None:
        """See `Feed.publish_sample`."""
        self._samples_seen += 1
        now_ms = self._clock.now_ms()
        body = to_json(event, f"sample-{event.meter_id}-{now_ms}-{self._samples_seen}", now_ms)
        self._last_samples[event.meter_id] = (user_id, event, body)
        self._send_to(user_stream(user_id), event, body, now_s)
        self._send_to(ADMIN_STREAM, event, body, now_s)

    def _send_to(self, stream: str, event: MeterReadingReceived, body: str, now_s: float) -> None:
        for subscriber in self.connections.on(stream):
            self._send_sample(subscriber, event, body, now_s)

    def _send_sample(
        self, subscriber: Subscriber, event: MeterReadingReceived, body: str, now_s: float
    ) -> None:
        principal = subscriber.principal
        if principal.user_id is None and not principal.sees_all:
            return
        if subscriber.subscription.matches(event):
            label = next(iter(subscriber.cursors.values())).label
            subscriber.samples[event.meter_id] = sample_frame(label, body)
            self._flow.push(subscriber, now_s)

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
        return frozenset(
            subscriber.principal.credential
            for subscriber in self.connections
            if subscriber.principal.role != ANONYMOUS
        )

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

    def listeners(self) -> list[dict[str, object]]:
        """See `Feed.listeners`."""
        return [
            {
                "conn": one.conn,
                "label": one.principal.label,
                "role": one.principal.role,
                "user_id": one.principal.user_id,
                "streams": [cursor.label for cursor in one.cursors.values()],
                "waiting": len(one.queue),
            }
            for one in self.connections
        ]

    def dismiss(self, conn: str) -> bool:
        """See `Feed.dismiss`."""
        subscriber = self.connections.get(conn)
        if subscriber is not None:
            self._end(subscriber, CloseCode.FORBIDDEN, "closed by an administrator")
        return subscriber is not None

    def end_credentials(self, credentials: frozenset[Credential]) -> None:
        """See `Feed.end_credentials`."""
        for subscriber in self.connections:
            if subscriber.principal.credential in credentials:
                self._end(subscriber, CloseCode.FORBIDDEN, "signed out")

    def _end(self, subscriber: Subscriber, code: CloseCode, reason: str) -> None:
        self.release(subscriber.conn)
        subscriber.outlet.close(code, reason)


def _heartbeat(subscriber: Subscriber, now_ms: int) -> str:
    """Say the time, and how far filtered streams were considered, so a resume starts there."""
    offsets = {}
    for cursor in subscriber.cursors.values():
        cursor.told = cursor.considered
        offsets[cursor.label] = cursor.told
    return dump({"op": "hb", "t": rfc3339(now_ms), "o": offsets})
