"""A bus without wires: simulated meters answer at once, on a clock the test moves."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gridtokenx_agent.adapters.simulator import MeterSimulator
from gridtokenx_agent.errors import (
    BusDownError,
    MeterBusyError,
    MeterRefusedError,
    MeterTimeoutError,
)
from gridtokenx_agent.ports import Clock, Instant, WordsRead
from gridtokenx_agent.registers import ReadFunction
from gridtokenx_wire.record import ClockQuality

BOOT_ID = "0123456789abcdef" * 2


@dataclass
class SteadyClock:
    """A clock that stands still until it is moved; sleeping moves it."""

    mono_ms: int = 1_000_000
    wall_ms: int = 1_767_225_600_000
    quality: ClockQuality = ClockQuality.SYNCHRONISED

    def now(self) -> Instant:
        return Instant(
            boot_id=BOOT_ID, mono_ms=self.mono_ms, wall_ms=self.wall_ms, clock=self.quality
        )

    async def sleep_until(self, mono_ms: int) -> None:
        self.advance(max(0, mono_ms - self.mono_ms))

    def advance(self, elapsed_ms: int) -> None:
        self.mono_ms += elapsed_ms
        self.wall_ms += elapsed_ms


@dataclass
class FakeBus:
    """`MeterBus` over simulated meters by device id.

    Attributes:
        down: The port is not there.
        reads: Every read asked for: device id, function, address, count.
    """

    meters: Mapping[int, MeterSimulator]
    clock: Clock = field(default_factory=SteadyClock)
    down: bool = False
    reads: list[tuple[int, int, int, int]] = field(default_factory=list)

    async def read_words(
        self, device_id: int, function: ReadFunction, address: int, count: int, min_gap_ms: int
    ) -> WordsRead:
        self.reads.append((device_id, function, address, count))
        if self.down:
            raise BusDownError("the fake bus is down")
        meter = self.meters.get(device_id)
        if meter is None or meter.faults.silent:
            raise MeterTimeoutError(f"meter {device_id} is silent")
        pdu = bytes((function,)) + address.to_bytes(2) + count.to_bytes(2)
        answer = meter.answer(pdu)
        if answer[0] & 0x80:
            what = f"meter {device_id} answered exception {answer[1]}"
            refused = answer[1] <= 3
            raise (MeterRefusedError if refused else MeterBusyError)(what, answer[1])
        data = answer[2:]
        words = tuple(int.from_bytes(data[at : at + 2]) for at in range(0, len(data), 2))
        return WordsRead(words=words, at=self.clock.now())

    async def close(self) -> None:
        self.down = True
