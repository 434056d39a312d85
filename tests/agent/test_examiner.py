"""What meters really did to other gateways, and what must come of it; each test names its source.

Values are Wh; a power of 5 kW and slots of a quarter of an hour unless the source says otherwise.
"""

from decimal import Decimal
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from gridtokenx_agent.counters import (
    Accepted,
    Counter,
    Limits,
    Rejected,
    judge,
    settle,
)
from gridtokenx_agent.recorder import MOST_ROWS_IN_MEMORY, Recorder
from gridtokenx_wire.record import LiveValues, Quality, SlotRecord
from tests.support import build
from tests.support.fake_world import World
from tests.support.memory_buffer import MemoryBuffer
from tests.support.site import Site, totals

QUARTER_S = 900
DAY_S = 86_400


def quarter_hours(energy: int, rated_power_w: int = 5_000, sample_s: int = 0) -> Site:
    return Site(
        interval_s=QUARTER_S, sample_s=sample_s, rated_power_w=rated_power_w, energy=(energy, 0)
    )


async def test_one_zero_does_not_book_53_mwh() -> None:
    """Source: evcc PR 30592 and issue 29286: 13423.700, 0.000, 13423.702 kWh at 5 kW."""
    site = quarter_hours(13_423_700)
    await site.pass_time(QUARTER_S + 1)
    site.script = [0]
    site.show(13_423_702, 0)

    await site.pass_time(2 * QUARTER_S)

    assert [slot.import_wh for slot in site.slots] == [13_423_700, 13_423_702, 13_423_702]
    assert len({slot.stamp.epoch for slot in site.slots}) == 1
    assert site.buffer.refusals == {"RegisterBackwards": 1}


async def test_40_mwh_are_not_booked_when_a_heat_pump_says_zero_once() -> None:
    """Source: kodebach/hacs-idm-heatpump issue 322: 40482.83, 0.0, 40482.83 kWh."""
    site = quarter_hours(40_482_830)
    await site.pass_time(QUARTER_S + 1)
    site.script = [0]

    await site.pass_time(QUARTER_S)

    assert [slot.import_wh for slot in site.slots] == [40_482_830, 40_482_830]


async def test_a_counter_reset_at_the_front_panel_begins_an_epoch_and_mints_nothing() -> None:
    """Source: PAC3200 register tables: 123 456 789.5 Wh (a float32 of this meter: ...790), 0.0."""
    site = quarter_hours(123_456_790)
    await site.pass_time(QUARTER_S + 1)
    site.show(0, 0)
    await site.pass_time(DAY_S + 2 * QUARTER_S)
    site.show(40, 0)

    await site.pass_time(QUARTER_S)

    first, second = site.slots[0], site.slots[1]
    assert first.stamp.epoch != second.stamp.epoch
    assert (first.import_wh, second.import_wh, site.slots[-1].import_wh) == (123_456_790, 0, 40)
    assert site.events.count("EpochStarted") == 2
    assert "CounterReset" in site.details


async def test_a_reset_counter_that_counts_need_not_wait_for_the_day() -> None:
    site = quarter_hours(123_456_790)
    await site.pass_time(QUARTER_S + 1)
    site.show(0, 0)
    await site.pass_time(QUARTER_S)
    site.show(2, 0)

    await site.pass_time(120)

    assert totals(site.slots) == [(123_456_790, 0), (2, 0)]


async def test_an_inverter_that_sleeps_all_night_costs_no_epoch() -> None:
    """Source: suaveolent issue 39: 812.4, 0, 812.4 kWh, here for ten hours."""
    site = quarter_hours(812_400)
    await site.pass_time(QUARTER_S + 1)
    site.show(0, 0)
    await site.pass_time(10 * 3600)
    site.show(812_401, 0)

    await site.pass_time(QUARTER_S)

    assert totals(site.slots)[:2] == [(812_400, 0), (812_401, 0)]
    assert site.slots[1].flags & Quality.MISSED_SLOTS
    assert site.events.count("EpochStarted") == 1


async def test_a_sleeping_meter_is_asked_three_times_once_and_then_seldom() -> None:
    site = quarter_hours(812_400)
    await site.pass_time(QUARTER_S + 1)
    site.show(0, 0)
    await site.pass_time(QUARTER_S + 300)
    site.bus.reads.clear()

    await site.pass_time(600)

    slot_reads = len(site.bus.reads)
    assert slot_reads <= 60
    assert site.events.count("ValueRejected") == 1


