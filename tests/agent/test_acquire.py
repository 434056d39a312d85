"""From register words to signed rows, on a clock the test moves."""

import asyncio

from gridtokenx_agent.health import UnitState
from gridtokenx_agent.recorder import Recorder
from gridtokenx_wire.encoding import line_hash
from gridtokenx_wire.record import FIRST_PREV, EventRecord, Quality
from tests.support import build
from tests.support.site import INTERVAL_S, Site, totals


async def test_each_slot_edge_gives_one_signed_reading() -> None:
    site = Site()

    await site.pass_time(5 * INTERVAL_S + 1)

    assert totals(site.slots) == [(100_000, 5_000)] * 5
    assert all(slot.stamp.wall_ms % 60_000 < 100 for slot in site.slots)
    assert all(slot.token == build.TOKEN and not slot.flags for slot in site.slots)
    assert site.slots[0].live.active_power_w == -3_000


async def test_slots_of_an_epoch_form_a_chain_and_numbers_have_no_gap() -> None:
    site = Site(sample_s=20)

    await site.pass_time(4 * INTERVAL_S + 1)

    lines = [held.row.line for held in site.buffer.rows.values() if held.row.kind == "slot"]
    assert [slot.prev for slot in site.slots] == [FIRST_PREV, *map(line_hash, lines[:-1])]
    seqs = [record.stamp.seq for record in site.buffer.records]
    assert seqs == list(range(1, len(seqs) + 1))
    assert [held.row.opens for held in site.buffer.rows.values()].count(True) == 1


async def test_an_epoch_begins_with_an_event() -> None:
    site = Site()

    await site.pass_time(1)

    assert site.events == ["EpochStarted"]
    assert "FirstContact" in site.details


async def test_samples_come_between_slots_and_carry_no_energy() -> None:
    site = Site(sample_s=10)

    await site.pass_time(61)

    assert len(site.samples) == 7
    assert site.samples[0].live.voltage_mv == 230_100


async def test_samples_share_commits_and_slots_do_not_wait() -> None:
    site = Site(sample_s=1, group_ms=5_000, interval_s=30)

    await site.pass_time(29)
    grouped = site.buffer.commits
    await site.pass_time(1.5)

    assert grouped <= 8
    assert len(site.slots) == 1


async def test_a_dead_meter_gives_no_values_and_one_event() -> None:
    """EVerest PR 2673, esphome#18961: the last value repeated under fresh time stamps."""
    site = Site(sample_s=10)
    await site.pass_time(61)
    known = len(site.buffer.rows)
    site.faults.silent = True

    await site.pass_time(600)

    new = site.buffer.records[known:]
    assert [r.event for r in new if isinstance(r, EventRecord)] == ["MeterDown"]
    assert len(new) == 1
    assert site.meter.unit.state is UnitState.DOWN
    assert site.buffer.known["M1"].unit == "down"


async def test_a_dead_meter_is_asked_at_most_once_a_minute() -> None:
    site = Site(sample_s=1, interval_s=1)
    site.faults.silent = True
    await site.pass_time(300)
    site.bus.reads.clear()

    await site.pass_time(600)

    assert 9 <= len(site.bus.reads) <= 11


async def test_a_meter_that_comes_back_says_so_and_misses_nothing_it_counted() -> None:
    site = Site()
    await site.pass_time(61)
    site.faults.silent = True
    await site.pass_time(600)
    site.faults.silent = False
    site.show(100_500, 5_100)

    await site.pass_time(61)

    assert site.events[-2:] == ["MeterDown", "MeterUp"]
    assert totals(site.slots)[:2] == [(100_000, 5_000), (100_500, 5_100)]
    assert site.slots[1].flags & Quality.MISSED_SLOTS
    assert site.buffer.known["M1"].unit == "ok"


async def test_a_slot_that_fails_is_read_again_within_its_interval() -> None:
    site = Site()
    await site.pass_time(59)
    site.faults.silent = True
    await site.pass_time(10)
    site.faults.silent = False

    await site.pass_time(20)

    assert len(site.slots) == 1
    assert site.slots[0].flags == Quality.LATE_SLOT


async def test_one_zero_reading_neither_passes_nor_moves_the_base() -> None:
    site = Site()
    await site.pass_time(61)
    site.script = [0]
    site.show(100_002, 5_000)

    await site.pass_time(60)

    assert totals(site.slots) == [(100_000, 5_000), (100_002, 5_000)]
    assert site.slots[1].flags & Quality.RE_READ
    assert site.events == ["EpochStarted", "ValueRejected"]
    assert "RegisterBackwards" in site.details
    assert site.buffer.refusals == {"RegisterBackwards": 1}
    assert len({slot.stamp.epoch for slot in site.slots}) == 1


