"""Judges what one meter says and records it: good slots, refused values, new epochs."""

import logging
from dataclasses import dataclass, field, replace

from gridtokenx_agent.balance import Balance, compare, measured
from gridtokenx_agent.clock import elapsed_ms
from gridtokenx_agent.counters import (
    Accepted,
    Counter,
    Doubt,
    Doubted,
    EpochReason,
    Limits,
    RawReading,
    Rejected,
    Restarted,
    in_range,
    judge,
    settle,
    sleeps,
)
from gridtokenx_agent.health import Unit, pause_ms, state_at_start
from gridtokenx_agent.ports import Clock, Instant
from gridtokenx_agent.reader import MeterReader
from gridtokenx_agent.reading import Reading
from gridtokenx_agent.recorder import Recorder
from gridtokenx_agent.schedule import Plan, after_slot, first_plan, is_late
from gridtokenx_agent.validation import USUAL, Episode, Rule, Thresholds, again
from gridtokenx_wire.record import Quality

REPEAT_AFTER_MS = 1000
_SHORTEST_PERIOD_MS = 1000
_LONGEST_PERIOD_MS = 60_000
_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Meter:
    """One meter as its bus task knows it.

    Attributes:
        mints: Its profile may make slot records; otherwise its slots become samples.
        check_identity: Ask the identity register with the next slot.
        refused_answers: Answers in a row that could not be used.
        asleep_since_ms: Since when the counters stand at zero.
        balance: Power over time, to compare with the counters.
        episodes: How often each rule spoke lately.
    """

    meter_id: str
    reader: MeterReader
    recorder: Recorder
    limits: Limits
    thresholds: Thresholds
    plan: Plan
    unit: Unit
    mints: bool = True
    check_identity: bool = True
    refused_answers: int = 0
    asleep_since_ms: int | None = None
    balance: Balance | None = None
    episodes: dict[str, Episode] = field(default_factory=dict)


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
    thresholds: Thresholds = USUAL,
) -> Meter:
    """Return a meter that is first read at its next slot edge."""
    reader.thresholds = thresholds
    period_ms = min(interval_s, sample_s or interval_s) * 1000
    plan = first_plan(at, interval_s, sample_s)
    return Meter(
        meter_id=meter_id,
        reader=reader,
        recorder=recorder,
        limits=replace(
            limits,
            step_percent=thresholds.step_percent,
            zero_patience_ms=thresholds.zero_patience_ms,
        ),
        thresholds=thresholds,
        plan=replace(plan, missed=_was_away(recorder, plan, at)),
        mints=mints,
        unit=Unit(
            answered_ms=at.mono_ms,
            period_ms=max(_SHORTEST_PERIOD_MS, min(period_ms, _LONGEST_PERIOD_MS)),
            state=state_at_start(recorder.state.unit),
        ),
    )


