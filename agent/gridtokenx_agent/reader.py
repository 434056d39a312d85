"""Reads one meter: blocks of registers in, exact integers out."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from gridtokenx_agent.clock import DAY_MS
from gridtokenx_agent.counters import RawReading
from gridtokenx_agent.discovery import registers_of
from gridtokenx_agent.errors import (
    BusDownError,
    MeterBusyError,
    MeterRefusedError,
    ProfileError,
)
from gridtokenx_agent.ports import Instant, MeterBus, WordsRead
from gridtokenx_agent.profiles import (
    ENERGY_POINTS,
    Block,
    Load,
    LocatedProfile,
    MeterProfile,
    PointSpec,
    plan_blocks,
    split_block,
)
from gridtokenx_agent.registers import decode, energy_wh, to_units
from gridtokenx_agent.validation import (
    USUAL,
    Checked,
    Finding,
    Rule,
    check_live,
    is_stuck,
    phases_disagree,
)
from gridtokenx_wire.encoding import MAX_COUNT
from gridtokenx_wire.record import LiveValues, Quality

_LIVE = {
    "active_power": "active_power_w",
    "voltage_l1": "voltage_mv",
    "current_l1": "current_ma",
    "frequency": "frequency_mhz",
    "power_factor": "power_factor_milli",
}
_PHASES = ("active_power_l1", "active_power_l2", "active_power_l3")
LIVE_POINTS = (*_LIVE, *_PHASES)
IDENTITY = "identity"
SLOT_POINTS = (*ENERGY_POINTS, *LIVE_POINTS)
_log = logging.getLogger(__name__)

_NO_FAULT = Finding(Rule.NO_ENERGY, "")

Words = Mapping[str, tuple[tuple[int, ...], PointSpec]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a meter said at one moment.

    Attributes:
        energy: Both registers; None when the meter has no value for one of them.
        fault: Why there is no energy although it was asked; *rule* names the reason.
        findings: What the rules said about the other values.
        identity: What the identity register says; None when it was not asked or says nothing.
        at: When the last byte of the energy came in; without energy, of the last block.
    """

    energy: RawReading | None
    fault: str
    rule: Rule = Rule.NO_ENERGY
    findings: tuple[Finding, ...] = ()
    live: LiveValues
    flags: Quality
    identity: str | None
    at: Instant


def bus_loads(profile: MeterProfile, interval_s: int, sample_s: int) -> tuple[Load, ...]:
    """Return what one meter will be asked, again and again."""
    slots = Load(profile=profile, points=(*SLOT_POINTS, IDENTITY), period_s=interval_s)
    if not sample_s:
        return (slots,)
    return slots, Load(profile=profile, points=LIVE_POINTS, period_s=sample_s)


