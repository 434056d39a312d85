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
from gridtokenx_agent.adapters.simulator.services import PtyService, Send, Service, TcpService
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
        return PtyService(link, self._answer_rtu)

    async def _mbap_client(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while True:
            header = await reader.readexactly(_HEADER.size)
            transaction, _, length, unit = _HEADER.unpack(header)
            pdu = await reader.readexactly(max(length - 1, 0))
            meter = self._meters.get(unit)
            if meter is None or not pdu:
                answer = bytes((pdu[0] | 0x80 if pdu else 0x80, _TARGET_SILENT))
                writer.write(_HEADER.pack(transaction, 0, 1 + len(answer), unit) + answer)
                continue
            await _send(await _mbap_answer(meter, transaction, unit, pdu), meter, writer.write)
            if meter.faults.hang_up:
                return

    async def _rtu_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received = b""
        while data := await reader.read(256):
            received = await self._answer_rtu(received + data, writer.write)
            if any(meter.faults.hang_up for meter in self._meters.values()):
                return

    async def _answer_rtu(self, received: bytes, send: Send) -> bytes:
        """Answer the requests within *received*; return what is left."""
        while len(received) >= _RTU_REQUEST:
            frame = received[:_RTU_REQUEST]
            if crc16(frame[:-2]) != frame[-2:]:
                received = received[1:]
                continue
            received = received[_RTU_REQUEST:]
            meter = self._meters.get(frame[0])
            if meter is not None:
                await _send(await _rtu_answer(meter, frame), meter, send)
        return received


async def _mbap_answer(meter: MeterSimulator, transaction: int, unit: int, pdu: bytes) -> bytes:
    faults = meter.faults
    reacts = meter.reacts()
    await asyncio.sleep(faults.delay_ms / 1000)
    if not reacts:
        return b""
    answer = meter.answer(pdu)
    shown = 0 if faults.zero_transaction else transaction
    header = _HEADER.pack(shown, 0, 1 + len(answer), unit + faults.wrong_unit)
    return faults.noise + _cut(header + answer, faults.truncate) + faults.glue


async def _rtu_answer(meter: MeterSimulator, frame: bytes) -> bytes:
    faults = meter.faults
    reacts = meter.reacts()
    await asyncio.sleep(faults.delay_ms / 1000)
    before = (frame[faults.cut_echo :] if faults.echo else b"") + faults.noise
    if not reacts:
        return before
    answer = rtu_frame(frame[0] + faults.wrong_unit, meter.answer(frame[1:-2]))
    if faults.corrupt_crc:
        answer = answer[:-1] + bytes((answer[-1] ^ 0xFF,))
    return before + _cut(answer, faults.truncate) + faults.glue


async def _send(data: bytes, meter: MeterSimulator, send: Send) -> None:
    gap_s = meter.faults.byte_gap_ms / 1000
    if not gap_s:
        send(data)
        return
    for place in range(len(data)):
        send(data[place : place + 1])
        await asyncio.sleep(gap_s)


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
