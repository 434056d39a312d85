"""Wires the agent together, runs it, and stops it cleanly."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gridtokenx_agent.adapters.keyfile import load_key
from gridtokenx_agent.adapters.sqlite_buffer import open_buffer
from gridtokenx_agent.adapters.system import SystemClock, restart_process
from gridtokenx_agent.checking import mqtt_address as mqtt_address
from gridtokenx_agent.checking import read_settings as read_settings
from gridtokenx_agent.checking import warnings_of as warnings_of
from gridtokenx_agent.settings import AgentSettings
from gridtokenx_agent.wiring import Agent, Base

_log = logging.getLogger(__name__)


async def run(settings: AgentSettings, path: Path) -> None:
    """Run until SIGTERM or SIGINT; SIGHUP reads the configuration in *path* again.

    Raises:
        PermanentError: Something an operator must change; nothing was lost.
    """
    signer = load_key(settings.gateway.key_file)
    clock = SystemClock()
    mqtt_address(settings.mqtt, signer.gateway_id)
    buffer = open_buffer(
        settings.buffer.path,
        signer.gateway_id,
        settings.buffer.max_mb,
        settings.buffer.resend_after_s,
        clock.now().wall_ms,
        settings.buffer.reserve_mb,
    )
    try:
        agent = Agent(Base(settings=settings, path=path, signer=signer, clock=clock, buffer=buffer))
        for warning in warnings_of(settings):
            _log.warning(warning)
        _log.info("started", extra={"gateway_id": signer.gateway_id, "broker": settings.mqtt.url})
        await _until_stopped(agent)
        _log.info("stopped")
    finally:
        buffer.close()
    if agent.restarts:
        restart_process()


async def _until_stopped(agent: Agent) -> None:
    """Run until a signal, a restart, or what the agent can't go on with."""
    with _signals(agent.stop.set, agent.configuration.reload):
        stopped = asyncio.create_task(_wait(agent.stop))
        failed = asyncio.create_task(agent.supervisor.failure())
        try:
            await agent.start()
            await asyncio.wait([stopped, failed], return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                failed.result()
        finally:
            stopped.cancel()
            failed.cancel()
            await agent.supervisor.stop_all()
            await asyncio.gather(stopped, failed, return_exceptions=True)


@contextmanager
def _signals(stop: Callable[[], None], reload: Callable[[], Awaitable[None]]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Future[None]] = set()

    def begin_reload() -> None:
        job = asyncio.ensure_future(reload())
        reloads.add(job)
        job.add_done_callback(reloads.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, begin_reload)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with contextlib.suppress(ValueError):
                loop.remove_signal_handler(number)
        for job in reloads:
            job.cancel()


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
