"""Simulated meters over TCP in a thread of their own, for commands that run a loop themselves."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Thread

from gridtokenx_agent.adapters.simulator import BusSimulator, MeterSimulator


@contextmanager
def served(meters: Mapping[int, MeterSimulator], *, rtu: bool = False) -> Iterator[str]:
    """Serve *meters*, perhaps with serial frames; the URL is good until the block ends."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    bus = BusSimulator(meters)
    starting = (bus.serve_rtu_tcp if rtu else bus.serve_tcp)("127.0.0.1", 0)
    service = asyncio.run_coroutine_threadsafe(starting, loop).result(60)
    try:
        yield service.url
    finally:
        asyncio.run_coroutine_threadsafe(service.close(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
