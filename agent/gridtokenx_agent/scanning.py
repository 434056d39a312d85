"""Finds meters on a bus: who answers, and which profile fits. It only ever reads."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from gridtokenx_agent.discovery import registers_of
from gridtokenx_agent.errors import (
    Heard,
    MeterBusyError,
    MeterRefusedError,
    MeterTimeoutError,
)
from gridtokenx_agent.identification import (
    Judgement,
    Sureness,
    gate_point,
    judge,
    passes_gate,
    rank,
)
from gridtokenx_agent.plausibility import Words
from gridtokenx_agent.ports import MeterBus, ReadFunction, WordsRead
from gridtokenx_agent.profiles import (
    ENERGY_POINTS,
    MODEL_REGISTER,
    Block,
    MeterProfile,
    plan_blocks,
    split_block,
)

QUICK_UNITS: Final = tuple(range(1, 11))
ALL_UNITS: Final = tuple(range(1, 248))
_ASK_GAP_MS: Final = 100
"""Rest before asking who is there: most meters need no more."""
_NO_SUCH_UNIT: Final = frozenset({0x0A, 0x0B})
"""How a gateway says that the meter behind it does not answer."""

Parity = Literal["N", "E", "O"]


@dataclass(frozen=True, slots=True, order=True)
class Line:
    """Settings of a serial line."""

    baudrate: int
    parity: Parity
    stopbits: Literal[1, 2]

    def __str__(self) -> str:
        return f"{self.baudrate} 8{self.parity}{self.stopbits}"


_FORMATS: Final[tuple[tuple[Parity, Literal[1, 2]], ...]] = (
    ("N", 1),
    ("E", 1),
    ("O", 1),
    ("N", 2),
)
_COMMON_LINES: Final = tuple(
    Line(baudrate, parity, stopbits)
    for parity, stopbits in _FORMATS
    for baudrate in (9600, 19200, 2400, 38400)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One device that answers.

    Attributes:
        device_id: Its address on the bus.
        fits: The profiles that may be right, the best first.
        misses: The profiles that came nearest, where none fits, with what is against them.
        fingerprint: Tells it from other devices; empty when nothing could be read.
    """

    device_id: int
    fits: tuple[Judgement, ...]
    misses: tuple[Judgement, ...]
    fingerprint: str


def line_settings(profiles: Iterable[MeterProfile]) -> tuple[Line, ...]:
    """Return the settings to try: those meters are delivered with, then all common ones."""
    delivered = Counter(line_of(profile) for profile in profiles)
    leading = sorted(delivered, key=lambda line: -delivered[line])
    return (*leading, *(line for line in _COMMON_LINES if line not in delivered))


def line_of(profile: MeterProfile) -> Line:
    """Return the settings a meter of *profile* is delivered with."""
    serial = profile.serial
    return Line(serial.baudrate, serial.parity, serial.stopbits)


async def ask(bus: MeterBus, device_id: int, profiles: Mapping[str, MeterProfile]) -> Heard | None:
    """Return None when somebody answers as *device_id*, else what was heard instead.

    An exception is an answer too: whoever refuses a register is there.

    Raises:
        BusDownError: The port is not there.
    """
    function, address, count = _question(profiles)
    try:
        await bus.read_words(device_id, function, address, count, _ASK_GAP_MS)
    except MeterTimeoutError as exc:
        return exc.heard
    except MeterBusyError as exc:
        return "nothing" if exc.code in _NO_SUCH_UNIT else None
    except MeterRefusedError:
        return None
    return None


async def identify(
    bus: MeterBus, device_id: int, profiles: Mapping[str, MeterProfile], line: Line | None
) -> Found:
    """Find out which of *profiles* fits the device.

    Args:
        bus: Where it is.
        device_id: Its address.
        profiles: The candidates.
        line: The settings it answered with; None where there is no serial line.

    Raises:
        BusDownError: The port is not there any more.
    """
    device = _Device(bus, device_id)
    candidates = await _through_the_gate(device, profiles)
    judged: list[Judgement] = []
    words: dict[str, Words] = {}
    for name, profile in candidates.items():
        gap_ms = max(entry.min_gap_ms for entry in candidates.values())
        words[name] = await _read_all(device, profile, gap_ms)
        judged.append(judge(name, profile, words[name]))
    fits = rank(judged, {name: line_of(profiles[name]) == line for name in candidates})
    misses = sorted(
        (entry for entry in judged if entry.sureness is Sureness.NO),
        key=lambda entry: (len(entry.against), -entry.score),
    )
    return Found(
        device_id=device_id,
        fits=fits,
        misses=() if fits else tuple(misses[:3]),
        fingerprint=_fingerprint(words[fits[0].profile]) if fits else "",
    )


