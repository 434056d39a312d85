"""The supervisor: a task that ends is started again; a broken buffer ends the agent."""

import asyncio
import logging

import pytest

from gridtokenx_agent.errors import BusDownError, StoreError
from gridtokenx_agent.tasks import Supervisor


async def until(condition: object) -> None:
    async with asyncio.timeout(30):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110 - no event to wait for
            await asyncio.sleep(0)


@pytest.mark.parametrize("error", [ValueError("a defect"), BusDownError("the port"), None])
async def test_a_task_that_ends_however_is_started_again_and_counted(
    error: Exception | None,
) -> None:
    """thingsboard-gateway#2132: an uncaught error ended the Modbus loop for good."""
    supervisor = Supervisor(first_pause_s=0)
    runs = 0

    async def job() -> None:
        nonlocal runs
        runs += 1
        if runs == 3:
            await asyncio.sleep(3600)
        if error is not None:
            raise error

    supervisor.start("bus", job)
    await until(lambda: runs == 3)
    await supervisor.stop_all()

    assert supervisor.restarts == {"bus": 2}


async def test_a_defect_in_one_task_leaves_the_others_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    supervisor = Supervisor(first_pause_s=0)
    turns = 0

    async def good() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def bad() -> None:
        raise ZeroDivisionError

    supervisor.start("good", good)
    supervisor.start("bad", bad)
    await until(lambda: turns > 50)
    await supervisor.stop_all()

    assert supervisor.restarts["good"] == 0
    assert supervisor.restarts["bad"] > 1
    assert any(record.exc_info for record in caplog.records)


async def test_a_buffer_that_cannot_be_used_ends_the_agent_with_its_reason() -> None:
    supervisor = Supervisor()

    async def job() -> None:
        raise StoreError("the buffer is broken")

    supervisor.start("bus", job)

    with pytest.raises(StoreError, match="the buffer is broken"):
        async with asyncio.timeout(30):
            await supervisor.failure()
    await supervisor.stop_all()


async def test_stopping_waits_until_the_task_has_cleaned_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    supervisor = Supervisor()
    steps: list[str] = []

    async def job() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.01)
            steps.append("committed")

    supervisor.start("bus", job)
    await asyncio.sleep(0)
    await supervisor.stop("bus")
    await supervisor.stop("no such task")
    await supervisor.stop_all()

    assert steps == ["committed"]
    assert caplog.records == []


async def test_nothing_begins_any_more_once_everything_ends() -> None:
    supervisor = Supervisor()
    runs: list[str] = []

    async def begun() -> None:
        runs.append("begun")

    async def job() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            supervisor.start("late", begun)

    supervisor.start("bus", job)
    await asyncio.sleep(0)
    await supervisor.stop_all()
    await asyncio.sleep(0)

    assert runs == []


@pytest.mark.parametrize("fault", [ValueError("a defect"), BusDownError("the port"), None])
async def test_a_job_that_loses_its_end_on_the_way_out_is_not_started_again(
    fault: Exception | None,
) -> None:
    supervisor = Supervisor(first_pause_s=0)
    began = 0

    async def deaf() -> None:
        nonlocal began
        began += 1
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            if fault is not None:
                raise fault from None

    supervisor.start("bus", deaf)
    await until(lambda: began == 1)
    async with asyncio.timeout(30):
        await supervisor.stop_all()

    assert began == 1
    assert supervisor.restarts == {}
