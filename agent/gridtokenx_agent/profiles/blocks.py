"""Which reads fetch the wanted points of a meter."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from gridtokenx_agent.profiles.model import ENERGY_POINTS, MeterProfile, PointSpec
from gridtokenx_agent.profiles.sunspec import MODEL_HEADER
from gridtokenx_agent.registers import ReadFunction

MAX_GAP: Final = 30
"""Registers worth reading in vain: at 9600 baud 60 bytes cost about what a transaction costs."""
_ANY_GAP: Final = 125


@dataclass(frozen=True, slots=True)
class Block:
    """One read: registers from *address* on, and the points that lie in them."""

    function: ReadFunction
    address: int
    count: int
    points: tuple[tuple[str, PointSpec], ...]

    def words_of(self, name: str, words: Sequence[int]) -> tuple[int, ...]:
        """Cut the words of point *name* out of the answer to this block."""
        point = next(point for found, point in self.points if found == name)
        start = point.address - self.address
        return tuple(words[start : start + point.count])


def plan_blocks(profile: MeterProfile, wanted: Collection[str]) -> tuple[Block, ...]:
    """Gather the wanted points that the profile has into as few reads as sensible.

    Energy comes first, its counters together; live values near by come along. A value is never
    split over two reads, or its halves could come from two moments. For the same reason the
    header of a SunSpec model, which says that the registers still lie where they were found,
    comes with the energy.
    """
    energy = [name for name in wanted if name in ENERGY_POINTS]
    live = _merge(profile, [name for name in wanted if name not in ENERGY_POINTS])
    if energy and profile.spec(MODEL_HEADER) is not None:
        return (*_merge(profile, [MODEL_HEADER, *energy], _ANY_GAP), *live)
    counters = _merge(profile, energy)
    if len(counters) == 1:
        return _share(profile, counters[0], live)
    return (*counters, *live)


def split_block(block: Block) -> tuple[Block, ...]:
    """Return smaller reads for a block the meter refused: split at its gaps, then by point.

    Energy and live values part first: a live register that the meter refuses must never cost a
    counter. A block of one point comes back alone; it cannot be made smaller.
    """
    energy = [entry for entry in block.points if entry[0] in ENERGY_POINTS]
    live = [entry for entry in block.points if entry[0] not in (*ENERGY_POINTS, MODEL_HEADER)]
    if energy and live:
        rest = [entry for entry in block.points if entry not in live]
        return _block(block.function, rest), _block(block.function, live)
    runs: list[list[tuple[str, PointSpec]]] = []
    for name, point in block.points:
        if runs and _end(runs[-1]) >= point.address:
            runs[-1].append((name, point))
        else:
            runs.append([(name, point)])
    if len(runs) == 1:
        runs = [[entry] for entry in block.points]
    return tuple(_block(block.function, run) for run in runs)


def _share(profile: MeterProfile, counters: Block, live: tuple[Block, ...]) -> tuple[Block, ...]:
    """Put the counters into the first live read they fit in; that read then comes first."""
    for place, block in enumerate(live):
        first, last = sorted((counters, block), key=lambda part: part.address)
        near = last.address - (first.address + first.count) <= MAX_GAP
        run = sorted((*first.points, *last.points), key=lambda entry: entry[1].address)
        both = _block(counters.function, run)
        if counters.function == block.function and near and both.count <= profile.max_registers:
            return (both, *live[:place], *live[place + 1 :])
    return (counters, *live)


def _merge(
    profile: MeterProfile, names: Iterable[str], max_gap: int = MAX_GAP
) -> tuple[Block, ...]:
    entries = [(name, spec) for name in names if (spec := profile.spec(name)) is not None]
    entries.sort(key=lambda entry: (profile.function_of(entry[1]), entry[1].address))
    runs: list[list[tuple[str, PointSpec]]] = []
    for entry in entries:
        if runs and _fits(profile, runs[-1], entry[1], max_gap):
            runs[-1].append(entry)
        else:
            runs.append([entry])
    return tuple(_block(profile.function_of(run[0][1]), run) for run in runs)


def _fits(
    profile: MeterProfile, run: list[tuple[str, PointSpec]], point: PointSpec, max_gap: int
) -> bool:
    first = run[0][1]
    return (
        profile.function_of(first) == profile.function_of(point)
        and point.address - _end(run) <= max_gap
        and point.address + point.count - first.address <= profile.max_registers
    )


def _end(run: Sequence[tuple[str, PointSpec]]) -> int:
    # Values with a common scale factor overlap, so the last to begin need not be the last to end.
    return max(point.address + point.count for _, point in run)


def _block(function: ReadFunction, run: Sequence[tuple[str, PointSpec]]) -> Block:
    start = run[0][1].address
    return Block(function, start, _end(run) - start, tuple(run))
