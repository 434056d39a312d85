"""The agent's loop over a bus of SDM630 meters, records kept in memory; for `bench_agent_anchors`.

Arguments: a JSON object with port, units and poll_ms.
"""

import asyncio
import json
import sys

from gridtokenx_agent.acquire import BusLoop, plan_meter
from gridtokenx_agent.adapters.modbus import open_bus
from gridtokenx_agent.adapters.profile_files import find_profile
from gridtokenx_agent.adapters.system import SystemClock
from gridtokenx_agent.counters import Limits
from gridtokenx_agent.reader import MeterReader
from gridtokenx_agent.recorder import Recorder
from tests.support import build
from tests.support.memory_buffer import MemoryBuffer


async def main() -> None:
    """Run until killed."""
    job = json.loads(sys.argv[1])
    clock = SystemClock()
    bus = open_bus(job.get("url") or f"rtu+tcp://127.0.0.1:{job['port']}?baudrate=9600", clock)
    profile = find_profile("eastron-sdm630")
    parts = build.recorder_parts(MemoryBuffer())
    meters = tuple(
        plan_meter(
            f"M{unit}",
            MeterReader(bus, unit, profile, None),
            Recorder(parts, f"M{unit}", "eastron-sdm630", None),
            Limits(rated_power_w=None, resolution_wh=1),
            interval_s=job["poll_ms"] // 1000,
            sample_s=0,
            at=clock.now(),
        )
        for unit in job["units"]
    )
    await BusLoop("bus", bus, meters, clock, lambda *_: None).run()


if __name__ == "__main__":
    asyncio.run(main())
