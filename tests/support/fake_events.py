"""Fakes of what the fan-out needs: an outbox in memory, and a connection that keeps its frames."""

import json
from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

from gridtokenx_cloud.events import MarketEvent, to_json
from gridtokenx_cloud.ports.events import OutboxEvent, StreamHead, Tail


class FakeEventStore:
    """`EventStore` in memory."""

    def __init__(self) -> None:
        self.events: list[OutboxEvent] = []
        self.heads: dict[str, StreamHead] = {}

    def append(self, stream: str, event: MarketEvent) -> None:
        """Commit one event."""
        self.ensure_stream(stream)
        head = self.heads[stream]
        offset = head.last_offset + 1
        self.heads[stream] = StreamHead(head.epoch, offset)
        self.events.append(
            OutboxEvent(
                event_number=self.last_number() + 1,
                stream=stream,
                offset=offset,
                type=event.type,
                meter_id=getattr(event, "meter_id", None),
                body=to_json(event, f"{head.epoch}-{stream}-{offset}", 0),
            )
        )

    def forget_before(self, event_number: int) -> None:
        """Drop old events, as retention does."""
        self.events = [event for event in self.events if event.event_number >= event_number]

    def last_number(self) -> int:
        return self.events[-1].event_number if self.events else 0

    def read_after(
        self, event_number: int, limit: int, streams: Container[str] | None = None
    ) -> Tail:
        found = [event for event in self.events if event.event_number > event_number][:limit]
        return Tail(
            events=[event for event in found if streams is None or event.stream in streams],
            last_number=found[-1].event_number if found else event_number,
            more=len(found) >= limit,
        )

    def ensure_stream(self, stream: str) -> None:
        self.heads.setdefault(stream, StreamHead(f"epoch-of-{stream}", 0))

    def head(self, stream: str) -> StreamHead:
        return self.heads[stream]

    def history(self, stream: str, after: int, through: int) -> list[OutboxEvent]:
        return [e for e in self.events if e.stream == stream and after < e.offset <= through]


@dataclass
class FakeOutlet:
    """`Outlet` whose peer reads everything, or nothing while `stuck`."""

    stuck: bool = False
    frames: list[dict[str, Any]] = field(default_factory=list)
    buffered: int = 0
    closed: int | None = None
    aborted: bool = False

    def send(self, text: str) -> None:
        self.frames.append(json.loads(text))
        if self.stuck:
            self.buffered += len(text)

    def buffered_bytes(self) -> int:
        return self.buffered

    def close(self, code: int, reason: str) -> None:
        self.closed = code

    def abort(self) -> None:
        self.aborted = True

    def offsets(self) -> list[int]:
        """Return the offsets of the events that came."""
        return [frame["o"] for frame in self.frames if frame["op"] == "ev" and "o" in frame]

    def chain_holds(self, start: int) -> bool:
        """Return whether each event's previous offset is the one the client had."""
        for frame in self.frames:
            if frame["op"] == "ev" and "o" in frame:
                if frame["p"] != start:
                    return False
                start = frame["o"]
        return True
