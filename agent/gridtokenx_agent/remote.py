"""Carries out what the cloud signed, once, and answers; a forged or old command does nothing."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gridtokenx_agent.errors import AgentError, BufferFullError
from gridtokenx_agent.ports import Clock, CloudTime, CommandLog, Instant, RecordSigner
from gridtokenx_wire.command import (
    Command,
    CommandName,
    Outcome,
    Reply,
    decode_command,
    encode_reply,
)
from gridtokenx_wire.errors import MalformedLineError, WireError
from gridtokenx_wire.record import ClockQuality
from gridtokenx_wire.signing import verify_ed25519

MOST_WAITING = 8
AHEAD_MS = 300_000
"""How far the cloud's clock may be before a true clock of ours."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How a command ended.

    Attributes:
        then: Done after the reply has left, such as a restart.
    """

    outcome: Outcome
    detail: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    then: Callable[[], Awaitable[None]] | None = None


Action = Callable[[str, int], Awaitable[Answer]]
"""Argument of the command, and for how many ms the cloud waits -> how it ended."""


@dataclass(slots=True, kw_only=True)
class RemoteCounts:
    """What came in since the start."""

    done: int = 0
    refused: int = 0
    failed: int = 0
    forged: int = 0
    repeated: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteParts:
    """What the service works with.

    Attributes:
        cloud_key: Ed25519 key that signs commands.
        reply: Sends a signed reply.
        note: Records an event of the gateway: name and detail.
        actions: What each command does; one that is missing is answered as not available.
    """

    log: CommandLog
    clock: Clock
    signer: RecordSigner
    cloud_key: bytes
    reply: Callable[[bytes], None]
    note: Callable[[str, str], Awaitable[None]]
    actions: Mapping[CommandName, Action]


def refusal(command: Command, now: Instant, cloud: CloudTime) -> str | None:
    """Return why a command that nobody has seen yet is not carried out; None = it is.

    While the wall clock can't be trusted, only the cloud's own signed times count: a command
    must be issued after every other one, and not have expired before the last receipt.
    """
    if command.expires_ms <= cloud.at_least_ms:
        return f"it expired at {command.expires_ms}, the cloud's clock was later already"
    if now.clock is ClockQuality.UNSYNCHRONISED:
        if command.issued_ms <= cloud.last_command_ms:
            return (
                f"it was issued at {command.issued_ms}, not after the last one at "
                f"{cloud.last_command_ms}, and this gateway's clock is not true yet"
            )
        return None
    if now.wall_ms >= command.expires_ms:
        return f"it expired at {command.expires_ms}, here it is {now.wall_ms}"
    if command.issued_ms > now.wall_ms + AHEAD_MS:
        return f"it was issued at {command.issued_ms}, here it is only {now.wall_ms}"
    return None


def left_ms(command: Command, now: Instant) -> int:
    """Return for how long a command that is carried out from *now* on is still waited for."""
    if now.clock is ClockQuality.UNSYNCHRONISED:
        return command.expires_ms - command.issued_ms
    return command.expires_ms - max(command.issued_ms, now.wall_ms)


class Remote:
    """One task: takes commands in turn."""

    def __init__(self, parts: RemoteParts) -> None:
        self.counts = RemoteCounts()
        self._parts = parts
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue(MOST_WAITING)
        self._told: set[str] = set()

    def inbox(self, payload: bytes) -> None:
        """Take a message of the commands topic; one too many is dropped, the cloud asks again."""
        try:
            self._waiting.put_nowait(payload)
        except asyncio.QueueFull:
            self._tell("full", "too many commands at once; one was dropped")

    async def run(self) -> None:
        """Answer what an earlier run left open, then carry out what comes."""
        await self._answer_unfinished()
        while True:
            await self.handle(await self._waiting.get())

    async def handle(self, payload: bytes) -> None:
        """Carry out one command, or say why not."""
        try:
            command = decode_command(payload, self._parts.cloud_key, verify_ed25519)
            if command.gateway_id != self._parts.signer.gateway_id:
                raise MalformedLineError("it is for another gateway")
        except WireError as exc:
            self.counts.forged += 1
            self._tell("forged", "command ignored", code=exc.code, reason=str(exc))
            return
        try:
            await self._take(command)
        except BufferFullError as exc:
            # What can't be written down could be carried out twice.
            self._send(command.nonce, Answer(outcome="refused", detail=str(exc)))

    async def _take(self, command: Command) -> None:
        log = self._parts.log
        known = await log.seen(command.nonce)
        if known is not None:
            self.counts.repeated += 1
            if known.reply is not None:
                self._parts.reply(known.reply)
            return
        cloud = await log.cloud_time()
        now = self._parts.clock.now()
        why_not = refusal(command, now, cloud)
        if why_not is not None:
            self.counts.refused += 1
            self._tell("refused", "command refused", command=command.command, reason=why_not)
            self._send(command.nonce, Answer(outcome="refused", detail=why_not))
            return
        if not await log.begin(
            command.nonce, command.issued_ms, command.expires_ms, command.command
        ):
            return
        _log.info("command", extra={"command": command.command, "nonce": command.nonce})
        answer = await self._carry_out(command)
        try:
            await self._finish(command.nonce, command.command, answer)
            # What expired before this command was issued is refused for that from now on.
            await log.forget_before(command.issued_ms)
        except BufferFullError as exc:
            # It was done, and the reply has left; to say now that it was refused would be wrong.
            self._tell("log", "the command log takes nothing", reason=str(exc))
        if answer.then is not None:
            await answer.then()

    async def _carry_out(self, command: Command) -> Answer:
        action = self._parts.actions.get(command.command)
        if action is None:
            return Answer(
                outcome="refused", detail=f"{command.command} is not available at this gateway"
            )
        try:
            return await action(command.argument, left_ms(command, self._parts.clock.now()))
        except AgentError as exc:
            return Answer(outcome="failed", detail=str(exc))
        except Exception as exc:  # noqa: BLE001 - a defect in one command may not end the others
            _log.exception("command failed", extra={"command": command.command})
            return Answer(outcome="failed", detail=f"defect in the agent: {exc!r}")

    async def _finish(self, nonce: str, command: str, answer: Answer) -> None:
        counts = self.counts
        setattr(counts, answer.outcome, getattr(counts, answer.outcome) + 1)
        payload = self._send(nonce, answer)
        await self._parts.log.finish(nonce, payload)
        name = f"Command{answer.outcome.capitalize()}"
        await self._parts.note(name, f"{command} {nonce[:8]}: {answer.detail}")

    async def _answer_unfinished(self) -> None:
        try:
            left = await self._parts.log.unfinished()
        except BufferFullError as exc:
            self._tell("log", "command log cannot be read", reason=str(exc))
            return
        for one in left:
            detail = "the agent ended while it ran; `status` shows what is in force"
            if one.command == CommandName.RESTART:
                await self._finish(one.nonce, one.command, Answer(outcome="done"))
            else:
                failed = Answer(outcome="failed", detail=detail)
                await self._finish(one.nonce, one.command, failed)

    def _send(self, nonce: str, answer: Answer) -> bytes:
        signer = self._parts.signer
        reply = Reply(
            gateway_id=signer.gateway_id,
            nonce=nonce,
            issued_ms=max(0, self._parts.clock.now().wall_ms),
            outcome=answer.outcome,
            detail=answer.detail,
            result=answer.result,
        )
        try:
            payload = encode_reply(reply, signer.sign)
        except MalformedLineError as exc:
            short = replace(reply, result={}, detail=f"{answer.detail} (result left out: {exc})")
            payload = encode_reply(short, signer.sign)
        self._parts.reply(payload)
        return payload

    def _tell(self, subject: str, text: str, **fields: str) -> None:
        if subject not in self._told:
            self._told.add(subject)
            _log.warning(text, extra=fields)
