"""`BrokerLink` without a broker: the test says what it answers."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from gridtokenx_agent.errors import AgentError, BrokerDownError
from gridtokenx_agent.ports import Acked, Arrived, LinkEvent, Lost, Will
from gridtokenx_wire.encoding import split_lines


@dataclass
class FakeSession:
    link: "FakeLink"
    window: int = 20
    max_bytes: int = 65_536
    published: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    happened: list[LinkEvent] = field(default_factory=list)
    alive: bool = True

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        if not self.alive:
            raise BrokerDownError("the fake broker is gone")
        message_id = len(self.published) + 1
        self.published[message_id] = (topic, payload)
        if self.link.answers:
            self.happened.append(Acked(message_id, self.link.refusal))
            self.link.wake.set()
        return message_id

    def events(self) -> list[LinkEvent]:
        happened, self.happened = self.happened, []
        return happened

    async def close(self) -> None:
        self.alive = False

    @property
    def readings(self) -> list[list[bytes]]:
        return [
            split_lines(payload)
            for topic, payload in self.published.values()
            if topic.endswith("/readings")
        ]


@dataclass
class FakeLink:
    """Attributes: *refusal* is the broker's answer to messages, *trouble* that to connecting."""

    wake: asyncio.Event
    name: str = "mqtt://fake as somebody"
    answers: bool = True
    refusal: str | None = None
    trouble: AgentError | None = None
    max_bytes: int = 65_536
    attempts: int = 0
    sessions: list[FakeSession] = field(default_factory=list)
    wills: list[Will] = field(default_factory=list)

    async def connect(self, subscriptions: Sequence[str], will: Will) -> FakeSession:
        self.attempts += 1
        if self.trouble is not None:
            raise self.trouble
        self.wills.append(will)
        self.sessions.append(FakeSession(self, max_bytes=self.max_bytes))
        return self.sessions[-1]

    @property
    def session(self) -> FakeSession:
        return self.sessions[-1]

    def deliver(self, topic: str, payload: bytes) -> None:
        self.session.happened.append(Arrived(topic, payload))
        self.wake.set()

    def cut(self) -> None:
        self.session.alive = False
        self.session.happened.append(Lost("cut by the test"))
        self.wake.set()
