"""One simulated meter: its registers, its answers, and what may be wrong with it."""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from gridtokenx_agent.profiles import MeterProfile, plan_blocks
from gridtokenx_agent.registers import encode

PointValues = Mapping[str, Decimal | str | None]
"""Value of each point in the profile's unit; None and a missing name read "not available"."""

_ILLEGAL_FUNCTION: Final = 1
_ILLEGAL_ADDRESS: Final = 2
_ILLEGAL_VALUE: Final = 3
_REQUEST: Final = struct.Struct(">BHH")


@dataclass(slots=True, kw_only=True)
class Faults:
    """What is wrong with a simulated meter; may be changed while it runs.

    Attributes:
        silent: Answers nothing.
        delay_ms: Answers so much later; what came meanwhile is answered afterwards.
        corrupt_crc: Spoils the last byte of an answer.
        echo: The adapter sends every request back before the answer.
        truncate: So many bytes are missing at the end of an answer.
        wrong_unit: Answers as the next unit.
        wrong_function: Answers with the other read function.
        noise: Bytes that come before an answer.
        exception: Answers every request with this Modbus exception.
        refuse_gaps: Registers between two points are refused, as some meters do.
    """

    silent: bool = False
    delay_ms: int = 0
    corrupt_crc: bool = False
    echo: bool = False
    truncate: int = 0
    wrong_unit: bool = False
    wrong_function: bool = False
    noise: bytes = b""
    exception: int | None = None
    refuse_gaps: bool = False


class MeterSimulator:
    """A meter that answers register reads as its profile describes it."""

    def __init__(
        self,
        profile: MeterProfile,
        registers: Callable[[], PointValues],
        faults: Faults | None = None,
    ) -> None:
        self._profile = profile
        self._registers = registers
        self.faults = faults or Faults()

    def answer(self, pdu: bytes) -> bytes:
        """Return the answer to one request, both without unit and check sum."""
        function = pdu[0]
        if self.faults.exception is not None:
            return _exception(function, self.faults.exception)
        if len(pdu) != _REQUEST.size or function not in (3, 4):
            return _exception(function, _ILLEGAL_FUNCTION)
        _, address, count = _REQUEST.unpack(pdu)
        if not 1 <= count <= self._profile.max_registers:
            return _exception(function, _ILLEGAL_VALUE)
        image = self._image(function)
        try:
            words = [image[register] for register in range(address, address + count)]
        except KeyError:
            return _exception(function, _ILLEGAL_ADDRESS)
        shown = 7 - function if self.faults.wrong_function else function
        return struct.pack(f">BB{count}H", shown, 2 * count, *words)

    def _image(self, function: int) -> dict[int, int]:
        """Return all registers that *function* reads, at one moment."""
        names = [*self._profile.points, "identity"]
        values = self._registers()
        image: dict[int, int] = {}
        for block in plan_blocks(self._profile, names):
            if block.function != function:
                continue
            if not self.faults.refuse_gaps:
                image |= dict.fromkeys(range(block.address, block.address + block.count), 0)
            for name, point in block.points:
                for offset, word in enumerate(encode(values.get(name), point)):
                    image[point.address + offset] = word
        return image


def _exception(function: int, code: int) -> bytes:
    return bytes((function | 0x80, code))
