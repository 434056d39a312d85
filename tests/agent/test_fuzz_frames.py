"""Whatever the wire delivers, a read gives the true words or an error, and the bus goes on."""

import asyncio
import struct
from collections.abc import Callable

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gridtokenx_agent.adapters.modbus import open_bus
from gridtokenx_agent.adapters.rtu_framing import crc16, rtu_frame
from gridtokenx_agent.errors import AgentError
from tests.support.virtual_time import LoopClock, run_in_virtual_time

Mangle = Callable[[bytes], bytes]
WORDS = (0x4366, 0x199A)
BOUND_S = 8.0
"""Longest a read may take: connecting, the rest of an earlier miss, time-out and quiet."""

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def rtu_answer(unit: int = 1, function: int = 4, words: tuple[int, ...] = WORDS) -> bytes:
    data = struct.pack(f">{len(words)}H", *words)
    return rtu_frame(unit, bytes((function, len(data))) + data)


def mbap_answer(transaction: bytes, unit: int = 1, function: int = 4) -> bytes:
    data = struct.pack(f">{len(WORDS)}H", *WORDS)
    pdu = bytes((unit, function, len(data))) + data
    return transaction + b"\0\0" + len(pdu).to_bytes(2) + pdu


class Wire:
    """A server whose answer to the n-th request is the n-th script; afterwards it is honest."""

    def __init__(self, kind: str, scripts: list[bytes | Mangle | None]) -> None:
        self._kind = kind
        self._scripts = list(scripts)
        self._request = 8 if kind == "rtu+tcp" else 12

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await reader.readexactly(self._request)
                true = rtu_answer() if self._kind == "rtu+tcp" else mbap_answer(request[:2])
                writer.write(self._answer(true))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def _answer(self, true: bytes) -> bytes:
        script = self._scripts.pop(0) if self._scripts else None
        if script is None:
            return true
        return script if isinstance(script, bytes) else script(true)


async def _read_all(kind: str, scripts: list[bytes | Mangle | None]) -> list[object]:
    server = await asyncio.start_server(Wire(kind, scripts).serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    bus = open_bus(f"{kind}://127.0.0.1:{port}", LoopClock())
    loop = asyncio.get_running_loop()
    found: list[object] = []
    for _ in range(len(scripts) + 6):
        before_s = loop.time()
        try:
            found.append((await bus.read_words(1, 4, 0, 2, 0)).words)
        except AgentError as exc:
            found.append(exc)
            await asyncio.sleep(4)
        assert loop.time() - before_s < BOUND_S + 4
    await bus.close()
    server.close()
    await asyncio.sleep(0.1)
    return found


def no_wrong_value(kind: str, scripts: list[bytes | Mangle | None]) -> None:
    found = run_in_virtual_time(_read_all(kind, scripts))

    assert all(said == WORDS or isinstance(said, AgentError) for said in found), found
    assert found[-1] == WORDS


def _without_true_frame(data: bytes) -> bool:
    """Whether no part of *data* is a frame that is whole and true: such a one is an answer."""
    return not any(
        data[start : start + 2] in (b"\x01\x04", b"\x01\x84")
        and any(
            crc16(data[start : end - 2]) == data[end - 2 : end]
            for end in range(start + 5, len(data) + 1)
        )
        for start in range(len(data))
    )


noise = st.binary(max_size=300).filter(_without_true_frame)


@quick
@given(scripts=st.lists(noise, max_size=4))
@example(scripts=[b"\x01\x04\x04\x43\x66", b"\x19\x9a"])
@example(scripts=[b"\x01"] * 3)
@example(scripts=[rtu_answer(unit=2) + rtu_answer(function=3) + rtu_answer(words=(1, 2, 3))])
def test_serial_noise_is_never_a_value_and_never_the_end(scripts: list[bytes]) -> None:
    no_wrong_value("rtu+tcp", [*scripts])


@quick
@given(scripts=st.lists(st.binary(max_size=300), max_size=4))
@example(scripts=[b"\0\0\0\0\0\xff" + bytes(255)])
@example(scripts=[b"\0\x01\0\0\0\x02\x01\x04", b"\0\x02\0\0\0\x03\x01\x84\x02"])
@example(scripts=[b"\0\x01\0\0\0\x00"])
def test_tcp_noise_is_never_the_end(scripts: list[bytes]) -> None:
    found = run_in_virtual_time(_read_all("tcp", [*scripts]))

    assert found[-1] == WORDS


@st.composite
def mangled(draw: st.DrawFn) -> Mangle:
    """Spoil some bytes of a true answer, cut it, or put bytes around it."""
    flips = draw(st.dictionaries(st.integers(0, 8), st.integers(1, 255), max_size=3))
    before, after = draw(st.binary(max_size=12)), draw(st.binary(max_size=12))
    cut = draw(st.integers(0, 9))

    def mangle(true: bytes) -> bytes:
        data = bytearray(true)
        for place, value in flips.items():
            data[place] ^= value
        return before + bytes(data)[: len(data) - cut] + after

    return mangle


@quick
@given(scripts=st.lists(mangled(), max_size=4))
def test_spoilt_serial_answers_are_errors_or_true(scripts: list[Mangle]) -> None:
    no_wrong_value("rtu+tcp", [*scripts])
