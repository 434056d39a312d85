"""What the agent's benches share: a fast Modbus slave in a process of its own, and cores to pin.

The slave is not the simulator that ships with the agent: it must cost as little as possible, and
serve other programs, too. It keeps one wire, so requests that come while it answers wait.
"""

import asyncio
import contextlib
import multiprocessing
import os
import struct
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gridtokenx_agent.adapters.rtu_framing import crc16, rtu_frame

BITS_PER_CHARACTER = 11
IMPORT_REGISTER = 0x48
"""Import energy of an SDM630; an answer that holds it counts as one poll of the meter."""
_SHOWN = {0x00: 230.1, 0x06: 5.25, 0x34: 1150.0, 0x3E: 0.95, 0x46: 50.0, 0x48: 5188.8, 0x4A: 12.5}


@dataclass(kw_only=True)
class SlaveSpec:
    """A bus of meters.

    Attributes:
        kind: tcp = Modbus TCP, rtu+tcp = serial frames over TCP, pty = a serial line at *link*.
        dead: Device ids that never answer.
        baudrate: Time on the wire is simulated at this speed; 0 = none.
        latency_s: A meter thinks so long.
        longest: More registers than this in one request are refused with exception 3.
    """

    kind: str
    dead: tuple[int, ...] = ()
    baudrate: int = 0
    latency_s: float = 0.0
    longest: int = 125
    link: str = ""


@dataclass
class Seen:
    """What the slave saw, by device id; a poll is an answer with the import counter, see when."""

    requests: dict[int, int] = field(default_factory=dict)
    registers: dict[int, int] = field(default_factory=dict)
    refused: dict[int, int] = field(default_factory=dict)
    polls: dict[int, int] = field(default_factory=dict)
    energy_s: dict[int, list[float]] = field(default_factory=dict)


class Slave:
    """The other side of the pipe: where the slave is, and what it has seen."""

    def __init__(self, pipe: Connection, address: Any) -> None:
        self._pipe = pipe
        self.address = address

    @property
    def url(self) -> str:
        """The bus as the agent names it."""
        kind, place = self.address
        return f"rtu://{place}" if kind == "pty" else f"{kind}://127.0.0.1:{place}"

    def seen(self) -> Seen:
        """Return what was seen since the last call."""
        self._pipe.send("seen")
        found: Seen = self._pipe.recv()
        return found


@contextmanager
def slave(spec: SlaveSpec) -> Iterator[Slave]:
    """Run a slave on the last core until the end."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_slave_process, args=(spec, theirs))
    process.start()
    try:
        yield Slave(ours, ours.recv())
    finally:
        process.terminate()
        process.join()


def pin(last: bool = False) -> None:
    """Keep this process on the first core, or on the last."""
    cores = sorted(os.sched_getaffinity(0)) if not last else sorted(range(os.cpu_count() or 1))
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, {cores[-1 if last else 0]})


def resident_mb(pid: int | str = "self") -> float:
    """Return resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def _slave_process(spec: SlaveSpec, pipe: Connection) -> None:
    pin(last=True)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(spec, pipe))


async def _serve(spec: SlaveSpec, pipe: Connection) -> None:
    wire = _Wire(spec)
    loop = asyncio.get_running_loop()
    if spec.kind == "pty":
        place: Any = spec.link
        _Pty(wire, spec.link)
    else:
        server = await loop.create_server(lambda: _Tcp(wire), "127.0.0.1", 0)
        place = server.sockets[0].getsockname()[1]
    pipe.send((spec.kind, place))
    while True:
        # A reader on the pipe would do, but asking ten times a second costs as good as nothing.
        await asyncio.sleep(0.02)
        if pipe.poll():
            pipe.recv()
            pipe.send(wire.seen)
            wire.seen = Seen()


