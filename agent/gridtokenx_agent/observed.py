"""Ports with a counter in front: what the agent does, seen from outside of the doers."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gridtokenx_agent.counters import MeterState
from gridtokenx_agent.errors import AgentError, BufferFullError
from gridtokenx_agent.ports import Clock, MeterBus, NewRow, ReadFunction, RecordBuffer, WordsRead

Listener = Callable[[MeterState, Sequence[NewRow]], None]


@dataclass(slots=True, kw_only=True)
class Tally:
    """What happened since the start.

    Attributes:
        records: Committed records by (meter, kind).
        rejects: Refused values by (meter, rule).
        units: State of each meter.
        transactions: Reads of a bus by (bus, outcome): ok, or the name of the error.
        bus_ms: Time a bus was busy, by bus.
        commit_failures: Commits the disk did not take.
    """

    records: Counter[tuple[str, str]] = field(default_factory=Counter)
    rejects: Counter[tuple[str, str]] = field(default_factory=Counter)
    units: dict[str, str] = field(default_factory=dict)
    transactions: Counter[tuple[str, str]] = field(default_factory=Counter)
    bus_ms: Counter[str] = field(default_factory=Counter)
    commit_failures: int = 0


class ObservedBuffer:
    """`RecordBuffer` that counts what was committed, and tells it on."""

    def __init__(self, buffer: RecordBuffer, tally: Tally) -> None:
        self._buffer = buffer
        self._tally = tally
        self.listener: Listener | None = None

    async def states(self) -> dict[str, MeterState]:
        """See `RecordBuffer.states`."""
        return await self._buffer.states()

    async def commit(
        self, state: MeterState, rows: Sequence[NewRow], refusals: Mapping[str, int]
    ) -> None:
        """See `RecordBuffer.commit`."""
        try:
            await self._buffer.commit(state, rows, refusals)
        except BufferFullError:
            self._tally.commit_failures += 1
            raise
        meter_id = state.meter_id
        self._tally.units[meter_id] = state.unit
        for row in rows:
            self._tally.records[meter_id, row.kind] += 1
        for code, count in refusals.items():
            self._tally.rejects[meter_id, code] += count
        if self.listener is not None:
            # Later, and apart: what is committed must not count as failed because it is not shown.
            asyncio.get_running_loop().call_soon(self.listener, state, tuple(rows))


class ObservedBus:
    """`MeterBus` that counts its transactions."""

    def __init__(self, bus: MeterBus, name: str, clock: Clock, tally: Tally) -> None:
        self._bus = bus
        self._name = name
        self._clock = clock
        self._tally = tally

    async def read_words(
        self, device_id: int, function: ReadFunction, address: int, count: int, min_gap_ms: int
    ) -> WordsRead:
        """See `MeterBus.read_words`."""
        began_ms = self._clock.now().mono_ms
        outcome = "ok"
        try:
            return await self._bus.read_words(device_id, function, address, count, min_gap_ms)
        except AgentError as exc:
            outcome = type(exc).__name__.removesuffix("Error")
            raise
        finally:
            self._tally.transactions[self._name, outcome] += 1
            self._tally.bus_ms[self._name] += self._clock.now().mono_ms - began_ms

    async def close(self) -> None:
        """See `MeterBus.close`."""
        await self._bus.close()