class _Device:
    """A device that is asked everything only once: profiles share many registers."""

    def __init__(self, bus: MeterBus, device_id: int) -> None:
        self._bus = bus
        self.device_id = device_id
        self._known: dict[tuple[ReadFunction, int, int], WordsRead | MeterRefusedError] = {}

    async def read_words(
        self, device_id: int, function: ReadFunction, address: int, count: int, min_gap_ms: int
    ) -> WordsRead:
        """See `MeterBus.read_words`; silence counts as a refusal here."""
        key = (function, address, count)
        if key not in self._known:
            self._known[key] = await self._read(device_id, key, min_gap_ms)
        known = self._known[key]
        if isinstance(known, MeterRefusedError):
            raise known
        return known

    async def close(self) -> None:
        """See `MeterBus.close`."""
        await self._bus.close()

    async def words(self, block: Block, gap_ms: int) -> Words:
        """Return what the device says for each point of *block*."""
        try:
            answer = await self.read_words(
                self.device_id, block.function, block.address, block.count, gap_ms
            )
        except MeterRefusedError:
            parts = split_block(block)
            if len(parts) == 1:
                return {name: None for name, _ in block.points}
            return {
                name: said
                for part in parts
                for name, said in (await self.words(part, gap_ms)).items()
            }
        return {name: block.words_of(name, answer.words) for name, _ in block.points}

    async def _read(
        self, device_id: int, key: tuple[ReadFunction, int, int], gap_ms: int
    ) -> WordsRead | MeterRefusedError:
        for _ in range(2):
            try:
                return await self._bus.read_words(device_id, *key, gap_ms)
            except MeterRefusedError as exc:
                return exc
            except (MeterTimeoutError, MeterBusyError):
                continue
        return MeterRefusedError(f"meter {device_id} says nothing about {key}", 0)


async def _through_the_gate(
    device: _Device, profiles: Mapping[str, MeterProfile]
) -> dict[str, MeterProfile]:
    """Return the profiles that survive one question each, those of SunSpec located.

    The meters that need the longest rest come first, and the rest is kept as long as the device
    may be one of them: some restart when they are asked too quickly.
    """
    running = dict(sorted(profiles.items(), key=lambda entry: -entry[1].min_gap_ms))
    for name, profile in list(running.items()):
        gap_ms = max(entry.min_gap_ms for entry in running.values())
        located = await _located(device, profile, gap_ms)
        if located is None or not await _passes(device, located, gap_ms):
            del running[name]
        else:
            running[name] = located
    own_word = {
        name: profile for name, profile in running.items() if gate_point(profile) == MODEL_REGISTER
    }
    return own_word or running


async def _located(device: _Device, profile: MeterProfile, gap_ms: int) -> MeterProfile | None:
    try:
        given = profile.model_copy(update={"min_gap_ms": gap_ms})
        found = await registers_of(device, device.device_id, given)
    except MeterRefusedError:
        return None
    return profile if profile.sunspec is None else found


async def _passes(device: _Device, profile: MeterProfile, gap_ms: int) -> bool:
    name = gate_point(profile)
    (block,) = plan_blocks(profile, [name])
    words = await device.words(block, gap_ms)
    return passes_gate(profile, words[name])


async def _read_all(device: _Device, profile: MeterProfile, gap_ms: int) -> Words:
    words: dict[str, Sequence[int] | None] = {}
    for block in plan_blocks(profile, [*profile.points, "identity", MODEL_REGISTER]):
        words |= await device.words(block, gap_ms)
    return words


def _question(profiles: Mapping[str, MeterProfile]) -> tuple[ReadFunction, int, int]:
    """Return what to ask somebody who may not be there: of one known model, its own register."""
    if len(profiles) == 1:
        (profile,) = profiles.values()
        if profile.sunspec is None:
            (block,) = plan_blocks(profile, [gate_point(profile)])
            return block.function, block.address, block.count
    return 4, 0, 2


def _fingerprint(words: Words) -> str:
    """Return the counters and the serial number as hex; empty when they are all zero."""
    said = [words.get(name) or () for name in (*ENERGY_POINTS, "identity")]
    if not any(word for entry in said for word in entry):
        return ""
    return "/".join("".join(f"{word:04x}" for word in entry) for entry in said)
