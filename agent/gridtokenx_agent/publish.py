"""Sends what waits in the buffer, and forgets it only when the cloud has signed for it."""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from gridtokenx_agent.errors import BrokerDownError, BrokerRefusedError, BufferFullError
from gridtokenx_agent.ports import (
    Acked,
    Arrived,
    BrokerLink,
    BrokerSession,
    Clock,
    LinkEvent,
    Lost,
    Outbox,
    RecordSigner,
    Will,
)
from gridtokenx_wire.encoding import join_lines
from gridtokenx_wire.errors import WireError
from gridtokenx_wire.receipt import decode_receipt
from gridtokenx_wire.signing import verify_ed25519
from gridtokenx_wire.state import GatewayState, encode_state
from gridtokenx_wire.topics import Channel, topic

LINES_PER_MESSAGE = 50
ACK_TIMEOUT_MS = 60_000
LONGEST_PAUSE_S = 120
PROVEN_MS = 30_000
_IDLE_S = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublisherParts:
    """What a publisher works with.

    Attributes:
        cloud_key: Ed25519 key that signs receipts.
        jitter: Draws a wait between 0 and its argument, in seconds.
        software: Name and version, for the birth certificate.
        beat: Told about progress.
        wake: Set when rows were committed or the session has news.
    """

    link: BrokerLink
    outbox: Outbox
    signer: RecordSigner
    cloud_key: bytes
    clock: Clock
    jitter: Callable[[float], float]
    software: str
    beat: Callable[[str, int], None]
    wake: asyncio.Event


def pause_s(attempts: int) -> int:
    """Return the longest wait before the next connection: 1, 2, 4 ... 120 s."""
    return min(1 << min(max(attempts - 1, 0), 10), LONGEST_PAUSE_S)


