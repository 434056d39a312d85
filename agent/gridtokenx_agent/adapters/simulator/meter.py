"""One simulated meter: its registers, its answers, and what may be wrong with it."""

import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Final

from gridtokenx_agent.adapters.simulator.faults import Faults
from gridtokenx_agent.adapters.simulator.sunspec import as_device, scale_power
from gridtokenx_agent.adapters.simulator.values import PointValues as PointValues
from gridtokenx_agent.profiles import MODEL_REGISTER, MeterProfile, PointSpec, plan_blocks
from gridtokenx_agent.profiles.sunspec import MODEL_HEADER
from gridtokenx_agent.registers import encode

_ILLEGAL_FUNCTION: Final = 1
_ILLEGAL_ADDRESS: Final = 2
_ILLEGAL_VALUE: Final = 3
_REQUEST: Final = struct.Struct(">BHH")


class MeterSimulator:
    """A meter that answers register reads as its profile describes it."""

    def __init__(
        self,
        profile: MeterProfile,
        registers: Callable[[], PointValues],
        faults: Faults | None = None,
    ) -> None:
        self._profile, self._models = as_device(profile)
        self._registers = registers
        self._asked = 0
        self.faults = faults or Faults()

    def reacts(self) -> bool:
        """Count one request, and return whether the meter answers it at all."""
        self._asked += 1
        faults = self.faults
        if faults.silent_after is not None and self._asked > faults.silent_after:
            return False
        lost = faults.lose_every is not None and self._asked % faults.lose_every == 0
        return not (faults.silent or lost)

    def answer(self, pdu: bytes) -> bytes:
        """Return the answer to one request, both without unit and check sum."""
        function = pdu[0]
        if self.faults.exception is not None:
            return _exception(function, self.faults.exception)
        if len(pdu) != _REQUEST.size or function not in (3, 4):
            return _exception(function, _ILLEGAL_FUNCTION)
        _, address, count = _REQUEST.unpack(pdu)
        if not 1 <= count <= self._longest:
            return _exception(function, _ILLEGAL_VALUE)
        image = self._image(function)
        try:
            words = [image[register] for register in range(address, address + count)]
        except KeyError:
            return _exception(function, _ILLEGAL_ADDRESS)
        return self._shown(function, words)

    @property
    def _longest(self) -> int:
        return min(self._profile.max_registers, self.faults.refuse_over or 125)

    def _shown(self, function: int, words: list[int]) -> bytes:
        faults = self.faults
        if faults.stuck is not None:
            words = [faults.stuck if place % 2 == 0 else 0 for place in range(len(words))]
        if faults.wrong_count is not None:
            words = (words + [0] * faults.wrong_count)[: faults.wrong_count]
        data = struct.pack(f">{len(words)}H", *words)
        if faults.odd_bytes:
            data = data[:-1]
        shown = 7 - function if faults.wrong_function else function
        return bytes((shown, (len(data) + faults.lie) & 0xFF)) + data

    def _image(self, function: int) -> dict[int, int]:
        """Return all registers that *function* reads, at one moment."""
        names = [*self._profile.points, "identity", MODEL_REGISTER]
        values = dict(self._registers())
        register = self._profile.model_register
        if register is not None:
            says = register.says[0]
            values[MODEL_REGISTER] = says if register.is_text else Decimal(says)
        image: dict[int, int] = {}
        shown: dict[int, int] = {}
        for block in plan_blocks(self._profile, names):
            if block.function != function:
                continue
            if not self.faults.refuse_gaps:
                image |= dict.fromkeys(range(block.address, block.address + block.count), 0)
            for name, point in block.points:
                if name != MODEL_HEADER:
                    power = scale_power(self._profile, point.unit, values)
                    shown |= _registers_of(point, values.get(name), power)
        models = self._models if function == self._profile.function else {}
        return image | models | shown


def _registers_of(point: PointSpec, value: Decimal | str | None, power: int) -> dict[int, int]:
    """Return the registers of one value and of its scale factor, not those between them."""
    words = encode(value, point, power)
    places = {*range(point.size), point.count - 1}
    return {point.address + place: words[place] for place in places}


def _exception(function: int, code: int) -> bytes:
    return bytes((function | 0x80, code))