class MeterReader:
    """One meter on a bus; remembers which blocks and points the meter refuses.

    It also remembers where a SunSpec meter keeps its registers, until the bus is lost or the
    meter shows that they moved.
    """

    def __init__(
        self, bus: MeterBus, device_id: int, profile: MeterProfile, rated_power_w: int | None
    ) -> None:
        self._bus = bus
        self._device_id = device_id
        self._given = profile
        self._profile = profile
        self._found = False
        self._rated_power_w = rated_power_w
        self.thresholds = USUAL
        self._blocks: dict[tuple[str, ...], tuple[Block, ...]] = {}
        self._unsupported_until: dict[str, int] = {}

    async def read_slot(self, *, identity: bool) -> Reading:
        """Read energy and live values, and the identity register if asked.

        Raises:
            TransientError: The meter did not answer.
            MeterRefusedError: It has no energy registers where the profile says.
        """
        return await self._read((*SLOT_POINTS, IDENTITY) if identity else SLOT_POINTS)

    async def read_energy(self) -> Reading:
        """Read the energy registers alone, to repeat a doubted answer; raises as `read_slot`."""
        return await self._read(ENERGY_POINTS)

    async def read_live(self) -> Reading:
        """Read live values alone; raises as `read_slot`."""
        return await self._read(LIVE_POINTS)

    async def _read(self, wanted: Sequence[str]) -> Reading:
        try:
            await self._find_registers()
            return await self._read_points(wanted)
        except (BusDownError, MeterRefusedError):
            self._found = False
            raise

    async def _find_registers(self) -> None:
        """Ask a SunSpec device where its registers are, once per connection."""
        if self._found:
            return
        profile = await registers_of(self._bus, self._device_id, self._given)
        if profile != self._profile:
            self._profile = profile
            self._blocks = {}
        self._found = True

    async def _read_points(self, wanted: Sequence[str]) -> Reading:
        words: dict[str, tuple[tuple[int, ...], PointSpec]] = {}
        energy_at: Instant | None = None
        at: Instant | None = None
        for block in self._plan(tuple(wanted)):
            for part, answer in await self._read_block(block):
                for name, spec in part.points:
                    words[name] = (part.words_of(name, answer.words), spec)
                at = answer.at
                if any(name in ENERGY_POINTS for name, _ in part.points):
                    energy_at = at
        if at is None:
            raise MeterRefusedError(f"meter {self._device_id} has none of {', '.join(wanted)}", 2)
        asked_energy = any(name in ENERGY_POINTS for name in wanted)
        if asked_energy:
            self._check_place(words)
        return self._reading(words, energy_at or at, asked_energy=asked_energy)

    def _check_place(self, words: Words) -> None:
        """Refuse energy from registers that are no longer those of the SunSpec model."""
        if isinstance(self._profile, LocatedProfile) and self._profile.moved(
            {name: found for name, (found, _) in words.items()}
        ):
            self._found = False
            raise MeterBusyError(
                f"meter {self._device_id}: its SunSpec model moved; it is looked for again"
            )

    def _plan(self, wanted: tuple[str, ...]) -> tuple[Block, ...]:
        if wanted not in self._blocks:
            self._blocks[wanted] = plan_blocks(self._profile, wanted)
        return self._blocks[wanted]

    async def _read_block(self, block: Block) -> list[tuple[Block, WordsRead]]:
        """Read a block; split it where the meter refuses it, and leave out refused points."""
        names = [name for name, _ in block.points]
        if len(names) == 1 and names[0] in self._unsupported_until:
            return []
        try:
            answer = await self._bus.read_words(
                self._device_id,
                block.function,
                block.address,
                block.count,
                self._profile.min_gap_ms,
            )
        except MeterRefusedError as exc:
            return await self._after_refusal(block, names, exc)
        self._forgive(answer.at.mono_ms)
        return [(block, answer)]

    async def _after_refusal(
        self, block: Block, names: list[str], exc: MeterRefusedError
    ) -> list[tuple[Block, WordsRead]]:
        parts = split_block(block)
        if len(parts) > 1 and exc.code in (2, 3):
            self._replace(block, parts)
            return [pair for part in parts for pair in await self._read_block(part)]
        if any(name in ENERGY_POINTS for name in names):
            raise exc
        for name in names:
            self._unsupported_until[name] = 0
        _log.warning(
            "point refused", extra={"device_id": self._device_id, "points": names, "code": exc.code}
        )
        return []

    def _replace(self, block: Block, parts: tuple[Block, ...]) -> None:
        for wanted, blocks in self._blocks.items():
            if block in blocks:
                index = blocks.index(block)
                self._blocks[wanted] = (*blocks[:index], *parts, *blocks[index + 1 :])

    def _forgive(self, now_ms: int) -> None:
        """Ask once a day again for what the meter refused: firmware changes."""
        for name, until_ms in list(self._unsupported_until.items()):
            if until_ms == 0:
                self._unsupported_until[name] = now_ms + DAY_MS
            elif now_ms >= until_ms:
                del self._unsupported_until[name]

    def _reading(self, words: Words, at: Instant, *, asked_energy: bool) -> Reading:
        said = [found for name, (found, _) in words.items() if name in SLOT_POINTS]
        if is_stuck(said, self.thresholds.stuck_points):
            return _stuck(at, asked_energy=asked_energy)
        energy, fault = self._energy(words, at) if asked_energy else (None, _NO_FAULT)
        checked = self._live(words)
        flags = checked.flags
        if fault.detail:
            flags |= Quality.VALUE_MISSING
        return Reading(
            energy=energy,
            fault=fault.detail,
            rule=fault.rule,
            findings=tuple(checked.findings),
            live=checked.live,
            flags=flags,
            identity=_identity(words),
            at=at,
        )

    def _energy(self, words: Words, at: Instant) -> tuple[RawReading | None, Finding]:
        values: list[int] = []
        for name in ENERGY_POINTS:
            if self._profile.spec(name) is None:
                values.append(0)
                continue
            if name not in words:
                return None, Finding(Rule.NO_ENERGY, f"{name} was not read")
            try:
                value = energy_wh(*words[name])
            except ProfileError as exc:
                return None, Finding(Rule.NO_ENERGY, f"{name}: {exc}")
            if value is None:
                return None, Finding(Rule.NO_ENERGY, f"{name} has no value")
            if value > MAX_COUNT:
                return None, Finding(Rule.COUNTER_RANGE, f"{name} says {value} Wh")
            values.append(value)
        return RawReading(import_wh=values[0], export_wh=values[1], at=at), _NO_FAULT

    def _live(self, words: Words) -> Checked:
        units = {name: _units(*words[name]) for name in LIVE_POINTS if name in words}
        values = {field: units[name] for name, field in _LIVE.items() if name in units}
        checked = check_live(values, self._rated_power_w, self.thresholds)
        total_w = checked.live.active_power_w
        phases_w = [units.get(name) for name in _PHASES]
        if phases_disagree(total_w, phases_w, self.thresholds.phase_percent):
            detail = f"phases {phases_w} W, total {total_w} W"
            finding = Finding(Rule.PHASES, detail, refused=False)
            checked.mark(finding, Quality.POWER_MISMATCH)
        return checked


def _stuck(at: Instant, *, asked_energy: bool) -> Reading:
    found = Finding(Rule.STUCK, "every register says the same")
    return Reading(
        energy=None,
        fault=found.detail,
        rule=found.rule,
        findings=() if asked_energy else (found,),
        live=LiveValues(),
        flags=Quality.VALUE_MISSING | Quality.OUT_OF_RANGE,
        identity=None,
        at=at,
    )


def _units(words: tuple[int, ...], spec: PointSpec) -> int | None:
    value = decode(words, spec).value
    return to_units(value, spec.unit) if isinstance(value, Decimal) else None


def _identity(words: Words) -> str | None:
    if IDENTITY not in words:
        return None
    value = decode(*words[IDENTITY]).value
    return None if value is None else str(value)
