"""`MeterBus` over pymodbus, which only moves the bytes: the rules of a transaction are here."""

import asyncio
import logging
import struct
from dataclasses import dataclass
from typing import Final

from gridtokenx_agent.adapters.modbus.answers import AnswerGate, MbapRequest, WrongAnswerError
from gridtokenx_agent.adapters.modbus.endpoint import BusEndpoint, parse_bus_url
from gridtokenx_agent.adapters.modbus.port import Client, Port
from gridtokenx_agent.adapters.modbus.quiet import QuietRule
from gridtokenx_agent.adapters.modbus.timing import UnitTiming
from gridtokenx_agent.adapters.rtu_framing import RtuRequest, frame_of_another
from gridtokenx_agent.errors import (
    BusDownError,
    Heard,
    MeterBusyError,
    MeterRefusedError,
    MeterTimeoutError,
)
from gridtokenx_agent.ports import Clock, ReadFunction, WordsRead

_REQUEST_BYTES: Final = 8
_ANSWER_OVERHEAD: Final = 5
_SILENT_LIMIT: Final = 3
"""So many requests in a row without an answer, and the port is opened anew: a half-open TCP
connection and a stuck USB adapter both look like dead meters."""
_BABBLE_S: Final = 1.0
"""Longest wait for a bus that never falls silent."""
_LOOK_AGAIN_S: Final = 0.05
"""A late answer may end the quiet time early; so often it is looked for."""
_EXCEPTION: Final = 0x80
_REFUSALS: Final = frozenset({1, 2, 3})


def open_bus(url: str, clock: Clock) -> "PymodbusBus":
    """Return the bus at *url*; the port is opened with the first read.

    Raises:
        ConfigError: Lists every fault of the URL.
    """
    # Each failure is raised as an error of ours; pymodbus would log it a second time.
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
    return PymodbusBus(parse_bus_url(url), clock)


@dataclass(slots=True)
class _Read:
    """One request on its way."""

    unit: int
    function: ReadFunction
    address: int
    count: int
    sent_s: float
    wire_s: float
    timeout_s: float

    @property
    def pdu(self) -> bytes:
        """Function, first register and count, as they are sent."""
        return struct.pack(">BHH", self.function, self.address, self.count)

    @property
    def answer_bytes(self) -> int:
        """Length of the answer as a serial frame."""
        return _ANSWER_OVERHEAD + 2 * self.count

    def __str__(self) -> str:
        return f"registers {self.address:#06x}+{self.count} of meter {self.unit}"