class Publisher:
    """One task: connect, send, take receipts, connect again."""

    def __init__(self, parts: PublisherParts) -> None:
        self._parts = parts
        self._gateway_id = parts.signer.gateway_id
        self._readings = topic(self._gateway_id, Channel.READINGS)
        self._receipts = topic(self._gateway_id, Channel.RECEIPTS)
        self._state = topic(self._gateway_id, Channel.STATE)
        self._born_ms = parts.clock.now().wall_ms
        self._wake = parts.wake
        self._in_flight: dict[int, _Message] = {}
        self._taken: set[int] = set()
        self._refused: set[int] = set()
        self._troubles: set[str] = set()
        self._attempts = 0
        self._connected_ms = 0
        self._told: set[str] = set()

    async def run(self) -> None:
        """Keep a session until cancelled; never gives up."""
        while True:
            self._attempts += 1
            self._parts.beat("uplink", self._parts.clock.now().mono_ms)
            try:
                session = await self._connect()
                await self._serve(session)
            except (BrokerDownError, BrokerRefusedError) as exc:
                self._tell_trouble(str(exc))
            await asyncio.sleep(self._parts.jitter(pause_s(self._attempts)))

    async def _connect(self) -> BrokerSession:
        will = Will(topic=self._state, payload=self._certificate("offline"))
        return await self._parts.link.connect((self._receipts,), will)

    async def _serve(self, session: BrokerSession) -> None:
        try:
            self._connected_ms = self._parts.clock.now().mono_ms
            birth = session.publish(self._state, self._certificate("online"), retain=True)
            self._in_flight[birth] = _Message((), self._connected_ms)
            await self._start_over()
            while True:
                await self._turn(session)
        finally:
            self._in_flight.clear()
            self._taken.clear()
            self._refused.clear()
            await session.close()

    async def _start_over(self) -> None:
        """Send everything unreceipted again: what the last connection carried may be lost."""
        try:
            await self._parts.outbox.resend_all()
        except BufferFullError as exc:
            self._tell_once("buffer", "buffer cannot be updated", reason=str(exc))

    async def _turn(self, session: BrokerSession) -> None:
        """Take the news, send what is due, then wait for more."""
        self._wake.clear()
        now_ms = self._parts.clock.now().mono_ms
        self._parts.beat("uplink", now_ms)
        if now_ms - self._connected_ms > PROVEN_MS:
            self._prove()
        try:
            await self._take(session.events(), now_ms)
            await self._mark(now_ms)
            await self._send(session, now_ms)
            self._told.discard("buffer")
        except BufferFullError as exc:
            self._tell_once("buffer", "buffer cannot be updated", reason=str(exc))
        await self._rest(_IDLE_S)

    async def _rest(self, seconds: float) -> None:
        """Wait, at most until something happens."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _send(self, session: BrokerSession, now_ms: int) -> None:
        while len(self._in_flight) < session.window:
            rows = await self._parts.outbox.due(now_ms, LINES_PER_MESSAGE, self._under_way())
            if not rows:
                return
            message_id = session.publish(self._readings, join_lines([row.line for row in rows]))
            self._in_flight[message_id] = _Message(tuple(row.row_id for row in rows), now_ms)

    def _under_way(self) -> Collection[int]:
        flying = {row_id for message in self._in_flight.values() for row_id in message.row_ids}
        return flying | self._taken | self._refused

    async def _take(self, events: list[LinkEvent], now_ms: int) -> None:
        for event in events:
            if isinstance(event, Lost):
                raise BrokerDownError(
                    f"lost the connection to {self._parts.link.name}: {event.reason}"
                )
            if isinstance(event, Arrived):
                await self._receipt(event)
            else:
                self._acked(event)
        waiting = [message.sent_ms for message in self._in_flight.values()]
        if waiting and now_ms - min(waiting) > ACK_TIMEOUT_MS:
            raise BrokerDownError(f"{self._parts.link.name} acknowledged nothing for 60 s")

    def _acked(self, event: Acked) -> None:
        message = self._in_flight.pop(event.message_id, None)
        if message is None:
            return
        if event.refusal is None:
            self._taken.update(message.row_ids)
            self._told.discard("refused")
            if message.row_ids:
                self._prove()
        else:
            self._refused.update(message.row_ids)
            self._tell_once("refused", "broker refuses messages", reason=event.refusal)

    async def _mark(self, now_ms: int) -> None:
        """Note what the broker said; until that is on disk the rows count as under way."""
        if self._taken:
            await self._parts.outbox.mark_sent(self._taken, now_ms)
            self._taken.clear()
        if self._refused:
            await self._parts.outbox.mark_refused(self._refused, now_ms)
            self._refused.clear()

    async def _receipt(self, event: Arrived) -> None:
        if event.topic != self._receipts:
            return
        try:
            receipt = decode_receipt(event.payload, self._parts.cloud_key, verify_ed25519)
        except WireError as exc:
            self._tell_once("receipt", "receipt ignored", code=exc.code, reason=str(exc))
            return
        if receipt.gateway_id != self._gateway_id:
            self._tell_once("receipt", "receipt ignored", reason="it is another gateway's")
            return
        self._told.discard("receipt")
        try:
            settled = await self._parts.outbox.settle(receipt, self._under_way())
        except BufferFullError as exc:
            # The rows stay, go again later, and bring another receipt.
            self._tell_once("buffer", "buffer cannot be updated", reason=str(exc))
            return
        for entry in settled.dead:
            _log.error(
                "line refused by the cloud; see `gtx-agent status`",
                extra={"line": entry.line, "code": entry.code, "reason": entry.reason},
            )

    def _certificate(self, state: Literal["online", "offline"]) -> bytes:
        now = self._parts.clock.now()
        return encode_state(
            GatewayState(
                state=state,
                boot_id=now.boot_id,
                since_ms=self._born_ms,
                software=self._parts.software,
            )
        )

    def _prove(self) -> None:
        """Count the session as good; one that only connects is not, some brokers cut it later."""
        if self._troubles:
            _log.info("broker is back", extra={"broker": self._parts.link.name})
        self._troubles.clear()
        self._attempts = 0

    def _tell_trouble(self, reason: str) -> None:
        """Log each kind of trouble once, until the broker is back."""
        if reason not in self._troubles:
            self._troubles.add(reason)
            _log.warning("broker trouble", extra={"reason": reason})

    def _tell_once(self, subject: str, text: str, **fields: str) -> None:
        if subject not in self._told:
            self._told.add(subject)
            _log.warning(text, extra=fields)


@dataclass(frozen=True, slots=True)
class _Message:
    row_ids: tuple[int, ...]
    sent_ms: int
