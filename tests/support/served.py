"""Simulated meters over TCP in a thread of their own, for commands that run a loop themselves."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Thread

from gridtokenx_agent.adapters.simulator import BusSimulator, MeterSimulator


@contextmanager
def served(meters: Mapping[int, MeterSimulator]) -> Iterator[str]:
    """Serve *meters*; the URL is good until the block ends."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    starting = BusSimulator(meters).serve_tcp("127.0.0.1", 0)
    service = asyncio.run_coroutine_threadsafe(starting, loop).result(5)
    try:
        yield service.url
    finally:
        asyncio.run_coroutine_threadsafe(service.close(), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()