async def test_nothing_is_dated_later_than_the_last_answer_of_a_dead_meter() -> None:
    """Source: EVerest PR 2673, solis_modbus issue 187: the last value under a fresh time stamp."""
    site = quarter_hours(1_000, sample_s=10)
    await site.pass_time(QUARTER_S + 1)
    last_answer_ms = site.clock.mono_ms
    site.faults.silent = True

    await site.pass_time(3 * QUARTER_S)

    stamps = [slot.stamp for slot in site.slots] + [sample.stamp for sample in site.samples]
    assert max(stamp.mono_ms for stamp in stamps) <= last_answer_ms


async def test_a_sample_dated_1970_makes_no_good_value_a_leap() -> None:
    """Source: AI-on-the-edge-device issue 3790: a sample at 1970-01-01T02:00:36."""
    world = World()
    world.boots(off_ms=0, wall_ms=36_000)
    site = Site(interval_s=QUARTER_S, rated_power_w=5_000, energy=(1_000, 0), clock=world)
    await site.pass_time(2 * QUARTER_S)
    known = len(site.slots)
    world.daemon_sets()
    site.show(2_000, 0)

    await site.pass_time(QUARTER_S + 60)

    assert known >= 1
    assert site.slots[-1].import_wh == 2_000
    assert not site.buffer.refusals


async def test_a_boot_in_1970_loses_no_slot_and_dates_every_one_in_the_end() -> None:
    """Source: lafrech/oem_gateway issue 12, with a machine that has no battery at all."""
    world = World(true_ms=build.NOON_MS + 333_000)
    world.boots(off_ms=0, wall_ms=0)
    site = Site(interval_s=QUARTER_S, energy=(1_000, 0), clock=world)
    await site.pass_time(2 * QUARTER_S + 90)
    world.daemon_sets()
    offset_ms = world.true_ms - world.mono_ms

    await site.pass_time(4 * QUARTER_S)

    dates_ms = [slot.stamp.mono_ms + offset_ms for slot in site.slots]
    sure = [slot for slot in site.slots if slot.stamp.clock == 2]
    assert [slot.stamp.clock for slot in site.slots] == [0, 0, 2, 2, 2, 2]
    assert all(slot.stamp.wall_ms % 900_000 < 100 for slot in sure)
    assert all(slot.stamp.wall_ms < 3_600_000 for slot in site.slots[:2])
    assert dates_ms == sorted(dates_ms)
    assert {later - date for date, later in pairwise(dates_ms[2:])} == {900_000}


async def test_a_clock_that_jumps_by_years_and_back_neither_doubles_nor_loses_energy() -> None:
    world = World()
    site = Site(interval_s=QUARTER_S, energy=(1_000, 0), clock=world)
    for number, error_ms in enumerate([0, 9 * 365 * 86_400_000, -3_600_000, 0, 7_200_000], 1):
        world.daemon_sets(error_ms=error_ms)
        site.show(1_000 + 100 * number, 0)
        await site.pass_time(2 * QUARTER_S)

    shown = [slot.import_wh for slot in site.slots]
    assert shown == sorted(shown)
    assert shown[-1] == 1_500
    assert len({slot.stamp.epoch for slot in site.slots}) == 1
    assert not site.buffer.refusals
    assert 8 <= len(site.slots) <= 12


async def test_memory_keeps_the_ends_of_a_long_outage_of_the_disk_and_ever_fewer_between() -> None:
    buffer = MemoryBuffer(full=True)
    recorder = Recorder(build.recorder_parts(buffer), "M1", "eastron-sdm630", None)
    await recorder.open(build.instant())
    for number in range(5_000):
        at = build.instant(2_000_000 + number * 900_000)
        await recorder.slot(build.counter(number, 0, at), 900, Quality.NONE, LiveValues())
    buffer.full = False

    await recorder.flush(build.instant(9_000_000_000))

    kept = [record.import_wh for record in buffer.records if isinstance(record, SlotRecord)]
    assert len(buffer.rows) <= MOST_ROWS_IN_MEMORY
    assert kept == sorted(kept)
    assert (kept[0], kept[-1]) == (0, 4_999)


async def test_refused_values_make_few_events_however_long_it_lasts() -> None:
    site = Site(event_every=50)
    await site.pass_time(61)
    site.show(None, 5_000)

    await site.pass_time(4 * 3600)

    assert site.buffer.refusals["EnergyNotAvailable"] >= 150
    assert 3 <= site.events.count("ValueRejected") <= 6
    assert "EnergyNotAvailable: import_energy has no value" in site.details


async def test_a_live_value_that_cannot_be_is_left_out_counted_and_told_with_its_number() -> None:
    site = Site(sample_s=10, live={"frequency": Decimal(500)})

    await site.pass_time(61)

    assert all(sample.live.frequency_mhz is None for sample in site.samples)
    assert site.buffer.refusals["ValueImpossible"] >= 6
    assert site.events.count("ValueRejected") == 1
    assert "ValueImpossible: frequency_mhz 500000" in site.details