class PymodbusBus:
    """One serial port or TCP endpoint; one transaction at a time."""

    def __init__(self, endpoint: BusEndpoint, clock: Clock) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._lock = asyncio.Lock()
        self._units: dict[int, UnitTiming] = {}
        self._quiet = QuietRule()
        self._port = Port(endpoint, self._new_gate, self._fail)
        self._last: _Read | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self._silent = 0

    async def read_words(
        self, device_id: int, function: ReadFunction, address: int, count: int, min_gap_ms: int
    ) -> WordsRead:
        """See `MeterBus.read_words`."""
        async with self._lock:
            worn = self._port.has_answered and self._endpoint.kind == "tcp"
            try:
                return await self._read(device_id, function, address, count, min_gap_ms)
            except BusDownError:
                # Some gateways close the connection after each answer. Only a numbered answer
                # is sure to be that of the second request, not a late one of the first.
                if not worn:
                    raise
                return await self._read(device_id, function, address, count, min_gap_ms)

    async def _read(
        self, device_id: int, function: ReadFunction, address: int, count: int, min_gap_ms: int
    ) -> WordsRead:
        client, gate = await self._port.connected()
        await self._wait_for_quiet(gate, device_id, min_gap_ms / 1000)
        unit = self._units.get(device_id) or self._units.setdefault(device_id, UnitTiming())
        wire_s = self._endpoint.wire_s(_REQUEST_BYTES + _ANSWER_OVERHEAD + 2 * count)
        timeout_s = unit.timeout_s + wire_s
        read = _Read(device_id, function, address, count, _now_s(), wire_s, timeout_s)
        self._last = read
        try:
            answer = await self._transact(client, gate, read)
        except MeterTimeoutError:
            # Waited for here, so that the caller sees what a silent meter costs the bus.
            await self._wait_for_quiet(gate, None, 0.0)
            raise
        self._silent = 0
        self._port.answered()
        if answer[0] & _EXCEPTION:
            raise self._refusal(read, answer[1])
        unit.answered(gate.last_byte_s - read.sent_s - wire_s)
        return WordsRead(words=struct.unpack_from(f">{count}H", answer, 2), at=gate.answered_at)

    async def close(self) -> None:
        """See `MeterBus.close`."""
        self._port.drop()
        # A TCP transport frees its socket one turn of the loop after it was closed.
        await asyncio.sleep(0)

    async def _transact(self, client: Client, gate: AnswerGate, read: _Read) -> bytes:
        """Send one request and return the answer's PDU; otherwise leave the bus quiet."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bytes] = loop.create_future()
        self._answer = answer
        timer = loop.call_later(read.timeout_s, self._fail, TimeoutError())
        try:
            if client.connected:
                client.ctx.send(gate.ask(read.unit, read.pdu))
            else:
                self._fail(ConnectionError("the connection was lost before the request"))
            return await answer
        except ConnectionError as exc:
            self._port.drop()
            self._give_up(gate, read)
            raise BusDownError(f"{self._endpoint} was lost during a request") from exc
        except (TimeoutError, WrongAnswerError) as exc:
            self._units[read.unit].missed()
            error = self._unanswered(gate, read, exc)
            self._give_up(gate, read)
            raise error from exc
        except asyncio.CancelledError:
            self._give_up(gate, read)
            raise
        finally:
            timer.cancel()
            self._answer = None

    def _give_up(self, gate: AnswerGate, read: _Read) -> None:
        gate.give_up()
        if not self._port.is_open and self._endpoint.kind == "tcp":
            return  # nothing is under way on the next connection
        # A numbered answer is known by its number; one that came broken will not come again.
        owed = self._endpoint.kind != "tcp" and len(gate.heard) < read.answer_bytes
        usual_s = self._units[read.unit].usual_s + read.wire_s
        self._quiet.missed(
            read.unit, sent_s=read.sent_s, now_s=_now_s(), timeout_s=usual_s, owed=owed
        )

    def _unanswered(self, gate: AnswerGate, read: _Read, exc: Exception) -> MeterTimeoutError:
        self._silent += 1
        if self._silent >= _SILENT_LIMIT:
            self._silent = 0
            self._port.drop()
        heard: Heard = "nothing"
        seen = "silence; check power, wiring, device id and baud rate"
        if isinstance(exc, WrongAnswerError):
            heard, seen = exc.heard, str(exc)
        elif gate.heard:
            other = self._endpoint.kind != "tcp" and frame_of_another(gate.heard, read.unit)
            heard = "other_unit" if other else "garbage"
            seen = f"{len(gate.heard)} bytes came, with no true answer in them"
        what = f"{read} on {self._endpoint}, {read.timeout_s:.1f} s: {seen}"
        return MeterTimeoutError(what, heard)

    def _refusal(self, read: _Read, code: int) -> MeterRefusedError | MeterBusyError:
        what = f"{read} on {self._endpoint}: exception {code}"
        return MeterRefusedError(what, code) if code in _REFUSALS else MeterBusyError(what, code)

    async def _wait_for_quiet(self, gate: AnswerGate, unit: int | None, min_gap_s: float) -> None:
        gap_s = max(self._endpoint.gap_s, min_gap_s)
        now_s = _now_s()
        give_up_s = max(self._quiet.until_s(unit), now_s + gap_s) + _BABBLE_S
        while now_s < give_up_s:
            wait_s = max(self._quiet.until_s(unit), gate.last_byte_s + gap_s) - now_s
            if wait_s <= 0:
                return
            await asyncio.sleep(min(wait_s, _LOOK_AGAIN_S))
            now_s = _now_s()

    def _new_gate(self) -> AnswerGate:
        parse = MbapRequest if self._endpoint.kind == "tcp" else RtuRequest
        return AnswerGate(
            self._clock, _now_s, parse, self._on_answer, self._fail, self._on_late_answer
        )

    def _on_answer(self, answer: bytes) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    def _on_late_answer(self) -> None:
        read = self._last
        if read is not None:
            self._quiet.paid(read.unit)
            self._units[read.unit].answered(_now_s() - read.sent_s - read.wire_s)

    def _fail(self, error: Exception) -> None:
        """End the request in flight now."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
