"""Finds the true answer to the last request among the bytes that pymodbus receives.

pymodbus itself takes a wrong number of registers, another function and transaction id 0 for an
answer, and throws a good frame away when noise or a foreign frame came before it. So the bytes
are taken from its `trace_packet` hook, and nothing of them is left to it.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from gridtokenx_agent.adapters.rtu_framing import RtuRequest
from gridtokenx_agent.errors import Heard
from gridtokenx_agent.ports import Clock

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

    def pdu_of(self, answer: bytes) -> bytes:
        """Return what is in the frame of an answer: the function and what follows it."""
        ...


@dataclass(frozen=True, slots=True)
class MbapRequest:
    """A Modbus TCP request; the transaction id ties an answer to it."""

    frame: bytes

    @classmethod
    def build(cls, number: int, unit: int, pdu: bytes) -> "MbapRequest":
        """Return the request with this transaction id."""
        return cls(_HEADER.pack(number, 0, 1 + len(pdu)) + bytes((unit,)) + pdu)

    def pdu_of(self, answer: bytes) -> bytes:
        """See `Request.pdu_of`."""
        return answer[_HEADER.size + 1 :]

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
    """pymodbus's `trace_packet`: knows the request, hands its answer on, stamps its last byte.

    Attributes:
        last_byte_s: When a byte last moved in either direction, on the event loop's clock.
        answered_at: When the last answer was whole.
        heard: What came since the request, without its echo.
    """

    def __init__(
        self,
        clock: Clock,
        loop_time: Callable[[], float],
        requests: type[RtuRequest] | type[MbapRequest],
        on_answer: Callable[[bytes], None],
        on_wrong: Callable[[WrongAnswerError], None],
        on_late: Callable[[], None],
    ) -> None:
        self._clock = clock
        self._loop_time = loop_time
        self._requests = requests
        self._on_answer = on_answer
        self._on_wrong = on_wrong
        self._on_late = on_late
        self._number = 0
        self._request: Request | None = None
        self._given_up: Request | None = None
        self.last_byte_s = loop_time()
        self.answered_at = clock.now()
        self.heard = b""

    def ask(self, unit: int, pdu: bytes) -> bytes:
        """Return the frame of a new request; what comes from now on may be its answer."""
        self._number = self._number % 0xFFFF + 1
        self._request = request = self._requests.build(self._number, unit, pdu)
        self._given_up = None
        self.heard = b""
        self.last_byte_s = self._loop_time()
        return request.frame

    def __call__(self, sending: bool, data: bytes) -> bytes:
        """Take all bytes received since the request; pymodbus gets none of them."""
        if sending:
            return data
        self.last_byte_s = self._loop_time()
        request = self._request or self._given_up
        if request is not None:
            self._look_into(request, data)
        return b""

    def give_up(self) -> None:
        """Let nothing through until the next request; only tell when the late answer came."""
        self._request, self._given_up = None, self._request

    def _look_into(self, request: Request, data: bytes) -> None:
        self.heard = data.removeprefix(request.frame)
        try:
            answer = request.find_answer(data)
        except WrongAnswerError as exc:
            self._request = self._given_up = None
            self._on_wrong(exc)
            return
        if answer is None:
            return
        late = self._request is None
        self._request = self._given_up = None
        if late:
            self._on_late()
            return
        self.answered_at = self._clock.now()
        self._on_answer(request.pdu_of(answer))
