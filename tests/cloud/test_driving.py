"""Batches driven side by side, and what keeps new ones from being sealed."""

import asyncio
from pathlib import Path

import pytest

from gridtokenx_cloud.driving import Driving
from gridtokenx_cloud.errors import EmptyBatchError
from gridtokenx_cloud.settle import MintingHaltedError
from tests.support.mint_world import minter, new_world


async def test_no_more_batches_are_driven_than_there_is_room_for_and_none_twice() -> None:
    begun: list[int] = []
    gate = asyncio.Event()

    async def drive(batch_id: int) -> None:
        begun.append(batch_id)
        await gate.wait()

    driving = Driving(drive)
    driving.take_up([1, 2, 3], most=2)
    driving.take_up([1, 2, 3], most=2)
    await asyncio.sleep(0)
    gate.set()
    await driving.any_ended()
    await asyncio.gather(*driving.tasks)
    driving.reap()
    driving.take_up([3], most=2)
    await driving.any_ended()

    assert begun == [1, 2, 3]


async def test_a_batch_that_waiting_cannot_help_halts_the_minting_and_is_left_alone() -> None:
    async def drive(batch_id: int) -> None:
        raise EmptyBatchError(f"batch {batch_id}")

    driving = Driving(drive)
    driving.take_up([7], most=5)
    await driving.any_ended()
    driving.reap()
    driving.take_up([7], most=5)

    assert driving.halted == ("batch 7: batch 7",)
    assert driving.stuck
    assert len(driving) == 0


async def test_trouble_wakes_whoever_waits_for_an_end() -> None:
    async def drive(batch_id: int) -> None:
        driving.halt(batch_id, "the key is refused")
        await asyncio.Event().wait()

    driving = Driving(drive)
    driving.take_up([1, 2], most=5)
    await driving.any_ended()
    halted = driving.halted
    driving.lift(1)
    driving.lift(2)
    await driving.put_down()

    assert halted == ("batch 1: the key is refused", "batch 2: the key is refused")
    assert driving.halted == ()
    assert len(driving) == 0


async def test_a_batch_without_recipients_is_an_operators_to_look_at(tmp_path: Path) -> None:
    world = await new_world()
    with minter(world, tmp_path / "cloud.db") as m:
        m.credit(1, 500)
        m.service._seal(m.service._validated(m.service.fetch_unminted_readings(50)), 20)
        m.database.connection.execute("UPDATE mint_items SET held_reason = 'taken out'")

        with pytest.raises(MintingHaltedError, match="no recipients"):
            await m.service.drain()

    assert world.supply() == 0
