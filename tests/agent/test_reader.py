"""Powers that come in several answers: a load that changes is no fault, a missing phase is."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from itertools import count

import pytest

from gridtokenx_agent.adapters.profile_files import find_profile
from gridtokenx_agent.adapters.simulator import MeterSimulator
from gridtokenx_agent.errors import MeterTimeoutError
from gridtokenx_agent.ports import ReadFunction, WordsRead
from gridtokenx_agent.reader import MeterReader
from gridtokenx_agent.reading import Reading
from gridtokenx_agent.validation import Rule
from gridtokenx_wire.record import Quality
from tests.support.fake_bus import FakeBus

APART = "eastron-sdm630"
"""Its total power lies too far from those of the phases for one answer."""
TOGETHER = "abb-b23"


class DyingBus(FakeBus):
    """A bus whose meter falls silent after so many answers."""

    answers: int = 0

    async def read_words(
        self, device_id: int, function: ReadFunction, address: int, count: int, min_gap_ms: int
    ) -> WordsRead:
        if len(self.reads) >= self.answers:
            raise MeterTimeoutError("silent")
        return await super().read_words(device_id, function, address, count, min_gap_ms)


def bus(profile: str, powers_w: Callable[[], tuple[int, int, int, int]]) -> FakeBus:
    def values() -> Mapping[str, Decimal]:
        names = ("active_power", "active_power_l1", "active_power_l2", "active_power_l3")
        usual = dict.fromkeys(("voltage_l1", "import_energy", "export_energy"), Decimal(230))
        return usual | {name: Decimal(power) for name, power in zip(names, powers_w(), strict=True)}

    return FakeBus({1: MeterSimulator(find_profile(profile), values)})


async def read(link: FakeBus, profile: str) -> Reading:
    return await MeterReader(link, 1, find_profile(profile), None).read_slot(identity=False)


def phases_marked(reading: Reading) -> bool:
    found = any(finding.rule is Rule.PHASES for finding in reading.findings)
    assert found == bool(reading.flags & Quality.POWER_MISMATCH)
    return found


@pytest.mark.parametrize("step_w", [1500, -1500])
async def test_a_load_that_changes_between_two_answers_is_no_disagreement(step_w: int) -> None:
    moments = count()

    def powers_w() -> tuple[int, int, int, int]:
        load = 9_000 + step_w * next(moments)
        return load, load, 0, 0

    link = bus(APART, powers_w)

    reading = await read(link, APART)

    assert not phases_marked(reading)
    assert reading.energy is not None


@pytest.mark.parametrize("profile", [APART, TOGETHER])
async def test_phases_that_do_not_add_up_are_marked_however_they_are_read(profile: str) -> None:
    reading = await read(bus(profile, lambda: (9_000, 3_000, 3_000, 0)), profile)

    assert phases_marked(reading)
    assert reading.energy is not None


async def test_powers_that_agree_or_came_together_are_read_once() -> None:
    agreeing = bus(APART, lambda: (9_000, 3_000, 3_000, 3_000))
    together = bus(TOGETHER, lambda: (9_000, 3_000, 3_000, 0))

    for link, profile in ((agreeing, APART), (together, TOGETHER)):
        await read(link, profile)

    for link in (agreeing, together):
        assert len(link.reads) == len(set(link.reads))


async def test_a_meter_that_falls_silent_at_the_second_look_has_given_its_reading() -> None:
    link = DyingBus(bus(APART, lambda: (9_000, 3_000, 3_000, 0)).meters)
    link.answers = 2

    reading = await read(link, APART)

    assert len(link.reads) == 2
    assert reading.energy is not None
    assert not phases_marked(reading)


async def test_a_fault_that_was_confirmed_is_marked_without_more_reads_until_it_is_mended() -> None:
    powers = [(9_000, 3_000, 3_000, 0)]
    link = bus(APART, lambda: powers[0])
    reader = MeterReader(link, 1, find_profile(APART), None)

    reads, marked = [], []
    for now in [(9_000, 3_000, 3_000, 0)] * 3 + [(9_000, 3_000, 3_000, 3_000)]:
        powers[0], before = now, len(link.reads)
        marked.append(phases_marked(await reader.read_slot(identity=False)))
        reads.append(len(link.reads) - before)

    assert marked == [True, True, True, False]
    assert reads == [4, 2, 2, 2]


async def test_a_load_that_changes_all_the_time_costs_a_second_look_a_minute() -> None:
    moments = count()

    def powers_w() -> tuple[int, int, int, int]:
        load = 9_000 + 5_000 * next(moments)
        return load, load, 0, 0

    link = bus(APART, powers_w)
    reader = MeterReader(link, 1, find_profile(APART), None)

    marked = [phases_marked(await reader.read_slot(identity=False)) for _ in range(5)]

    assert marked == [False] * 5
    assert len(link.reads) == 5 * 2 + 2
