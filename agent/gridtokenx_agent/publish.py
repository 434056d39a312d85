"""Sends what waits in the buffer, and forgets it only when the cloud has signed for it."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from gridtokenx_agent.errors import BrokerDownError, BrokerRefusedError, BufferFullError
from gridtokenx_agent.ports import (
    Acked,
    Arrived,
    BrokerLink,
    BrokerSession,
    Clock,
    Lost,
    Outbox,
    RecordSigner,
    Will,
)
from gridtokenx_agent.traffic import Pace, Replies, Traffic, UplinkCounts, as_one, pause_s
from gridtokenx_wire.encoding import join_lines
from gridtokenx_wire.errors import MalformedLineError, WireError
from gridtokenx_wire.receipt import Receipt, decode_receipt
from gridtokenx_wire.signing import verify_ed25519
from gridtokenx_wire.state import GatewayState, encode_state
from gridtokenx_wire.topics import Channel, topic

ACK_TIMEOUT_MS = 60_000
PROVEN_MS = 30_000
LINES_PER_S = 1300
"""Less than the cloud takes of one gateway, or it drops the rest and a backlog takes longer."""
_IDLE_MS = 1000
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
        lines_per_s: Most lines that leave in a second, so that a backlog leaves room.
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
    lines_per_s: int = LINES_PER_S


class Publisher:
    """One task: connect, send, take receipts, connect again.

    Attributes:
        inbox: Given each message of the commands topic; None = commands are not asked for.
        taken: Told of numbers that the cloud has and this buffer never gave; see `Settled`.
    """

    def __init__(self, parts: PublisherParts) -> None:
        self.inbox: Callable[[bytes], None] | None = None
        self.taken: Callable[[str, str, int], None] = lambda *_: None
        self.counts = UplinkCounts()
        self._parts = parts
        self._gateway_id = parts.signer.gateway_id
        self._topics = {channel: topic(self._gateway_id, channel) for channel in Channel}
        self._born_ms = parts.clock.now().wall_ms
        self._wake = parts.wake
        self._traffic = Traffic()
        self._pace = Pace(parts.lines_per_s)
        self._replies = Replies()
        self._troubles: set[str] = set()
        self._attempts = 0
        self._connected_ms = 0
        self._told: set[str] = set()

    @property
    def silent(self) -> bool:
        """Whether the broker has taken every reply."""
        return not self._replies.waiting and not self._replies.under_way

    def reply(self, payload: bytes) -> None:
        """Send the answer to a command; the oldest is dropped where too many wait."""
        self._replies.waiting.append(payload)
        self._wake.set()

    def relink(self, link: BrokerLink, lines_per_s: int) -> None:
        """Use another broker from the next run on; call it only while none runs."""
        self._parts = replace(self._parts, link=link, lines_per_s=lines_per_s)
        self._pace = Pace(lines_per_s)
        self._attempts = 0
        self._troubles.clear()

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
            # Finding a name and trying its addresses may take minutes: no standstill either.
            self._parts.beat("uplink", self._parts.clock.now().mono_ms)
            await asyncio.sleep(self._parts.jitter(pause_s(self._attempts)))

    async def _connect(self) -> BrokerSession:
        will = Will(topic=self._topics[Channel.STATE], payload=self._certificate("offline"))
        wanted = [Channel.RECEIPTS, *([Channel.COMMANDS] if self.inbox else [])]
        return await self._parts.link.connect([self._topics[name] for name in wanted], will)

    async def _serve(self, session: BrokerSession) -> None:
        try:
            self._connected_ms = self._parts.clock.now().mono_ms
            birth = session.publish(
                self._topics[Channel.STATE], self._certificate("online"), retain=True
            )
            self._traffic.sent(birth, (), self._connected_ms)
            self.counts.connections += 1
            self.counts.connected = 1
            await self._start_over()
            while True:
                await self._turn(session)
        finally:
            self.counts.connected = 0
            self._replies.lost()
            if aside := self._traffic.lost(self._parts.clock.now().mono_ms):
                self._tell_once(
                    "aside",
                    "a line on which the broker hangs up is set aside; the others go on",
                    rows=",".join(map(str, aside)),
                )
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
        rest_ms = _IDLE_MS
        try:
            await self._take(session, now_ms)
            await self._mark(now_ms)
            self._send_replies(session, now_ms)
            rest_ms = await self._send(session, now_ms)
            self._told.discard("buffer")
        except BufferFullError as exc:
            self._tell_once("buffer", "buffer cannot be updated", reason=str(exc))
        await self._rest(rest_ms / 1000)

    async def _rest(self, seconds: float) -> None:
        """Wait, at most until something happens."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _send(self, session: BrokerSession, now_ms: int) -> int:
        """Send what is due and may leave now; return how long to wait for the next, ms."""
        traffic = self._traffic
        while len(traffic.in_flight) < traffic.window(session.window):
            wait_ms = max(traffic.held_until_ms - now_ms, self._pace.wait_ms(now_ms))
            if wait_ms > 0:
                return min(wait_ms, _IDLE_MS)
            due = await self._parts.outbox.due(now_ms, self._pace.longest, traffic.busy(now_ms))
            if not due:
                break
            rows = traffic.group(due, session.max_bytes)
            lines = join_lines([row.line for row in rows])
            message_id = session.publish(self._topics[Channel.READINGS], lines)
            traffic.sent(message_id, tuple(row.row_id for row in rows), now_ms)
            self._pace.take(len(rows))
            self.counts.lines += len(rows)
        return _IDLE_MS

    def _send_replies(self, session: BrokerSession, now_ms: int) -> None:
        while self._replies.waiting:
            payload = self._replies.waiting[0]
            message_id = session.publish(self._topics[Channel.REPLIES], payload)
            self._replies.under_way[message_id] = self._replies.waiting.popleft()
            self._traffic.sent(message_id, (), now_ms)

    async def _take(self, session: BrokerSession, now_ms: int) -> None:
        receipts: list[Receipt] = []
        lost: Lost | None = None
        for event in session.events():
            match event:
                case Lost():
                    lost = event
                case Acked():
                    self._acked(event, session.window, now_ms)
                case Arrived(topic=name) if name == self._topics[Channel.RECEIPTS]:
                    receipts += self._receipt(event.payload)
                case Arrived(topic=name) if name == self._topics[Channel.COMMANDS] and self.inbox:
                    self.inbox(event.payload)
        await self._settle(receipts)
        if lost is not None:
            name = self._parts.link.name
            twin = "taken over" in lost.reason
            hint = "; does another gateway run with this key, from a copied card?" if twin else ""
            raise BrokerDownError(f"lost the connection to {name}: {lost.reason}{hint}")
        waiting = [message.sent_ms for message in self._traffic.in_flight.values()]
        if waiting and now_ms - min(waiting) > ACK_TIMEOUT_MS:
            raise BrokerDownError(f"{self._parts.link.name} acknowledged nothing for 60 s")

    def _acked(self, event: Acked, window: int, now_ms: int) -> None:
        self._replies.under_way.pop(event.message_id, None)
        if event.refusal is None:
            message = self._traffic.acked(event.message_id, window, now_ms)
            if message is not None and message.row_ids:
                self.counts.acknowledged += len(message.row_ids)
                self._told.discard("refused")
                self._prove()
            return
        message = self._traffic.turned_down(event.message_id, now_ms)
        if message is not None:
            self.counts.refused += len(message.row_ids)
            self._tell_once("refused", "broker refuses messages", reason=event.refusal)

    async def _mark(self, now_ms: int) -> None:
        """Note what the broker said; until that is on disk the rows count as under way."""
        if self._traffic.taken:
            await self._parts.outbox.mark_sent(self._traffic.taken, now_ms)
            self._traffic.taken.clear()
        if self._traffic.refused:
            await self._parts.outbox.mark_refused(self._traffic.refused, now_ms)
            self._traffic.refused.clear()

    def _receipt(self, payload: bytes) -> list[Receipt]:
        """Return the receipt; none where it is not the cloud's word to this gateway."""
        try:
            receipt = decode_receipt(payload, self._parts.cloud_key, verify_ed25519)
            if receipt.gateway_id != self._gateway_id:
                raise MalformedLineError("it is another gateway's")
        except WireError as exc:
            self.counts.receipts_ignored += 1
            self._tell_once("receipt", "receipt ignored", code=exc.code, reason=str(exc))
            return []
        self.counts.receipts += 1
        self._told.discard("receipt")
        return [receipt]

    async def _settle(self, receipts: list[Receipt]) -> None:
        """Forget what came back, in one commit: on an SD card each may cost a tenth of a second."""
        if not receipts:
            return
        try:
            settled = await self._parts.outbox.settle(as_one(receipts), self._traffic.known())
        except BufferFullError as exc:
            # The rows stay, go again later, and bring another receipt.
            self._tell_once("buffer", "buffer cannot be updated", reason=str(exc))
            return
        self.counts.forgotten += settled.forgotten
        self.counts.dead += len(settled.dead)
        for meter_id, epoch, seq in settled.taken:
            self.taken(meter_id, epoch, seq)
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
