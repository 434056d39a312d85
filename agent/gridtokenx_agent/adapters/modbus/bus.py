"""`MeterBus` over pymodbus. pymodbus opens the port and builds requests; the rest is here."""

import asyncio
import logging
from typing import Final

from pymodbus import FramerType, ModbusException
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.exceptions import ConnectionException, ModbusIOException
from pymodbus.pdu import ExceptionResponse, ModbusPDU

from gridtokenx_agent.adapters.modbus.answers import AnswerGate, MbapRequest, WrongAnswerError
from gridtokenx_agent.adapters.modbus.endpoint import BusEndpoint, parse_bus_url
from gridtokenx_agent.adapters.modbus.timing import UnitTiming
from gridtokenx_agent.adapters.rtu_framing import RtuRequest
from gridtokenx_agent.errors import (
    BusDownError,
    MeterBusyError,
    MeterRefusedError,
    MeterTimeoutError,
)
from gridtokenx_agent.ports import Clock, ReadFunction, WordsRead

_Client = AsyncModbusSerialClient | AsyncModbusTcpClient

_CONNECT_TIMEOUT_S: Final = 3.0
_FIRST_BACKOFF_S: Final = 1.0
_LONGEST_BACKOFF_S: Final = {"rtu": 5.0, "rtu+tcp": 30.0, "tcp": 30.0}
_SILENT_LIMIT: Final = 3
"""So many requests in a row without an answer, and the port is opened anew: a half-open TCP
connection and a stuck USB adapter both look like dead meters."""
_BABBLE_S: Final = 1.0
"""Longest wait for a bus that never falls silent."""
_RECEIVE_LIMIT: Final = 4096
"""pymodbus drops all it has at 264 bytes: too few for an echo or a foreign frame before ours."""
_REFUSALS: Final = frozenset({1, 2, 3})


def open_bus(url: str, clock: Clock) -> "PymodbusBus":
    """Return the bus at *url*; the port is opened with the first read.

    Raises:
        ConfigError: Lists every fault of the URL.
    """
    # Each failure is raised as an error of ours; pymodbus would log it a second time.
    logging.getLogger("pymodbus").setLevel(logging.CRITICAL)
    return PymodbusBus(parse_bus_url(url), clock)


