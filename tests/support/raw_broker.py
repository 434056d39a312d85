"""A broker of one page that can lie, refuse, hang up, and be too old for MQTT 5."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

_LAST_WORDS_S = 30.0
_CONNECT, _PUBLISH, _SUBSCRIBE, _PING, _DISCONNECT = 1, 3, 8, 12, 14


@dataclass
class RawBroker:
    """What it does, and what it saw.

    Attributes:
        levels: Protocol levels it speaks: 4 is MQTT 3.1.1, 5 is MQTT 5.
        hangs_up: Closes the connection on a level it does not speak, instead of saying so.
        puback: Reason code of each PUBACK for readings; None = no answer.
        poison: Closes the connection when a payload contains it.
        spoiled: Refuses with 0x99 each message that contains it.
        announced: MaximumPacketSize of its CONNACK; None = says nothing.
        payloads: Payloads of the readings, in order.
        other: (topic, payload) of every other message.
        connects: Protocol level of each CONNECT.
    """

    levels: frozenset[int] = frozenset({4, 5})
    hangs_up: bool = False
    puback: int | None = 0
    poison: bytes | None = None
    spoiled: bytes | None = None
    announced: int | None = None
    payloads: list[bytes] = field(default_factory=list)
    other: list[tuple[str, bytes]] = field(default_factory=list)
    connects: list[int] = field(default_factory=list)
    port: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _serving: set[asyncio.Task[None]] = field(default_factory=set)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["RawBroker"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            # What a client said before it left is heard to its end.
            if self._serving:
                await asyncio.wait(self._serving, timeout=_LAST_WORDS_S)
            self.cut()
            await asyncio.gather(*self._serving)

    def deliver(self, topic: str, payload: bytes) -> None:
        """Send a message of QoS 0 to every client, as MQTT 5 frames it."""
        name = topic.encode()
        body = len(name).to_bytes(2) + name + b"\x00" + payload
        for writer in self._writers:
            writer.write(b"\x30" + _length(len(body)) + body)

    def cut(self) -> None:
        """Close every connection."""
        for writer in list(self._writers):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        self._writers.add(writer)
        level = 0
        try:
            while True:
                kind, body = await _packet(reader)
                if kind >> 4 == _CONNECT:
                    level = body[6]
                    self.connects.append(level)
                    if not self._welcome(level, writer):
                        return
                elif kind >> 4 == _PUBLISH:
                    if not self._take(kind, body, level, writer):
                        return
                elif not _housekeeping(kind, body, level, writer):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _welcome(self, level: int, writer: asyncio.StreamWriter) -> bool:
        if level not in self.levels:
            if not self.hangs_up:
                writer.write(b"\x20\x02\x00\x01")
            return False
        if level == 4:
            writer.write(b"\x20\x02\x00\x00")
            return True
        properties = b"" if self.announced is None else b"\x27" + self.announced.to_bytes(4)
        body = b"\x00\x00" + bytes([len(properties)]) + properties
        writer.write(b"\x20" + bytes([len(body)]) + body)
        return True

    def _take(self, kind: int, body: bytes, level: int, writer: asyncio.StreamWriter) -> bool:
        end = 2 + int.from_bytes(body[:2])
        topic = body[2:end].decode()
        packet_id = body[end : end + 2] if kind & 0x06 else b""
        payload = body[end + len(packet_id) + (level == 5) :]
        if self.poison is not None and self.poison in payload:
            return False
        code: int | None = 0
        if topic.endswith("/readings"):
            self.payloads.append(payload)
            code = self.puback
            if self.spoiled is not None and self.spoiled in payload:
                code = 0x99
        else:
            self.other.append((topic, payload))
        if code is not None and packet_id:
            # A broker of 3.1.1 has no way to say no.
            tail = bytes([code]) if code and level == 5 else b""
            writer.write(b"\x40" + bytes([2 + len(tail)]) + packet_id + tail)
        return True


async def _packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    kind = (await reader.readexactly(1))[0]
    length, shift = 0, 0
    while True:
        digit = (await reader.readexactly(1))[0]
        length |= (digit & 0x7F) << shift
        shift += 7
        if not digit & 0x80:
            return kind, await reader.readexactly(length)


def _housekeeping(kind: int, body: bytes, level: int, writer: asyncio.StreamWriter) -> bool:
    if kind >> 4 == _SUBSCRIBE:
        wanted = body.count(b"gridtokenx/")
        grants = body[:2] + (b"\x00" if level == 5 else b"") + b"\x01" * wanted
        writer.write(b"\x90" + bytes([len(grants)]) + grants)
    elif kind >> 4 == _PING:
        writer.write(b"\xd0\x00")
    return kind >> 4 != _DISCONNECT


def _length(number: int) -> bytes:
    digits = bytearray()
    while True:
        number, digit = divmod(number, 128)
        digits.append(digit | (0x80 if number else 0))
        if not number:
            return bytes(digits)