class Examiner:
    """Decides about the answers of all meters of a bus, one at a time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def slot(self, meter: Meter, reading: Reading, *, identified: bool) -> None:
        """Take the answer at a slot's edge; *identified* tells that the identity was asked."""
        if identified and not await self._identify(meter, reading):
            return
        if not meter.mints:
            meter.plan = after_slot(meter.plan, self._clock.now())
            await self._note(meter, reading)
            await meter.recorder.sample(reading.at, reading.flags, reading.live)
            return
        if reading.energy is None:
            await self._refuse(meter, reading.rule, reading.fault, reading.at)
            return
        if not in_range(reading.energy, meter.limits):
            await self._refuse(meter, Rule.COUNTER_RANGE, _said(reading.energy), reading.at)
            return
        verdict = judge(meter.recorder.state.counter, reading.energy, meter.limits)
        if isinstance(verdict, Doubted):
            await self._repeat(meter, verdict.doubt, reading, reading.energy)
        else:
            await self._record(meter, verdict.counter, reading)

    async def sample(self, meter: Meter, reading: Reading) -> None:
        """Take an answer between slots."""
        await self._note(meter, reading)
        await meter.recorder.sample(reading.at, reading.flags, reading.live)

    async def _repeat(
        self, meter: Meter, doubt: Doubt, reading: Reading, first: RawReading
    ) -> None:
        """Ask twice more, a second apart, before a doubted value is judged."""
        last = meter.recorder.state.counter
        if last is None:
            return
        said = f"{_said(first)} after {last.import_.raw_wh}, {last.export.raw_wh}"
        if doubt is Doubt.LEAP:
            said += "; if that is right, raise rated_power_w"
        asleep_ms = _asleep_ms(meter, first.at)
        if 0 < asleep_ms < meter.limits.zero_patience_ms and sleeps(last, first):
            # It was asked three times when it fell asleep; the bus has better things to do.
            await self._refuse(meter, doubt, said, first.at)
            return
        repeats: list[RawReading] = []
        for _ in range(2):
            await self._clock.sleep_until(self._clock.now().mono_ms + REPEAT_AFTER_MS)
            again_read = await meter.reader.read_energy()
            if again_read.energy is None:
                await self._refuse(meter, again_read.rule, again_read.fault, again_read.at)
                return
            repeats.append(again_read.energy)
        verdict = settle(last, doubt, (first, repeats[0], repeats[1]), meter.limits, asleep_ms)
        await self._act(meter, doubt, verdict, reading, said)

    async def _act(
        self,
        meter: Meter,
        doubt: Doubt,
        verdict: Accepted | Rejected | Restarted,
        reading: Reading,
        said: str,
    ) -> None:
        if isinstance(verdict, Rejected):
            if verdict.asleep and meter.asleep_since_ms is None:
                meter.asleep_since_ms = reading.at.mono_ms
            await self._refuse(meter, doubt, said, reading.at)
            return
        if isinstance(verdict, Restarted):
            meter.recorder.count_refusal(doubt)
            await self._restart(meter, EpochReason.COUNTER_RESET, said, reading.at)
            await self._record(meter, verdict.counter, reading)
            return
        if verdict.turned:
            await meter.recorder.event("CounterTurnedOver", said, verdict.counter.at)
        elif verdict.doubt is not None:
            await self._tell(meter, verdict.doubt, said, verdict.counter.at)
        await self._record(meter, verdict.counter, reading, Quality.RE_READ)

    async def _record(
        self,
        meter: Meter,
        counter: Counter,
        reading: Reading,
        flags: Quality = Quality.NONE,
    ) -> None:
        plan = meter.plan
        await self._note(meter, reading)
        flags |= reading.flags | self._weigh(meter, counter, reading.live.active_power_w)
        if plan.missed:
            flags |= Quality.MISSED_SLOTS
        if is_late(plan, counter.at.mono_ms):
            flags |= Quality.LATE_SLOT
        meter.plan = after_slot(plan, self._clock.now())
        meter.refused_answers = 0
        meter.asleep_since_ms = None
        await meter.recorder.slot(counter, plan.interval_s, flags, reading.live)

    async def _identify(self, meter: Meter, reading: Reading) -> bool:
        """Begin a new epoch when another meter answers at this address; return whether to go on.

        It is asked twice more first: an epoch waits for an operator, and one odd answer of a
        meter that is just starting must not cost that.
        """
        known, said = meter.recorder.state.identity, reading.identity
        if said is not None and said != known:
            detail = f"identity {said} after {known}"
            if known and not await self._says_again(meter, said):
                await self._refuse(meter, Rule.IDENTITY, detail, reading.at)
                return False
            meter.recorder.identify(said)
            if known:
                await self._restart(meter, EpochReason.METER_EXCHANGED, detail, reading.at)
        meter.check_identity = False
        return True

    async def _says_again(self, meter: Meter, said: str) -> bool:
        for _ in range(2):
            await self._clock.sleep_until(self._clock.now().mono_ms + REPEAT_AFTER_MS)
            if await meter.reader.read_identity() != said:
                return False
        return True

    async def _restart(self, meter: Meter, reason: EpochReason, detail: str, at: Instant) -> None:
        _log.warning(
            "new epoch", extra={"meter_id": meter.meter_id, "reason": reason, "detail": detail}
        )
        meter.balance = None
        meter.episodes.clear()
        await meter.recorder.start_epoch(reason, detail, at)

    async def _refuse(self, meter: Meter, rule: str, detail: str, at: Instant) -> None:
        """Record nothing, keep the base, and try again within the slot."""
        meter.refused_answers += 1
        pause = max(REPEAT_AFTER_MS, pause_ms(meter.refused_answers))
        meter.plan = replace(meter.plan, not_before_ms=self._clock.now().mono_ms + pause)
        await self._tell(meter, rule, detail, at)

    async def _tell(self, meter: Meter, rule: str, detail: str, at: Instant) -> None:
        """Count a refused value; tell the first and then every so many-th."""
        if not self._counted(meter, rule, at):
            return
        episode = meter.episodes[rule]
        if episode.count == 1:
            _log.warning(
                "value rejected", extra={"meter_id": meter.meter_id, "rule": rule, "detail": detail}
            )
        else:
            detail = f"{detail} (number {episode.count})"
        await meter.recorder.event("ValueRejected", f"{rule}: {detail}", at)

    def _counted(self, meter: Meter, rule: str, at: Instant) -> bool:
        meter.recorder.count_refusal(rule)
        meter.episodes[rule], tell = again(
            meter.episodes.get(rule), at.mono_ms, meter.thresholds.event_every
        )
        return tell

    async def _note(self, meter: Meter, reading: Reading) -> None:
        """Count what the rules found among the other values, and add to the balance."""
        for finding in reading.findings:
            if finding.refused:
                await self._tell(meter, finding.rule, finding.detail, reading.at)
            else:
                self._mark(meter, finding.rule, finding.detail, reading.at)
        power_w = reading.live.active_power_w
        meter.balance = measured(meter.balance, power_w, reading.at.mono_ms)

    def _mark(self, meter: Meter, rule: str, detail: str, at: Instant) -> None:
        """Count a value that was kept but marked; the log tells once, the mark tells the cloud."""
        if self._counted(meter, rule, at) and meter.episodes[rule].count == 1:
            _log.warning(
                "value marked", extra={"meter_id": meter.meter_id, "rule": rule, "detail": detail}
            )

    def _weigh(self, meter: Meter, counter: Counter, power_w: int | None) -> Quality:
        """Compare the counted energy with power over time."""
        meter.balance, difference = compare(
            meter.balance, counter, power_w, meter.limits.resolution_wh, meter.thresholds
        )
        if not difference:
            return Quality.NONE
        self._mark(meter, Rule.ENERGY, difference, counter.at)
        return Quality.ENERGY_MISMATCH


def _asleep_ms(meter: Meter, at: Instant) -> int:
    return 0 if meter.asleep_since_ms is None else at.mono_ms - meter.asleep_since_ms


def _said(reading: RawReading) -> str:
    return f"said {reading.import_wh} import, {reading.export_wh} export Wh"


def _was_away(recorder: Recorder, plan: Plan, at: Instant) -> bool:
    """Return whether a slot edge passed since the last slot of an earlier run."""
    last = recorder.state.counter
    gap_ms = None if last is None else elapsed_ms(last.at, at)
    return gap_ms is not None and gap_ms > 2 * plan.interval_s * 1000