async def test_an_unusual_voltage_is_kept_and_marked() -> None:
    """A phase may really have gone; the energy beside it counts all the same."""
    site = Site(live={"voltage_l1": Decimal("5.266")})

    await site.pass_time(61)

    assert site.slots[0].live.voltage_mv == 5_266
    assert site.slots[0].flags & Quality.UNUSUAL
    assert site.buffer.refusals == {"VoltageUnusual": 1}
    assert site.events == ["EpochStarted"]


async def test_phases_that_do_not_add_up_only_mark_the_reading() -> None:
    site = Site(live={"active_power_l2": Decimal(500)})

    await site.pass_time(61)

    assert site.slots[0].flags & Quality.POWER_MISMATCH
    assert site.slots[0].live.active_power_w == -3_000
    assert site.buffer.refusals == {"PhasesDisagree": 1}


async def test_one_answer_to_every_question_is_no_reading_at_all() -> None:
    """Source: volkszaehler/mbmd issue 332: a WE-516 that says 236 to everything."""
    site = Site()
    await site.pass_time(61)
    everything = dict.fromkeys(
        ("active_power", "active_power_l1", "active_power_l2", "active_power_l3"), Decimal(236)
    )
    site.live = everything | {
        name: Decimal(236) for name in ("voltage_l1", "current_l1", "frequency", "power_factor")
    }
    site.show(236_000, 236_000)

    await site.pass_time(60)

    assert len(site.slots) == 1
    assert site.buffer.refusals["StuckResponse"] >= 1


async def test_power_and_energy_that_tell_different_stories_mark_the_reading() -> None:
    """Source: OpenEMS PR 3215, evcc issue 21050: import and export of a sibling model swapped."""
    site = quarter_hours(100_000, sample_s=10)
    site.power_w = 2_000
    await site.pass_time(QUARTER_S + 1)
    site.energy = (100_000, 500)

    await site.pass_time(QUARTER_S)

    assert not site.slots[0].flags & Quality.ENERGY_MISMATCH
    assert site.slots[1].flags & Quality.ENERGY_MISMATCH
    assert site.buffer.refusals == {"PowerAndEnergyDisagree": 1}


async def test_power_and_energy_that_agree_leave_no_mark() -> None:
    site = quarter_hours(100_000, sample_s=10)
    site.power_w = 2_000
    await site.pass_time(QUARTER_S + 1)
    site.show(100_490, 0)

    await site.pass_time(QUARTER_S)

    assert not site.slots[1].flags
    assert not site.buffer.refusals


FAULTS = st.one_of(
    st.just(0),
    st.just(0xFFFF_FFFF),
    st.integers(0, 2**40),
    st.integers(0, 40).map(lambda bit: -1 - bit),
)
"""A foreign value, or (negative) the number of a bit that flips."""


def broken(true_wh: int, fault: int) -> int:
    return fault if fault >= 0 else true_wh ^ (1 << (-1 - fault))


Faults = tuple[int | None, int | None]


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.integers(0, 1_250), st.tuples(*[st.one_of(st.none(), FAULTS)] * 2)),
        min_size=1,
        max_size=30,
    ),
    st.integers(2_000, 2**33),
)
def test_whatever_impossible_answers_come_the_base_only_ever_moves_to_a_true_value(
    slots: list[tuple[int, Faults]], start_wh: int
) -> None:
    """Up to two of the three answers of a slot are impossible, each in its own way."""
    limits = Limits(rated_power_w=5_000)
    base = build.counter(start_wh)
    true_wh = start_wh

    for number, (step_wh, faults) in enumerate(slots, 1):
        true_wh += step_wh
        base = after_slot(base, number, true_wh, faults, limits)

        assert start_wh <= base.import_.total_wh <= true_wh

    final = after_slot(base, len(slots) + 1, true_wh, (None, None), limits)
    assert final.import_.total_wh == true_wh


def after_slot(base: Counter, number: int, true_wh: int, faults: Faults, limits: Limits) -> Counter:
    """Return the base after one slot's answers: two that may be broken, then a true one."""
    base_wh = base.import_.total_wh
    most_wh = base_wh + 1_502 * number
    shown = [true_wh if fault is None else broken(true_wh, fault) for fault in faults]
    shown = [true_wh if base_wh <= value <= most_wh else value for value in shown]
    answers = [
        build.raw(value, 0, build.instant(1_000_000 + number * 900_000 + second * 1_000))
        for second, value in enumerate([*shown, true_wh])
    ]
    verdict = judge(base, answers[0], limits)
    if isinstance(verdict, Accepted):
        return verdict.counter
    settled = settle(base, verdict.doubt, (answers[0], answers[1], answers[2]), limits)
    assert isinstance(settled, Accepted | Rejected)
    return base if isinstance(settled, Rejected) else settled.counter
