"""Reads one meter: blocks of registers in, a reading out."""

import logging
from collections.abc import Sequence

from gridtokenx_agent.clock import DAY_MS
from gridtokenx_agent.discovery import registers_of
from gridtokenx_agent.errors import (
    BusDownError,
    MeterBusyError,
    MeterRefusedError,
    MeterTimeoutError,
    TransientError,
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
from gridtokenx_agent.reading import (
    IDENTITY,
    LIVE_POINTS,
    POWERS,
    SLOT_POINTS,
    Answers,
    Reading,
    Words,
    interpret,
    powers_disagree,
)
from gridtokenx_agent.validation import USUAL

LOOK_EVERY_MS = 60_000
"""So seldom powers are read twice: a load that changes all the time must not fill the bus."""
_log = logging.getLogger(__name__)


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
        self._confirmed = False
        self._look_from_ms = 0

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

    async def read_identity(self) -> str | None:
        """Read the identity register alone, to repeat what it said; raises as `read_slot`."""
        return (await self._read((IDENTITY,))).identity

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
        parts: list[Block] = []
        energy_at: Instant | None = None
        at: Instant | None = None
        for block in self._plan(tuple(wanted)):
            for part, answer in await self._read_block(block):
                words |= _words(part, answer)
                parts.append(part)
                at = answer.at
                if any(name in ENERGY_POINTS for name, _ in part.points):
                    energy_at = at
        if at is None:
            raise MeterRefusedError(f"meter {self._device_id} has none of {', '.join(wanted)}", 2)
        asked_energy = any(name in ENERGY_POINTS for name in wanted)
        if asked_energy:
            self._check_place(words)
        answers = Answers(
            words=words,
            apart=await self._powers_apart(words, parts, at),
            at=energy_at or at,
            asked_energy=asked_energy,
        )
        return interpret(self._profile, answers, self._rated_power_w, self.thresholds)

    async def _powers_apart(self, words: Words, parts: Sequence[Block], at: Instant) -> bool:
        """Return whether the phases do not add up, and not because the load just changed.

        Powers that came in several answers are read once more, as the load may have changed from
        one to the next; then the one lies between the two others. A disagreement that was
        confirmed stands until they agree, so that a meter at fault costs its bus no second reads.
        """
        percent = self.thresholds.phase_percent
        if not powers_disagree(words, percent):
            self._confirmed = False
            return False
        several = [part for part in parts if any(name in POWERS for name, _ in part.points)]
        if len(several) < 2 or self._confirmed:
            return True
        if at.mono_ms >= self._look_from_ms:
            self._look_from_ms = at.mono_ms + LOOK_EVERY_MS
            again = await self._read_again(several)
            self._confirmed = bool(again) and powers_disagree(words, percent, again)
        return self._confirmed

    async def _read_again(self, parts: Sequence[Block]) -> Words:
        """Return the same points as they are now; nothing where the meter has fallen silent."""
        again: dict[str, tuple[tuple[int, ...], PointSpec]] = {}
        try:
            for part in parts:
                for same, answer in await self._read_block(part):
                    again |= _words(same, answer)
        except (TransientError, MeterRefusedError):
            return {}  # the reading itself is good
        return again

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


async def read_patiently(reader: MeterReader) -> Reading:
    """Read as a person asks for it, and once more where nothing came; raises as `read_slot`.

    How slow a meter is, is known only after its first answer, which then comes too late.
    """
    try:
        return await reader.read_slot(identity=True)
    except MeterTimeoutError:
        return await reader.read_slot(identity=True)


def _words(part: Block, answer: WordsRead) -> dict[str, tuple[tuple[int, ...], PointSpec]]:
    return {name: (part.words_of(name, answer.words), spec) for name, spec in part.points}
