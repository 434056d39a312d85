"""Raw Modbus slaves over TCP, RTU over TCP and a pseudo-terminal.

Not built on a Modbus library: a library's server cannot be made to answer late, wrongly or twice.
"""

import asyncio
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from gridtokenx_agent.adapters.modbus.endpoint import parse_bus_url
from gridtokenx_agent.adapters.rtu_framing import crc16, rtu_frame
from gridtokenx_agent.adapters.simulator.meter import MeterSimulator
from gridtokenx_agent.adapters.simulator.services import PtyService, Service, TcpService
from gridtokenx_agent.errors import ConfigError

_HEADER: Final = struct.Struct(">HHHB")
_RTU_REQUEST: Final = 8
_TARGET_SILENT: Final = 0x0B


class BusSimulator:
    """Several simulated meters on one bus, by their device ids."""

    def __init__(self, meters: Mapping[int, MeterSimulator]) -> None:
        self._meters = meters

    async def serve_tcp(self, host: str, port: int) -> Service:
        """Serve Modbus TCP; port 0 takes a free one."""
        return await TcpService("tcp", host, self._mbap_client).start(port)

    async def serve_rtu_tcp(self, host: str, port: int) -> Service:
        """Serve RTU frames over TCP, as serial servers do; port 0 takes a free one."""
        return await TcpService("rtu+tcp", host, self._rtu_client).start(port)

    async def serve_pty(self, link: Path) -> Service:
        """Serve RTU on a new pseudo-terminal, found under the stable path *link*.

        Raises:
            ConfigError: Something that is no link is at that path.
        """
        return PtyService(link, self.answer_rtu)

    async def _mbap_client(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            header = await reader.readexactly(_HEADER.size)
            transaction, _, length, unit = _HEADER.unpack(header)
            pdu = await reader.readexactly(max(length - 1, 0))
            writer.write(await self._answer_mbap(transaction, unit, pdu))

    async def _answer_mbap(self, transaction: int, unit: int, pdu: bytes) -> bytes:
        meter = self._meters.get(unit)
        if meter is None or not pdu:
            answer = bytes((pdu[0] | 0x80 if pdu else 0x80, _TARGET_SILENT))
            return _HEADER.pack(transaction, 0, 1 + len(answer), unit) + answer
        faults = meter.faults
        await asyncio.sleep(faults.delay_ms / 1000)
        if faults.silent:
            return b""
        answer = meter.answer(pdu)
        header = _HEADER.pack(transaction, 0, 1 + len(answer), unit + faults.wrong_unit)
        return faults.noise + _cut(header + answer, faults.truncate)

    async def _rtu_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received = b""
        while data := await reader.read(256):
            received += data
            received, answer = await self.answer_rtu(received)
            writer.write(answer)

    async def answer_rtu(self, received: bytes) -> tuple[bytes, bytes]:
        """Answer the requests within *received*; return what is left, and the answers."""
        answers = b""
        while len(received) >= _RTU_REQUEST:
            frame = received[:_RTU_REQUEST]
            if crc16(frame[:-2]) != frame[-2:]:
                received = received[1:]
                continue
            received = received[_RTU_REQUEST:]
            answers += await self._answer_frame(frame)
        return received, answers

    async def _answer_frame(self, frame: bytes) -> bytes:
        meter = self._meters.get(frame[0])
        if meter is None:
            return b""
        faults = meter.faults
        await asyncio.sleep(faults.delay_ms / 1000)
        before = (frame if faults.echo else b"") + faults.noise
        if faults.silent:
            return before
        answer = rtu_frame(frame[0] + faults.wrong_unit, meter.answer(frame[1:-2]))
        if faults.corrupt_crc:
            answer = answer[:-1] + bytes((answer[-1] ^ 0xFF,))
        return before + _cut(answer, faults.truncate)


async def simulate(
    meters: Mapping[int, MeterSimulator], url: str, on_ready: Callable[[str], None]
) -> None:
    """Serve *meters* at a bus URL until cancelled.

    Args:
        meters: Simulated meters by device id.
        url: Where to serve: `tcp://host:port`, `rtu+tcp://host:port`, or `rtu:///path`, where a
            link to a new pseudo-terminal is made.
        on_ready: Called with the URL the agent can use, once it is served.

    Raises:
        ConfigError: The URL is wrong, or the place is taken.
    """
    place = parse_bus_url(url)
    bus = BusSimulator(meters)
    try:
        if place.kind == "rtu":
            service = await bus.serve_pty(Path(place.host))
        elif place.kind == "tcp":
            service = await bus.serve_tcp(place.host, place.port)
        else:
            service = await bus.serve_rtu_tcp(place.host, place.port)
    except OSError as exc:
        raise ConfigError((f"cannot serve {url}: {exc}",)) from exc
    try:
        on_ready(service.url)
        await asyncio.get_running_loop().create_future()
    finally:
        await service.close()


def _cut(answer: bytes, missing: int) -> bytes:
    return answer[: len(answer) - missing]
