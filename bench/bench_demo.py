"""The demo's floors, read off a demo that runs for a minute.

- From a slot's edge at the meter to its finalized mint: median under 20 s at 400 ms blocks.
- The agent: under 80 MB resident, under 5 % of one core at one reading per second.
"""

import json
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

import psutil

from tests.support.demo import RunningDemo, demo

SECONDS = 75
SETTLE_IN_S = 15
MS_PER_S = 1000


def main() -> None:
    """Run and print one JSON line."""
    with (
        tempfile.TemporaryDirectory(prefix="gtx-bench-") as folder,
        demo(Path(folder), SECONDS) as running,
    ):
        agents = watch_agents(running)
        result = running.end()
        result.check_sums()
        latencies_s = edge_to_final_s(Path(folder) / "cloud.db")
    print(
        json.dumps(
            {
                "bench": "demo",
                "readings": len(latencies_s),
                "edge_to_final_s": {
                    "median": round(statistics.median(latencies_s), 2),
                    "p95": round(statistics.quantiles(latencies_s, n=20)[-1], 2),
                    "max": round(max(latencies_s), 2),
                },
                "agents": agents,
            }
        )
    )


def watch_agents(running: RunningDemo) -> dict[str, dict[str, float]]:
    """Return resident memory and the share of one core of each agent, once they run steadily."""
    pids = running.wait_until_alive()
    time.sleep(SETTLE_IN_S)
    agents = {name: psutil.Process(pid) for name, pid in pids.items() if name.startswith("agent")}
    before = {name: sum(p.cpu_times()[:2]) for name, p in agents.items()}
    started = time.monotonic()
    time.sleep(SECONDS - SETTLE_IN_S - 15)
    elapsed_s = time.monotonic() - started
    return {
        name: {
            "resident_mb": round(process.memory_info().rss / 1e6, 1),
            "cpu_percent": round(
                (sum(process.cpu_times()[:2]) - before[name]) / elapsed_s * 100, 2
            ),
        }
        for name, process in agents.items()
    }


def edge_to_final_s(database: Path) -> list[float]:
    """Return, for each minted reading, the time from its slot's edge to the finalized mint."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    rows = connection.execute(
        "SELECT r.line, r.interval_s, b.final_at_ms FROM meter_readings r"
        " JOIN mint_batches b USING (batch_id) WHERE r.minted = 1"
    ).fetchall()
    connection.close()
    latencies: list[float] = []
    for line, interval_s, final_at_ms in rows:
        wall_ms = json.loads(line)["wall_ms"]
        edge_ms = wall_ms - wall_ms % (interval_s * MS_PER_S)
        latencies.append((final_at_ms - edge_ms) / MS_PER_S)
    return latencies


if __name__ == "__main__":
    main()
