"""Lets nothing but the true answer to the last request reach pymodbus.

pymodbus takes a wrong number of registers, another function and transaction id 0 for an answer,
and throws a good frame away when noise or a foreign frame came before it. Its `trace_packet` hook
may replace the received bytes, so the search for the answer is done there.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from gridtokenx_agent.adapters.rtu_framing import RtuRequest
from gridtokenx_agent.errors import Heard
from gridtokenx_agent.ports import Clock, Instant

_HEADER: Final = struct.Struct(">HHH")
_SMALLEST_FRAME: Final = 9
"""Header, unit, function, one byte."""
_LENGTHS: Final = range(3, 255)


class WrongAnswerError(Exception):
    """The answer to this very request came, and is not what was asked for.

    Attributes:
        heard: Whether another unit spoke, or this one said something else.
    """

    def __init__(self, message: str, heard: Heard = "other_answer") -> None:
        super().__init__(message)
        self.heard: Heard = heard


class Request(Protocol):
    """A request that knows its answer."""

    @property
    def frame(self) -> bytes:
        """The bytes that were sent."""
        ...

    def find_answer(self, received: bytes) -> bytes | None:
        """Return the answer within *received*; None while there is none."""
        ...


@dataclass(frozen=True, slots=True)
class MbapRequest:
    """A Modbus TCP request; the transaction id ties an answer to it."""

    frame: bytes

    def find_answer(self, received: bytes) -> bytes | None:
        """Return the answer with this request's transaction id, skipping late and broken ones.

        Raises:
            WrongAnswerError: Other unit, function or length under our transaction id.
        """
        start = 0
        while len(received) - start >= _SMALLEST_FRAME:
            transaction, protocol, length = _HEADER.unpack_from(received, start)
            if protocol != 0 or length not in _LENGTHS:
                start += 1
                continue
            frame = received[start : start + _HEADER.size + length]
            if len(frame) < _HEADER.size + length:
                return None
            if transaction == int.from_bytes(self.frame[:2]):
                self._check(frame[_HEADER.size :])
                return frame
            start += len(frame)
        return None

    def _check(self, answer: bytes) -> None:
        unit, function = self.frame[6], self.frame[7]
        byte_count = 2 * int.from_bytes(self.frame[10:12])
        if answer[0] != unit:
            raise WrongAnswerError(f"unit {answer[0]} answered for unit {unit}", "other_unit")
        if answer[1] == function | 0x80 and len(answer) == 3:
            return
        if answer[1] != function:
            raise WrongAnswerError(f"function {answer[1]} answered a request for {function}")
        if answer[2] != byte_count or len(answer) != 3 + byte_count:
            raise WrongAnswerError(f"{len(answer) - 3} data bytes came, {byte_count} were asked")


class AnswerGate:
    """pymodbus's `trace_packet`: remembers the request, passes its answer, stamps its last byte.

    Attributes:
        last_byte_s: When a byte last moved in either direction, on the event loop's clock.
        answered_at: When the answer was whole; None while it is not.
        heard: What came since the request, without its echo.
    """

    def __init__(
        self,
        clock: Clock,
        loop_time: Callable[[], float],
        parse: type[RtuRequest] | type[MbapRequest],
        on_wrong: Callable[[WrongAnswerError], None],
        on_late: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._loop_time = loop_time
        self._parse = parse
        self._on_wrong = on_wrong
        self._on_late = on_late
        self._request: Request | None = None
        self._given_up: Request | None = None
        self.last_byte_s = loop_time()
        self.answered_at: Instant | None = None
        self.heard = b""

    def __call__(self, sending: bool, data: bytes) -> bytes:
        """Take a request on its way out, or all bytes received since it."""
        self.last_byte_s = self._loop_time()
        if sending:
            self._request = self._parse(data)
            self._given_up = None
            self.answered_at = None
            self.heard = b""
            return data
        request = self._request or self._given_up
        return self._answer_in(request, data) if request else b""

    def give_up(self) -> None:
        """Let nothing through until the next request; only tell when the late answer came."""
        self._request, self._given_up = None, self._request

    def _answer_in(self, request: Request, data: bytes) -> bytes:
        self.heard = data.removeprefix(request.frame)
        try:
            answer = request.find_answer(data)
        except WrongAnswerError as exc:
            self._request = self._given_up = None
            self._on_wrong(exc)
            return b""
        if answer is None:
            return b""
        late = self._request is None
        self._request = self._given_up = None
        if late:
            self._on_late()
            return b""
        self.answered_at = self._clock.now()
        return answer
