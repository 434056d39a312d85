"""SunSpec devices: their registers are found, watched, and found again."""

from collections.abc import Callable, Sequence
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_agent.adapters.profile_files import find_profile
from gridtokenx_agent.adapters.simulator import House, MeterSimulator, house_registers
from gridtokenx_agent.discovery import registers_of
from gridtokenx_agent.errors import BusDownError, MeterBusyError, MeterRefusedError
from gridtokenx_agent.ports import ReadFunction, WordsRead
from gridtokenx_agent.profiles import (
    ENERGY_POINTS,
    LocatedProfile,
    MeterProfile,
    ModelPlace,
    NotFound,
    SunSpecModels,
    find_model,
    locate,
    plan_blocks,
)
from gridtokenx_agent.reader import MeterReader
from gridtokenx_agent.registers import decode, encode
from tests.support.fake_bus import FakeBus, SteadyClock

METERS = SunSpecModels(models=(201, 202, 203, 204))
INTS = find_profile("sunspec-201-204")
FLOATS = find_profile("sunspec-211-214")
Device = dict[int, int]


def device(base: int, *models: tuple[int, int]) -> Device:
    """Registers of a device with these models: id and length of each."""
    registers = {base: 0x5375, base + 1: 0x6E53}
    at = base + 2
    for model, length in models:
        registers |= dict.fromkeys(range(at + 2, at + 2 + length), 0)
        registers |= {at: model, at + 1: length}
        at += 2 + length
    return registers | {at: 0xFFFF, at + 1: 0}


def search(
    registers: Device, wanted: SunSpecModels = METERS
) -> tuple[ModelPlace | NotFound, list[int]]:
    """Find a model, and return where the device was asked, too."""

    def answer(address: int, count: int) -> list[int] | None:
        span = range(address, address + count)
        return [registers[at] for at in span] if all(at in registers for at in span) else None

    return drive(answer, wanted)


def drive(
    answer: Callable[[int, int], Sequence[int] | None], wanted: SunSpecModels = METERS
) -> tuple[ModelPlace | NotFound, list[int]]:
    asked: list[int] = []
    steps = find_model(wanted)
    words: Sequence[int] | None = None
    while len(asked) < 110:
        try:
            address, count = steps.send(words)
        except StopIteration as end:
            return end.value, asked
        assert 0 <= address <= address + count <= 0x10000
        asked.append(address)
        words = answer(address, count)
    pytest.fail("the search goes on for ever")


@pytest.mark.parametrize("base", [40000, 0, 50000])
def test_a_meter_model_is_found_at_each_base(base: int) -> None:
    found, asked = search(device(base, (1, 66), (203, 105)))

    assert found == ModelPlace(address=base + 70, model=203, length=105, common_address=base + 2)
    assert asked[-2:] == [base + 2, base + 70]


def test_the_serial_number_is_that_of_the_meter_not_of_its_inverter() -> None:
    """A SolarEdge inverter shows itself first, then its meter with a common model of its own."""
    found, _ = search(device(40000, (1, 65), (103, 50), (1, 65), (203, 105)))

    assert isinstance(found, ModelPlace)
    assert found.common_address == 40000 + 2 + 67 + 52


def test_the_second_meter_of_a_device_can_be_chosen() -> None:
    registers = device(40000, (1, 66), (203, 105), (1, 66), (201, 105))

    second, _ = search(registers, SunSpecModels(models=(201, 203), instance=2))
    third, _ = search(registers, SunSpecModels(models=(201, 203), instance=3))

    assert isinstance(second, ModelPlace)
    assert (second.model, second.address) == (201, 40000 + 2 + 68 + 107 + 68)
    assert isinstance(third, NotFound)


@pytest.mark.parametrize(
    ("registers", "reason"),
    [
        ({}, "it is no SunSpec device"),
        ({40000: 0x1234, 40001: 0x5678}, "it is no SunSpec device"),
        (device(40000, (1, 66), (103, 50)), "is not there; it has 1, 103"),
        ({40000: 0x5375, 40001: 0x6E53}, "is not there; it has none"),
    ],
    ids=["nothing", "other registers", "an inverter", "a chain that breaks off"],
)
def test_a_device_without_the_model_says_what_it_has(registers: Device, reason: str) -> None:
    found, _ = search(registers)

    assert isinstance(found, NotFound)
    assert reason in found.reason


def test_a_chain_that_never_ends_is_given_up() -> None:
    endless = dict.fromkeys(range(40002, 50000), 7) | {40000: 0x5375, 40001: 0x6E53}

    found, asked = search(endless)

    assert isinstance(found, NotFound)
    assert len(asked) == 101


