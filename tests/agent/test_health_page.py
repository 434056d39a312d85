"""Metrics, watchdog and quiet logs."""

import asyncio
import logging

import pytest

from gridtokenx_agent.adapters.metrics_http import MetricsServer
from gridtokenx_agent.errors import BufferFullError, ConfigError, MeterTimeoutError
from gridtokenx_agent.health import UnitState
from gridtokenx_agent.logs import Quiet
from gridtokenx_agent.metrics import (
    BufferDepth,
    Figure,
    buffer_figures,
    command_figures,
    process_figures,
    render,
    tally_figures,
    uplink_figures,
)
from gridtokenx_agent.observed import ObservedBuffer, ObservedBus, Tally
from gridtokenx_agent.traffic import UplinkCounts
from gridtokenx_agent.watchdog import STUCK_AFTER_MS, Heart, Watchdog
from tests.support import build
from tests.support.fake_bus import FakeBus, SteadyClock
from tests.support.memory_buffer import MemoryBuffer
from tests.support.site import Site


def test_the_text_is_what_prometheus_reads() -> None:
    text = render(
        [
            Figure("x", "counter", "Help", {(("bus", 'a"b\\c\nd'),): 3}),
            Figure("y", "gauge", "Help", {(): 0}),
        ]
    )

    assert text == (
        "# HELP gridtokenx_agent_x_total Help\n# TYPE gridtokenx_agent_x_total counter\n"
        'gridtokenx_agent_x_total{bus="a\\"b\\\\c\\nd"} 3\n'
        "# HELP gridtokenx_agent_y Help\n# TYPE gridtokenx_agent_y gauge\n"
        "gridtokenx_agent_y 0\n"
    )


def test_every_figure_has_a_name_of_its_own() -> None:
    depth = BufferDepth(rows={"slot": 2}, oldest_wall_ms=1000, dead=0, file_bytes=4096)
    figures = [
        *process_figures("gtx-agent 1", 2, {"bus": 1}, ()),
        *tally_figures(Tally()),
        *uplink_figures(UplinkCounts()),
        *command_figures({"done": 1}),
        *buffer_figures(depth, 61_000),
    ]

    names = [figure.name for figure in figures]

    assert len(set(names)) == len(names)
    assert "gridtokenx_agent_buffer_oldest_age_seconds 60\n" in render(figures)


async def test_what_was_committed_and_refused_is_counted() -> None:
    tally = Tally()
    inner = MemoryBuffer()
    buffer = ObservedBuffer(inner, tally)
    told: list[int] = []
    buffer.listener = lambda _state, rows: told.append(len(rows))

    await buffer.commit(build.state("M1", 1), [build.row("slot", "M1", 1)], {"Leap": 2})
    inner.full = True
    with pytest.raises(BufferFullError):
        await buffer.commit(build.state("M1", 2), [build.row("slot", "M1", 2)], {})
    await asyncio.sleep(0)

    assert tally.records == {("M1", "slot"): 1}
    assert tally.rejects == {("M1", "Leap"): 2}
    assert (tally.commit_failures, told) == (1, [1])
    assert await buffer.states() == inner.known


async def test_transactions_are_counted_by_how_they_ended() -> None:
    tally = Tally()
    clock = SteadyClock()
    bus = ObservedBus(FakeBus({}, clock), "b", clock, tally)

    with pytest.raises(MeterTimeoutError):
        await bus.read_words(1, 3, 0, 2, 0)
    await bus.close()

    assert tally.transactions == {("b", "MeterTimeout"): 1}


def test_the_watchdog_is_fed_only_while_every_part_moves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heart, clock, told = Heart(), SteadyClock(), list[str]()
    watchdog = Watchdog(heart, lambda: ("bus", "store", "uplink"), clock, told.append)

    watchdog.feed()
    clock.advance(STUCK_AFTER_MS)
    heart.beat("bus", clock.mono_ms)
    heart.beat("store", clock.mono_ms)
    watchdog.feed()
    clock.advance(1)
    watchdog.feed()
    watchdog.feed()
    heart.beat("uplink", clock.mono_ms)
    watchdog.feed()

    assert told == ["WATCHDOG=1"] * 3
    assert [vars(record)["parts"] for record in caplog.records] == ["uplink"]


async def test_a_page_is_served_and_a_port_that_is_taken_is_said() -> None:
    async def text() -> str:
        return "x 1\n"

    async def get(port: int, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer

    late: list[str] = []
    server = MetricsServer("127.0.0.1", 0, text, lambda: tuple(late))
    task = asyncio.create_task(server.run())
    while server.port == 0:  # noqa: ASYNC110 - no event tells it
        await asyncio.sleep(0.01)

    page = await get(server.port, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    well = await get(server.port, b"GET /healthz HTTP/1.1\r\n\r\n")
    late.append("uplink")
    unwell = await get(server.port, b"GET /healthz HTTP/1.1\r\n\r\n")
    other = await get(server.port, b"POST /metrics HTTP/1.1\r\n\r\n")
    long = await get(server.port, b"GET /" + b"x" * 20_000)
    with pytest.raises(ConfigError, match=r"metrics\.bind"):
        await MetricsServer("127.0.0.1", server.port, text, tuple).run()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert page.startswith(b"HTTP/1.1 200 OK")
    assert page.endswith(b"x 1\n")
    assert b"200 OK" in well
    assert b"503" in unwell
    assert b"uplink is stuck" in unwell
    assert b"405" in other
    assert long == b""


class Log(logging.Handler):
    def __init__(self, site: Site) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.addFilter(Quiet(lambda: site.clock.mono_ms / 1000))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


async def in_the_log(site: Site, hours: int, change: object = None) -> list[str]:
    log = Log(site)
    logger = logging.getLogger("gridtokenx_agent")
    logger.addHandler(log)
    try:
        for minute in range(hours * 60):
            if callable(change):
                change(minute)
            await site.pass_time(60)
    finally:
        logger.removeHandler(log)
    return log.lines


async def test_a_meter_that_is_dead_for_an_hour_writes_at_most_20_lines() -> None:
    """EVerest#523: an absent meter wore the flash out with log lines."""
    site = Site(sample_s=5)
    await site.pass_time(120)
    site.faults.silent = True

    lines = await in_the_log(site, 1)

    assert site.meter.unit.state is UnitState.DOWN
    assert 1 <= len(lines) <= 20


async def test_a_meter_that_comes_and_goes_for_a_day_writes_at_most_20_lines_an_hour() -> None:
    site = Site(sample_s=5)

    def flap(minute: int) -> None:
        site.faults.silent = minute % 2 == 0

    lines = await in_the_log(site, 5, flap)

    assert len(lines) <= 5 * 20


def test_a_story_left_out_is_summed_up_an_hour_later() -> None:
    now = [0.0]
    quiet = Quiet(lambda: now[0])

    def tell(meter_id: str) -> logging.LogRecord | None:
        record = logging.makeLogRecord({"msg": "meter does not answer", "meter_id": meter_id})
        return record if quiet.filter(record) else None

    told = [tell("M1") for _ in range(10)]
    other = tell("M2")
    now[0] = 3600
    later = tell("M1")

    assert [record is not None for record in told] == [True] * 6 + [False] * 4
    assert other is not None
    assert later is not None
    assert vars(later)["left_out"] == 4