async def test_flickering_values_are_refused_until_a_good_one_comes() -> None:
    site = Site()
    await site.pass_time(61)
    site.script = [0, 100_001, 0, 0, 100_001, 0]
    site.show(100_002, 5_000)

    await site.pass_time(60)

    assert totals(site.slots) == [(100_000, 5_000), (100_002, 5_000)]
    assert site.events.count("ValueRejected") == 1
    assert site.buffer.refusals["RegisterBackwards"] == 2


async def test_a_counter_that_was_reset_begins_a_new_epoch() -> None:
    site = Site()
    await site.pass_time(61)
    site.show(3, 0)

    await site.pass_time(120)

    epochs = [slot.stamp.epoch for slot in site.slots]
    assert epochs[0] != epochs[1] == epochs[2]
    assert totals(site.slots)[1] == (3, 0)
    assert site.slots[1].prev == FIRST_PREV
    assert site.events == ["EpochStarted", "EpochStarted"]
    assert "CounterReset" in site.details


async def test_a_leap_beyond_the_rated_power_is_not_credited_within_the_epoch() -> None:
    site = Site()
    await site.pass_time(61)
    site.show(100_000 + 53_700_000, 5_000)

    await site.pass_time(60)

    assert site.slots[0].stamp.epoch != site.slots[1].stamp.epoch
    assert "rated_power_w" in site.details


async def test_a_counter_without_a_value_gives_no_slot_and_no_zero() -> None:
    site = Site()
    await site.pass_time(61)
    site.show(None, 5_000)
    await site.pass_time(300)
    site.show(100_003, 5_000)

    await site.pass_time(61)

    assert totals(site.slots)[:2] == [(100_000, 5_000), (100_003, 5_000)]
    assert site.slots[1].flags & Quality.MISSED_SLOTS
    assert site.events == ["EpochStarted", "ValueRejected"]
    assert site.buffer.refusals["EnergyNotAvailable"] > 1


async def test_another_meter_at_the_same_address_begins_a_new_epoch() -> None:
    site = Site()
    await site.pass_time(61)
    site.identity = 4712
    site.show(100_001, 5_001)

    await site.pass_time(60)

    assert site.slots[0].stamp.epoch != site.slots[1].stamp.epoch
    assert "MeterExchanged" in site.details


async def test_after_a_restart_epoch_number_and_base_go_on() -> None:
    site = Site()
    await site.pass_time(61)
    site.loop = site.started()
    site.show(100_010, 5_000)

    await site.pass_time(60)

    first, second = site.slots
    assert (first.stamp.epoch, first.stamp.seq + 1) == (second.stamp.epoch, second.stamp.seq)
    assert second.prev == line_hash(
        next(held.row.line for held in site.buffer.rows.values() if held.row.kind == "slot")
    )


async def test_a_lost_buffer_begins_a_new_epoch() -> None:
    site = Site()
    await site.pass_time(61)
    before = site.slots[0].stamp.epoch
    site.buffer.known.clear()
    recorder = Recorder(build.recorder_parts(site.buffer), "M1", "eastron-sdm630", None)

    assert recorder.state.epoch != before


async def test_another_profile_begins_a_new_epoch() -> None:
    site = Site()
    await site.pass_time(61)
    recorder = Recorder(build.recorder_parts(site.buffer), "M1", "abb-b23", site.buffer.known["M1"])

    await recorder.open(site.clock.now())

    assert "ProfileChanged" in site.details
    assert recorder.state.counter is None


async def test_a_full_disk_keeps_slots_in_memory_and_none_is_lost() -> None:
    site = Site()
    await site.pass_time(61)
    site.buffer.full = True
    await site.pass_time(180)
    inside = len(site.slots)
    site.buffer.full = False

    await site.pass_time(15)

    assert inside == 1
    assert len(site.slots) == 4
    seqs = [record.stamp.seq for record in site.buffer.records]
    assert seqs == list(range(1, len(seqs) + 1))


async def test_a_bus_that_is_gone_is_no_end() -> None:
    site = Site()
    site.bus.down = True
    await site.pass_time(200)
    site.bus.down = False

    await site.pass_time(61)

    assert len(site.slots) >= 1


async def test_live_registers_a_meter_refuses_do_not_cost_the_energy() -> None:
    """evcc#31143, telegraf#14671, #13630: one missing register cost the whole device."""
    site = Site()
    site.faults.refuse_gaps = True

    await site.pass_time(121)

    assert len(site.slots) == 2


async def test_a_stop_in_the_middle_of_a_commit_leaves_nothing_half_known() -> None:
    site = Site()
    entered = asyncio.Event()
    leave = asyncio.Event()
    commit = site.buffer.commit

    async def slow(state, rows, refusals):  # type: ignore[no-untyped-def]
        entered.set()
        await leave.wait()
        await commit(state, rows, refusals)

    site.buffer.commit = slow  # type: ignore[method-assign]
    task = asyncio.create_task(site.loop.run())
    await entered.wait()
    task.cancel()
    await asyncio.sleep(0)
    leave.set()
    await asyncio.gather(task, return_exceptions=True)

    assert [record.stamp.seq for record in site.buffer.records] == [1]