@given(data=st.data())
def test_any_device_is_found_or_refused_within_a_bounded_number_of_reads(
    data: st.DataObject,
) -> None:
    wild = st.one_of(st.sampled_from([0, 1, 201, 203, 0xFFFF]), st.integers(0, 0xFFFF))
    answers = [[0x5375, 0x6E53]]

    found, _ = drive(
        lambda address, count: (
            answers.pop()
            if answers
            else data.draw(st.none() | st.lists(wild, min_size=2, max_size=2))
        )
    )

    assert isinstance(found, ModelPlace | NotFound)


def test_a_model_too_short_for_the_profile_is_refused() -> None:
    place = ModelPlace(address=40070, model=201, length=30, common_address=40002)

    found = locate(INTS, place)

    assert found == NotFound("its SunSpec model 201 has 30 registers, the profile needs 53")


@pytest.mark.parametrize("profile", [INTS, FLOATS], ids=["201", "211"])
def test_energy_its_factor_and_the_header_come_in_one_answer(profile: MeterProfile) -> None:
    located = locate(profile, ModelPlace(address=40070, model=201, length=124, common_address=None))
    assert isinstance(located, LocatedProfile)

    blocks = plan_blocks(located, ENERGY_POINTS)

    assert [block.address for block in blocks] == [40070]
    assert located.identity is None


class Site:
    """A SunSpec meter behind a bus whose registers the test can shift, and cut."""

    def __init__(self) -> None:
        self.clock = SteadyClock()
        house = house_registers(INTS, House(), self.clock, self.clock.wall_ms)
        self.fake = FakeBus({1: MeterSimulator(INTS, house)}, self.clock)
        self.shift = 0
        self.reader = MeterReader(self, 1, INTS, None)

    async def read_words(
        self, device_id: int, function: ReadFunction, address: int, count: int, min_gap_ms: int
    ) -> WordsRead:
        at = address - self.shift if address > 40069 else address
        if self.shift and address == 40070:  # a model of so many registers moved in before it
            words = (64999, self.shift - 2)
            return WordsRead(words=(words + (0,) * count)[:count], at=self.clock.now())
        return await self.fake.read_words(device_id, function, at, count, min_gap_ms)

    async def close(self) -> None:
        await self.fake.close()

    def asked(self) -> list[tuple[int, int]]:
        asked = [(address, count) for _, _, address, count in self.fake.reads]
        self.fake.reads.clear()
        return asked


async def test_the_registers_are_looked_for_once() -> None:
    site = Site()

    first = await site.reader.read_slot(identity=True)
    looked = site.asked()
    second = await site.reader.read_slot(identity=True)

    assert (40000, 2) in looked
    assert (40000, 2) not in site.asked()
    assert first.energy == second.energy
    assert first.identity == "1001"


async def test_a_lost_connection_means_another_look() -> None:
    site = Site()
    await site.reader.read_slot(identity=True)
    site.fake.down = True
    with pytest.raises(BusDownError):
        await site.reader.read_slot(identity=True)
    site.fake.down = False
    site.asked()

    await site.reader.read_slot(identity=True)

    assert (40000, 2) in site.asked()


async def test_registers_that_moved_never_give_energy() -> None:
    site = Site()
    before = await site.reader.read_slot(identity=True)
    site.shift = 12

    with pytest.raises(MeterBusyError, match="its SunSpec model moved"):
        await site.reader.read_slot(identity=True)
    after = await site.reader.read_slot(identity=True)

    assert before.energy is not None
    assert after.energy is not None
    assert after.energy.import_wh == before.energy.import_wh


async def test_a_device_without_the_model_is_refused_by_name() -> None:
    bus = FakeBus({1: MeterSimulator(FLOATS, dict)})

    with pytest.raises(MeterRefusedError, match="meter 1: SunSpec model 201, 202, 203, 204") as no:
        await MeterReader(bus, 1, INTS, None).read_slot(identity=True)

    assert "it has 1, 211" in str(no.value)


async def test_other_profiles_cost_no_question() -> None:
    bus = FakeBus({})

    profile = await registers_of(bus, 1, find_profile("abb-b23"))

    assert profile == find_profile("abb-b23")
    assert bus.reads == []


@given(raw=st.integers(1, 2**32 - 1), power=st.integers(-10, 10))
def test_a_value_is_scaled_by_the_factor_that_came_with_it(raw: int, power: int) -> None:
    point = INTS.points["import_energy"]
    value = Decimal(raw).scaleb(power)

    words = encode(value, point, power)

    assert decode(words, point).value == value


@pytest.mark.parametrize("factor", [11, 0x7FFF, 0xFFF5, 0x8000])
def test_a_factor_no_device_sends_leaves_no_value(factor: int) -> None:
    point = INTS.points["frequency"]

    assert decode((5000, factor), point).value is None
