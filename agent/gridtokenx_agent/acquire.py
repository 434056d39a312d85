"""Reads the meters of one bus and records what they say; one task per bus."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from gridtokenx_agent.clock import elapsed_ms
from gridtokenx_agent.counters import (
    Accepted,
    Doubt,
    Doubted,
    EpochReason,
    Limits,
    RawReading,
    Rejected,
    Restarted,
    judge,
    settle,
)
from gridtokenx_agent.errors import AgentError, BusDownError, MeterRefusedError, TransientError
from gridtokenx_agent.health import (
    Unit,
    UnitState,
    answered,
    failed,
    pause_ms,
    probe_at_ms,
    probe_gap_ms,
)
from gridtokenx_agent.ports import Clock, Instant, MeterBus
from gridtokenx_agent.reader import MeterReader, Reading
from gridtokenx_agent.recorder import Recorder
from gridtokenx_agent.schedule import (
    Kind,
    Plan,
    after_sample,
    after_slot,
    choose,
    expire,
    first_plan,
    is_late,
    realign,
)
from gridtokenx_wire.record import Quality

REPEAT_AFTER_MS = 1000
LONGEST_WAIT_MS = 10_000
_SHORTEST_PERIOD_MS = 1000
_LONGEST_PERIOD_MS = 60_000
_NO_VALUE = "EnergyNotAvailable"
_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Meter:
    """One meter as its bus task knows it.

    Attributes:
        mints: Its profile may make slot records; otherwise its slots become samples.
        check_identity: Ask the identity register with the next slot.
        refused_answers: Answers in a row that could not be used.
        told: A refused value was told, and no good one came since.
    """

    meter_id: str
    reader: MeterReader
    recorder: Recorder
    limits: Limits
    plan: Plan
    unit: Unit
    mints: bool = True
    check_identity: bool = True
    refused_answers: int = 0
    told: bool = False


def plan_meter(
    meter_id: str,
    reader: MeterReader,
    recorder: Recorder,
    limits: Limits,
    *,
    interval_s: int,
    sample_s: int,
    at: Instant,
    mints: bool = True,
) -> Meter:
    """Return a meter that is first read at its next slot edge."""
    period_ms = min(interval_s, sample_s or interval_s) * 1000
    plan = first_plan(at, interval_s, sample_s)
    return Meter(
        meter_id=meter_id,
        reader=reader,
        recorder=recorder,
        limits=limits,
        plan=replace(plan, missed=_was_away(recorder, plan, at)),
        mints=mints,
        unit=Unit(
            answered_ms=at.mono_ms,
            period_ms=max(_SHORTEST_PERIOD_MS, min(period_ms, _LONGEST_PERIOD_MS)),
        ),
    )


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
            if meter.recorder.stalled:
                await meter.recorder.flush(now)
        choice = choose(self._plans(now.mono_ms), now.mono_ms)
        if choice.at_ms > now.mono_ms:
            await self._clock.sleep_until(min(choice.at_ms, now.mono_ms + LONGEST_WAIT_MS))
            return
        meter = self._meters[choice.index]
        try:
            await (self._slot(meter) if choice.kind is Kind.SLOT else self._sample(meter))
        except (TransientError, MeterRefusedError) as exc:
            await self._failure(meter, choice.kind, now, exc)

    def _plans(self, now_ms: int) -> list[Plan]:
        """Return what each meter waits for; a dead one also for a gap between the others."""
        dead = [meter.unit.state is UnitState.DOWN for meter in self._meters]
        live = [meter.plan for meter, gone in zip(self._meters, dead, strict=True) if not gone]
        live_ms = min((next_ms(plan) for plan in live), default=now_ms + LONGEST_WAIT_MS)
        return [
            self._gated(meter.plan, now_ms, live_ms) if gone else meter.plan
            for meter, gone in zip(self._meters, dead, strict=True)
        ]

    def _gated(self, plan: Plan, now_ms: int, live_ms: int) -> Plan:
        open_ms = max(next_ms(plan), self._probe_from_ms)
        gate_ms = probe_at_ms(open_ms, now_ms, live_ms, self._probe_cost_ms)
        return replace(plan, not_before_ms=gate_ms)

    async def _slot(self, meter: Meter) -> None:
        identity = meter.check_identity or meter.plan.interval_s >= 60
        reading = await meter.reader.read_slot(identity=identity)
        await self._success(meter, reading.at)
        await self._identify(meter, reading, asked=identity)
        if not meter.mints:
            meter.plan = after_slot(meter.plan, self._clock.now())
            await meter.recorder.sample(reading.at, 0, reading.flags, reading.live)
            return
        if reading.energy is None:
            await self._refuse(meter, _NO_VALUE, reading.fault, reading.at)
            return
        verdict = judge(meter.recorder.state.counter, reading.energy, meter.limits)
        if isinstance(verdict, Doubted):
            await self._repeat(meter, verdict.doubt, reading, reading.energy)
            return
        meter.told = False
        await self._record(meter, verdict, reading)

    async def _repeat(
        self, meter: Meter, doubt: Doubt, reading: Reading, first: RawReading
    ) -> None:
        """Ask twice more, a second apart, before a doubted value is judged."""
        last = meter.recorder.state.counter
        repeats: list[RawReading] = []
        for _ in range(2):
            await self._clock.sleep_until(self._clock.now().mono_ms + REPEAT_AFTER_MS)
            again = await meter.reader.read_energy()
            if again.energy is None:
                await self._refuse(meter, _NO_VALUE, again.fault, again.at)
                return
            repeats.append(again.energy)
        if last is None:
            return
        verdict = settle(last, doubt, (first, repeats[0], repeats[1]), meter.limits)
        said = (
            f"said {first.import_wh} import, {first.export_wh} export Wh "
            f"after {last.import_.raw_wh}, {last.export.raw_wh}"
        )
        if doubt is Doubt.LEAP:
            said += "; if that is right, raise rated_power_w"
        if isinstance(verdict, Rejected):
            await self._refuse(meter, doubt, said, first.at)
        elif isinstance(verdict, Restarted):
            meter.recorder.count_refusal(doubt)
            await self._restart(meter, EpochReason.COUNTER_RESET, said, first.at)
            await self._record(meter, Accepted(counter=verdict.counter), reading)
        else:
            await self._accept_repeat(meter, verdict, reading, said)

    async def _accept_repeat(
        self, meter: Meter, verdict: Accepted, reading: Reading, said: str
    ) -> None:
        if verdict.doubt is None:
            await meter.recorder.event("CounterTurnedOver", said, verdict.counter.at)
        else:
            await self._tell(meter, verdict.doubt, said, verdict.counter.at)
            meter.told = False
        await self._record(meter, verdict, reading, Quality.RE_READ)

    async def _record(
        self, meter: Meter, verdict: Accepted, reading: Reading, flags: Quality = Quality.NONE
    ) -> None:
        plan = meter.plan
        at = verdict.counter.at
        flags |= reading.flags
        if plan.missed:
            flags |= Quality.MISSED_SLOTS
        if is_late(plan, at.mono_ms):
            flags |= Quality.LATE_SLOT
        meter.plan = after_slot(plan, self._clock.now())
        meter.refused_answers = 0
        await meter.recorder.slot(verdict.counter, plan.interval_s, flags, reading.live)

    async def _identify(self, meter: Meter, reading: Reading, *, asked: bool) -> None:
        """Begin a new epoch when another meter answers at this address."""
        if not asked:
            return
        meter.check_identity = False
        known = meter.recorder.state.identity
        said = reading.identity
        if said is None or said == known:
            return
        meter.recorder.identify(said)
        if known:
            await self._restart(
                meter, EpochReason.METER_EXCHANGED, f"identity {said} after {known}", reading.at
            )

    async def _restart(self, meter: Meter, reason: EpochReason, detail: str, at: Instant) -> None:
        _log.warning(
            "new epoch", extra={"meter_id": meter.meter_id, "reason": reason, "detail": detail}
        )
        meter.told = False
        await meter.recorder.start_epoch(reason, detail, at)

    async def _refuse(self, meter: Meter, code: str, detail: str, at: Instant) -> None:
        """Record nothing, keep the base, and try again within the slot."""
        meter.refused_answers += 1
        pause = max(REPEAT_AFTER_MS, pause_ms(meter.refused_answers))
        meter.plan = replace(meter.plan, not_before_ms=self._clock.now().mono_ms + pause)
        await self._tell(meter, code, detail, at)

    async def _tell(self, meter: Meter, code: str, detail: str, at: Instant) -> None:
        meter.recorder.count_refusal(code)
        if meter.told:
            return
        meter.told = True
        _log.warning(
            "value rejected", extra={"meter_id": meter.meter_id, "rule": code, "detail": detail}
        )
        await meter.recorder.event("ValueRejected", f"{code}: {detail}", at)

    async def _sample(self, meter: Meter) -> None:
        reading = await meter.reader.read_live()
        await self._success(meter, reading.at)
        meter.plan = after_sample(meter.plan, self._clock.now())
        await meter.recorder.sample(reading.at, meter.plan.sample_s, reading.flags, reading.live)

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


def _was_away(recorder: Recorder, plan: Plan, at: Instant) -> bool:
    """Return whether a slot edge passed since the last slot of an earlier run."""
    last = recorder.state.counter
    gap_ms = None if last is None else elapsed_ms(last.at, at)
    return gap_ms is not None and gap_ms > 2 * plan.interval_s * 1000