class _Wire:
    """One conversation at a time, as fast as the line allows."""

    def __init__(self, spec: SlaveSpec) -> None:
        self.spec = spec
        self.seen = Seen()
        self._loop = asyncio.get_running_loop()
        self._free_s = 0.0
        words = {at: struct.unpack(">HH", struct.pack(">f", value)) for at, value in _SHOWN.items()}
        image = [0x3F80 if at % 2 == 0 else 0 for at in range(65536)]
        for at, pair in words.items():
            image[at : at + 2] = pair
        self._bytes = struct.pack(">65536H", *image)

    def ask(self, unit: int, pdu: bytes, send: Any) -> None:
        """Take a request; *send* gets the answer's PDU once it has been over the wire."""
        seen = self.seen
        function, address, count = struct.unpack(">BHH", pdu)
        seen.requests[unit] = seen.requests.get(unit, 0) + 1
        if unit in self.spec.dead:
            self._occupy(8)
            return
        if count > self.spec.longest:
            seen.refused[unit] = seen.refused.get(unit, 0) + 1
            answer = bytes((function | 0x80, 3))
        else:
            seen.registers[unit] = seen.registers.get(unit, 0) + count
            if address <= IMPORT_REGISTER < address + count:
                seen.polls[unit] = seen.polls.get(unit, 0) + 1
            data = self._bytes[2 * address : 2 * (address + count)]
            answer = bytes((function, len(data))) + data
        if not self.spec.baudrate and not self.spec.latency_s:
            send(answer)
            return
        energy = function == 4 and address <= IMPORT_REGISTER < address + count
        self._loop.call_at(
            self._occupy(8 + 3 + len(answer)), self._answer, unit, answer, send, energy
        )

    def _occupy(self, characters: int) -> float:
        """Return when so many characters more are over the wire."""
        begin_s = max(self._free_s, self._loop.time())
        wire_s = characters * BITS_PER_CHARACTER / self.spec.baudrate if self.spec.baudrate else 0
        self._free_s = begin_s + wire_s + self.spec.latency_s
        return self._free_s

    def _answer(self, unit: int, answer: bytes, send: Any, energy: bool) -> None:
        if energy and not answer[0] & 0x80:
            self.seen.energy_s.setdefault(unit, []).append(self._loop.time())
        send(answer)


class _Tcp(asyncio.Protocol):
    def __init__(self, wire: _Wire) -> None:
        self._wire = wire
        self._rtu = wire.spec.kind == "rtu+tcp"
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._rtu:
            self._received = _serve_frames(self._wire, self._received + data, self._write)
            return
        self._received += data
        while len(self._received) >= 12:
            frame, self._received = self._received[:12], self._received[12:]
            self._wire.ask(frame[6], frame[7:], _Mbap(frame[:4], frame[6], self._write))

    def _write(self, data: bytes) -> None:
        self._transport.write(data)


@dataclass(slots=True)
class _Mbap:
    head: bytes
    unit: int
    write: Any

    def __call__(self, answer: bytes) -> None:
        length = (1 + len(answer)).to_bytes(2)
        self.write(b"".join((self.head, length, bytes((self.unit,)), answer)))


def _serve_frames(wire: _Wire, received: bytes, write: Any) -> bytes:
    while len(received) >= 8:
        frame = received[:8]
        if crc16(frame[:-2]) != frame[-2:]:
            received = received[1:]
            continue
        received = received[8:]
        unit = frame[0]
        wire.ask(unit, frame[1:-2], lambda pdu, unit=unit: write(rtu_frame(unit, pdu)))
    return received


class _Pty:
    def __init__(self, wire: _Wire, link: str) -> None:
        self._wire = wire
        self._received = b""
        self._master, slave_end = os.openpty()
        tty.setraw(slave_end)
        Path(link).unlink(missing_ok=True)
        Path(link).symlink_to(os.ttyname(slave_end))
        asyncio.get_running_loop().add_reader(self._master, self._read)

    def _read(self) -> None:
        data = self._received + os.read(self._master, 4096)
        self._received = _serve_frames(self._wire, data, lambda out: os.write(self._master, out))