class PymodbusBus:
    """One serial port or TCP endpoint; one transaction at a time."""

    def __init__(self, endpoint: BusEndpoint, clock: Clock) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._lock = asyncio.Lock()
        self._units: dict[int, UnitTiming] = {}
        self._client: _Client | None = None
        self._gate: AnswerGate | None = None
        self._in_flight = False
        self._silent = 0
        self._quiet_until_s = 0.0
        self._backoff_s = _FIRST_BACKOFF_S
        self._next_connect_s = 0.0

    async def read_words(
        self, device_id: int, function: ReadFunction, address: int, count: int, min_gap_ms: int
    ) -> WordsRead:
        """See `MeterBus.read_words`."""
        async with self._lock:
            client, gate = await self._connected()
            await self._wait_for_quiet(gate, min_gap_ms / 1000)
            unit = self._units.setdefault(device_id, UnitTiming())
            wire_s = self._endpoint.wire_s(8 + 5 + 2 * count)
            timeout_s = unit.timeout_s + wire_s
            sent_s = _now_s()
            try:
                answer = await self._transact(
                    client, device_id, function, address, count, timeout_s
                )
            except MeterTimeoutError:
                unit.missed()
                raise
            self._silent = 0
            self._backoff_s = _FIRST_BACKOFF_S
            what = f"meter {device_id} on {self._endpoint}, registers {address:#06x}+{count}"
            if isinstance(answer, ExceptionResponse):
                raise _refusal(what, answer.exception_code)
            unit.answered(gate.last_byte_s - sent_s - wire_s)
            if len(answer.registers) != count or gate.answered_at is None:
                raise MeterTimeoutError(f"{what}: the answer is not what was asked for")
            return WordsRead(words=tuple(answer.registers), at=gate.answered_at)

    async def close(self) -> None:
        """See `MeterBus.close`."""
        self._drop()
        # A TCP transport frees its socket one turn of the loop after it was closed.
        await asyncio.sleep(0)

    async def _transact(
        self,
        client: _Client,
        device_id: int,
        function: ReadFunction,
        address: int,
        count: int,
        timeout_s: float,
    ) -> ModbusPDU:
        """Send one request; whatever ends it but a true answer leaves the bus quiet."""
        # One figure serves for every request of a client; under our lock it can be set per request.
        client.ctx.comm_params.timeout_connect = timeout_s
        read = client.read_holding_registers if function == 3 else client.read_input_registers
        answered = False
        self._in_flight = True
        try:
            answer = await read(address, count=count, device_id=device_id)
            answered = True
        except ConnectionException as exc:
            self._drop()
            raise BusDownError(f"{self._endpoint} was lost during a request") from exc
        except ModbusException as exc:
            raise self._unanswered(device_id, timeout_s, exc) from exc
        finally:
            self._in_flight = False
            if not answered:
                self._keep_quiet(timeout_s)
        return answer

    def _unanswered(
        self, device_id: int, timeout_s: float, exc: ModbusException
    ) -> MeterTimeoutError:
        received = self._gate.received if self._gate else 0
        self._silent += 1
        if self._silent >= _SILENT_LIMIT:
            self._silent = 0
            self._drop()
        if isinstance(exc.__cause__, WrongAnswerError):
            seen = str(exc.__cause__)
        elif received:
            seen = f"{received} bytes came, with no true answer in them"
        else:
            seen = "silent; check power, wiring, device id and baud rate"
        return MeterTimeoutError(
            f"meter {device_id} on {self._endpoint}, {timeout_s:.1f} s: {seen}"
        )

    def _keep_quiet(self, timeout_s: float) -> None:
        """Give a late answer time to come and be dropped.

        On a serial bus nothing ties an answer to its request: the next request of the same
        meter would take the late one for its own, and be one behind for ever.
        """
        self._quiet_until_s = _now_s() + 2 * timeout_s
        if self._gate is not None:
            self._gate.forget()

    async def _wait_for_quiet(self, gate: AnswerGate, min_gap_s: float) -> None:
        gap_s = max(self._endpoint.gap_s, min_gap_s)
        give_up_s = max(self._quiet_until_s, _now_s() + gap_s) + _BABBLE_S
        while _now_s() < give_up_s:
            wait_s = max(self._quiet_until_s, gate.last_byte_s + gap_s) - _now_s()
            if wait_s <= 0:
                return
            await asyncio.sleep(wait_s)

    async def _connected(self) -> tuple[_Client, AnswerGate]:
        if self._client is not None and self._gate is not None and self._client.connected:
            return self._client, self._gate
        self._drop()
        wait_s = self._next_connect_s - _now_s()
        if wait_s > 0:
            raise BusDownError(f"{self._endpoint} is not there; next try in {wait_s:.0f} s")
        await self._connect()
        if self._client is None or self._gate is None:
            raise BusDownError(f"{self._endpoint} was closed while it was opened")
        return self._client, self._gate

    async def _connect(self) -> None:
        """Open the port once; a failure makes the next attempt wait.

        pymodbus's own `connect` says only that it failed, and its reconnecting never begins
        unless a first connection was made, so both are done here.
        """
        gate = AnswerGate(self._clock, _now_s, self._request_type(), self._on_wrong_answer)
        client = self._new_client(gate)
        self._client, self._gate = client, gate
        try:
            client.ctx.transport, _ = await asyncio.wait_for(
                client.ctx.call_create(), _CONNECT_TIMEOUT_S
            )
        except (OSError, ValueError, TimeoutError) as exc:
            self._drop()
            self._next_connect_s = _now_s() + self._backoff_s
            self._backoff_s = min(2 * self._backoff_s, _LONGEST_BACKOFF_S[self._endpoint.kind])
            reason = str(exc) or f"no connection within {_CONNECT_TIMEOUT_S:g} s"
            raise BusDownError(f"{self._endpoint} cannot be opened: {reason}") from exc

    def _new_client(self, gate: AnswerGate) -> _Client:
        place = self._endpoint
        client: _Client
        if place.kind == "rtu":
            client = AsyncModbusSerialClient(
                place.host,
                baudrate=place.baudrate,
                parity=place.parity,
                stopbits=place.stopbits,
                reconnect_delay=0,
                retries=0,
                trace_packet=gate,
                trace_connect=self._on_connection,
            )
        else:
            client = AsyncModbusTcpClient(
                place.host,
                port=place.port,
                framer=FramerType.SOCKET if place.kind == "tcp" else FramerType.RTU,
                reconnect_delay=0,
                retries=0,
                trace_packet=gate,
                trace_connect=self._on_connection,
            )
        client.ctx.max_buffer_size = _RECEIVE_LIMIT
        client.set_max_no_responses(1_000_000)
        return client

    def _request_type(self) -> type[RtuRequest] | type[MbapRequest]:
        return MbapRequest if self._endpoint.kind == "tcp" else RtuRequest

    def _on_connection(self, there: bool) -> None:
        if not there:
            self._fail(ConnectionException("the connection was lost"))

    def _on_wrong_answer(self, wrong: WrongAnswerError) -> None:
        error = ModbusIOException(str(wrong))
        error.__cause__ = wrong
        self._fail(error)

    def _fail(self, error: ModbusException) -> None:
        """End the request in flight now; pymodbus would wait for its whole timeout."""
        if self._in_flight and self._client is not None:
            future = self._client.ctx.response_future
            if not future.done():
                future.set_exception(error)

    def _drop(self) -> None:
        client, self._client, self._gate = self._client, None, None
        if client is not None:
            client.close()


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _refusal(what: str, code: int) -> MeterRefusedError | MeterBusyError:
    if code in _REFUSALS:
        return MeterRefusedError(f"{what}: refused with exception {code}", code)
    return MeterBusyError(f"{what}: not now, exception {code}")
