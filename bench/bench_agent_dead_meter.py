"""Eight SDM630 at 9600 baud on one serial line, one of them dead, read every 5 s, in real time.

A pseudo-terminal whose slaves take as long as the wire would. Counted once the dead meter is in
quarantine. Floors: the live meters lose no poll, and none waits longer than 5.5 s.

Prints one JSON line. Run: `python -m bench.bench_agent_dead_meter`.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.agent_rig import SlaveSpec, slave
from bench.bench_agent_anchors import DEAD, INTERVAL_S, LATENCY_S, UNITS, live_polls

SETTLE_S = 35
SECONDS = 90
FLOOR_GAP_S = 5.5


def main() -> int:
    """Measure, print one line, and return 1 when a floor is missed."""
    here = Path(__file__).parent.resolve()
    with tempfile.TemporaryDirectory(prefix="gtx-bench-") as place:
        link = f"{place}/bus"
        spec = SlaveSpec(
            kind="pty", link=link, dead=(DEAD,), baudrate=9600, latency_s=LATENCY_S, longest=40
        )
        with slave(spec) as bus:
            job = {"url": bus.url, "units": UNITS, "poll_ms": INTERVAL_S * 1000}
            process = subprocess.Popen(
                [sys.executable, str(here / "anchor_agent.py"), json.dumps(job)],
                env=os.environ | {"PYTHONPATH": str(here.parent)},
                stderr=subprocess.DEVNULL,
            )
            time.sleep(SETTLE_S)
            bus.seen()
            began_s = time.monotonic()
            time.sleep(SECONDS)
            seen = bus.seen()
            ended_s = time.monotonic()
            process.kill()
            process.wait()
    found = live_polls(seen, began_s, ended_s)
    ok = found["polls_lost_percent"] == 0 and found["worst_gap_s"] <= FLOOR_GAP_S
    print(
        json.dumps(
            {
                "bench": "agent_dead_meter",
                "seconds": SECONDS,
                **found,
                "requests_to_the_dead": seen.requests.get(DEAD, 0),
                "floor_gap_s": FLOOR_GAP_S,
                "ok": ok,
            }
        )
    )
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
