"""Reads the meters of one bus and records what they say; one task per bus."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from gridtokenx_agent.errors import AgentError, BusDownError, MeterRefusedError, TransientError
from gridtokenx_agent.examiner import Examiner
from gridtokenx_agent.examiner import Meter as Meter
from gridtokenx_agent.examiner import plan_meter as plan_meter
from gridtokenx_agent.health import (
    UnitState,
    answered,
    failed,
    pause_ms,
    probe_at_ms,
    probe_gap_ms,
)
from gridtokenx_agent.ports import Clock, Instant, MeterBus
from gridtokenx_agent.schedule import Kind, Plan, after_sample, choose, expire, realign

LONGEST_WAIT_MS = 10_000
LONGEST_BUS_PAUSE_MS = 5_000
"""So soon an adapter that was pulled is seen to be back."""
_log = logging.getLogger(__name__)


class BusLoop:
    """Everything that happens on one serial port or TCP endpoint."""

    def __init__(
        self,
        name: str,
        bus: MeterBus,
        meters: tuple[Meter, ...],
        clock: Clock,
        beat: Callable[[str, int], None],
    ) -> None:
        self.name = name
        self._bus = bus
        self._meters = meters
        self._clock = clock
        self._examiner = Examiner(clock)
        self._beat = beat
        self._probe_from_ms = 0
        self._probe_cost_ms = 0
        self._bus_down = False

    async def run(self) -> None:
        """Read until cancelled; what is pending is committed before the bus is given back."""
        try:
            for meter in self._meters:
                await meter.recorder.open(self._clock.now())
            while True:
                await self.step()
        finally:
            for meter in self._meters:
                await meter.recorder.flush(self._clock.now())
            await self._bus.close()

    async def step(self) -> None:
        """Do the next thing that is due, or wait for it."""
        now = self._clock.now()
        self._beat(self.name, now.mono_ms)
        for meter in self._meters:
            meter.plan = realign(expire(meter.plan, now), now)
        flush_ms = await self._flush(now)
        choice = choose(self._plans(now.mono_ms), now.mono_ms)
        if choice.at_ms > now.mono_ms:
            await self._clock.sleep_until(min(choice.at_ms, flush_ms))
            return
        meter = self._meters[choice.index]
        try:
            await (self._slot(meter) if choice.kind is Kind.SLOT else self._sample(meter))
        except (TransientError, MeterRefusedError) as exc:
            await self._failure(meter, choice.kind, now, exc)
        except AgentError:
            raise
        except Exception as exc:  # noqa: BLE001 - what one meter says must not cost the others theirs
            _log.exception("defect while a meter was read", extra={"meter_id": meter.meter_id})
            await self._bus.close()
            defect = TransientError(f"defect in the agent: {exc!r}")
            await self._failure(meter, choice.kind, now, defect)

    async def _flush(self, now: Instant) -> int:
        """Commit everything that waits once something has waited long enough.

        All meters together: each commit costs an SD card the same, however many rows it has.

        Returns:
            Boot time by which to look again.
        """
        recorders = [meter.recorder for meter in self._meters]
        due = [recorder.due_ms for recorder in recorders if recorder.due_ms is not None]
        if due and min(due) <= now.mono_ms:
            await asyncio.gather(*(recorder.flush(now) for recorder in recorders))
            due = [recorder.due_ms for recorder in recorders if recorder.due_ms is not None]
        return min([*due, now.mono_ms + LONGEST_WAIT_MS])

    def _plans(self, now_ms: int) -> list[Plan]:
        """Return what each meter waits for; one that failed also for a gap between the others."""
        well = [meter.unit.state is UnitState.OK for meter in self._meters]
        live = [meter.plan for meter, is_well in zip(self._meters, well, strict=True) if is_well]
        live_ms = min((_next_ms(plan) for plan in live), default=now_ms + LONGEST_WAIT_MS)
        turn = self._turn(now_ms)
        return [
            meter.plan if is_well else self._gated(meter, now_ms, live_ms, turn)
            for meter, is_well in zip(self._meters, well, strict=True)
        ]

    def _turn(self, now_ms: int) -> Meter | None:
        """Return the dead meter that has waited longest since it was asked.

        There is room for few of them; else the first ones of the bus would have all of it, and
        one behind them that is alive again were never read.
        """
        dead = [meter for meter in self._meters if meter.unit.state is UnitState.DOWN]
        due = [meter for meter in dead if _due_ms(meter.plan) <= now_ms]
        return min(due, key=lambda meter: meter.plan.not_before_ms, default=None)

    def _gated(self, meter: Meter, now_ms: int, live_ms: int, turn: Meter | None) -> Plan:
        # One that failed once goes behind those that are due, and no further: it may be well.
        # The dead wait for a gap they fit in, and share a tenth of the bus.
        open_ms, cost_ms = meter.plan.not_before_ms, 0
        if meter.unit.state is UnitState.DOWN:
            open_ms, cost_ms = max(open_ms, self._probe_from_ms), self._probe_cost_ms
            if meter is not turn:
                open_ms = max(open_ms, now_ms + LONGEST_WAIT_MS)
        gate_ms = probe_at_ms(open_ms, now_ms, live_ms, cost_ms)
        return replace(meter.plan, not_before_ms=gate_ms)

    async def _slot(self, meter: Meter) -> None:
        identity = meter.check_identity or meter.plan.interval_s >= 60
        reading = await meter.reader.read_slot(identity=identity)
        await self._success(meter, reading.at)
        await self._examiner.slot(meter, reading, identified=identity)

    async def _sample(self, meter: Meter) -> None:
        reading = await meter.reader.read_live()
        await self._success(meter, reading.at)
        meter.plan = after_sample(meter.plan, self._clock.now())
        await self._examiner.sample(meter, reading)

    async def _success(self, meter: Meter, at: Instant) -> None:
        was = meter.unit.state
        meter.unit = answered(meter.unit, at.mono_ms)
        meter.plan = replace(meter.plan, not_before_ms=0)
        if self._bus_down:
            self._bus_down = False
            _log.info("bus is back", extra={"bus": self.name})
        if was is UnitState.DOWN:
            _log.info("meter answers again", extra={"meter_id": meter.meter_id})
            await meter.recorder.event("MeterUp", "", at, unit=UnitState.OK)

    async def _failure(self, meter: Meter, kind: Kind, started: Instant, exc: AgentError) -> None:
        now = self._clock.now()
        was = meter.unit.state
        meter.unit = failed(meter.unit, now.mono_ms)
        meter.check_identity = True
        if kind is Kind.SAMPLE:
            meter.plan = after_sample(meter.plan, now)
        pause = pause_ms(meter.unit.failures)
        if isinstance(exc, BusDownError):
            # Looking for a port costs the others nothing: none of them is read without it.
            pause = min(pause, LONGEST_BUS_PAUSE_MS)
        meter.plan = replace(meter.plan, not_before_ms=now.mono_ms + pause)
        self._log_failure(meter, exc)
        if meter.unit.state is UnitState.DOWN:
            self._probe_cost_ms = now.mono_ms - started.mono_ms
            self._probe_from_ms = now.mono_ms + probe_gap_ms(self._probe_cost_ms)
            if was is not UnitState.DOWN:
                await meter.recorder.event("MeterDown", str(exc), now, unit=UnitState.DOWN)

    def _log_failure(self, meter: Meter, exc: AgentError) -> None:
        """Tell once: a port that is gone for the bus, everything else for its meter."""
        if isinstance(exc, BusDownError):
            if not self._bus_down:
                self._bus_down = True
                _log.warning("bus is down", extra={"bus": self.name, "reason": str(exc)})
        elif meter.unit.failures == 1:
            _log.warning(
                "meter does not answer", extra={"meter_id": meter.meter_id, "reason": str(exc)}
            )


def _due_ms(plan: Plan) -> int:
    return plan.slot_ms if plan.sample_ms is None else min(plan.slot_ms, plan.sample_ms)


def _next_ms(plan: Plan) -> int:
    return max(_due_ms(plan), plan.not_before_ms)
