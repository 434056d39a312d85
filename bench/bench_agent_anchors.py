"""The agent beside thingsboard-gateway and modbus4mqtt, on the same slaves, in one run.

Each of the two lives in its own environment under `var/bench` (made here with pip when missing)
and runs its own polling code: thingsboard-gateway its Modbus connector, modbus4mqtt its loop.
All poll the same ten points of an SDM630 that takes 40 registers in one request:

- values read per second of CPU time, on one core, over Modbus TCP; best of alternating rounds;
- requests and registers per poll of a meter;
- eight meters at 9600 baud behind a serial server, one dead, every 5 s: polls of the live ones.

Prints one JSON line. Run: `python -m bench.bench_agent_anchors`.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.agent_rig import Seen, Slave, SlaveSpec, pin, slave
from gridtokenx_agent.adapters.modbus import open_bus
from gridtokenx_agent.adapters.profile_files import find_profile
from gridtokenx_agent.adapters.system import SystemClock
from gridtokenx_agent.errors import MeterTimeoutError
from gridtokenx_agent.reader import MeterReader
from gridtokenx_agent.reading import SLOT_POINTS

PLACE = Path("var/bench")
NEEDS = {
    "thingsboard-gateway": (
        "thingsboard-gateway", "pymodbus==3.9.2", "pyserial", "pyserial-asyncio",
    ),
    "modbus4mqtt": ("modbus4mqtt",),
}  # fmt: skip
PROFILE = find_profile("eastron-sdm630")
POINTS = {name: spec.address for name in SLOT_POINTS if (spec := PROFILE.spec(name)) is not None}
UNITS = list(range(1, 9))
DEAD = 8
INTERVAL_S = 5
ROUNDS = 3
SPEED_S = 4
DEAD_S = 60
SETTLE_S = 30
LATENCY_S = 0.02

Driver = Callable[[Slave, dict[str, Any]], dict[str, float]]


def install() -> dict[str, str]:
    """Make the environments; return what could not be installed, and why."""
    failures = {}
    for name, packages in NEEDS.items():
        folder = PLACE / name
        if not (folder / "bin/python").exists():
            venv.create(folder, with_pip=True)
        done = subprocess.run(
            [folder / "bin/pip", "install", "-q", *packages],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            failures[name] = done.stderr.strip().splitlines()[-1]
    return failures


def agent(bus: Slave, job: dict[str, Any]) -> dict[str, float]:
    """Poll with the agent's bus and reader, as fast as it goes."""

    async def poll() -> dict[str, float]:
        link = open_bus(bus.url, SystemClock())
        # The rest the meter wants between requests is no work of the program.
        profile = PROFILE.model_copy(update={"min_gap_ms": 0})
        readers = [MeterReader(link, unit, profile, None) for unit in job["units"]]
        polls = 0
        cpu, wall = time.process_time(), time.monotonic()
        while time.monotonic() - wall < job["seconds"]:
            for reader in readers:
                with suppress(MeterTimeoutError):
                    await reader.read_slot(identity=False)
                    polls += 1
        cpu, wall = time.process_time() - cpu, time.monotonic() - wall
        await link.close()
        return {"values": polls * len(POINTS), "cpu_s": cpu, "wall_s": wall}

    return asyncio.run(poll())


def other(name: str) -> Driver:
    """Return what runs the named program with its own interpreter."""
    script = Path(__file__).with_name(f"anchor_{name.partition('-')[0]}.py")

    def run(bus: Slave, job: dict[str, Any]) -> dict[str, float]:
        job = job | {"port": bus.address[1], "points": POINTS}
        done = subprocess.run(
            [(PLACE / name / "bin/python").absolute(), script, json.dumps(job)],
            capture_output=True,
            check=True,
            cwd=PLACE,
        )
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
        return found

    return run


def speed(drivers: dict[str, tuple[Driver, dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Return values per CPU second, and what one poll of a meter asks the bus for."""
    best: dict[str, dict[str, float]] = {name: {"values_per_cpu_s": 0} for name in drivers}
    for _ in range(ROUNDS):
        for name, (driver, extra) in drivers.items():
            with slave(SlaveSpec(kind="tcp", longest=PROFILE.max_registers)) as bus:
                found = driver(bus, {"units": UNITS, "seconds": SPEED_S, "warm_up_s": 1, **extra})
                rate = round(found["values"] / found["cpu_s"])
                best[name]["values_per_cpu_s"] = max(rate, best[name]["values_per_cpu_s"])
    return best


def requests(drivers: dict[str, tuple[Driver, dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Return requests and registers for one poll of the whole point set."""
    found = {}
    for name, (driver, extra) in drivers.items():
        with slave(SlaveSpec(kind="tcp", longest=PROFILE.max_registers)) as bus:
            job = {"units": [1], "seconds": 3, "warm_up_s": 0, **extra, "poll_ms": 1000}
            driver(bus, job)
            seen = bus.seen()
        polls = max(seen.polls.get(1, 0), 1)
        found[name] = {
            "requests_per_poll": round(seen.requests[1] / polls, 1),
            "registers_per_poll": round(seen.registers.get(1, 0) / polls, 1),
        }
    return found


def one_dead(drivers: dict[str, tuple[list[str], dict[str, Any]]]) -> dict[str, Any]:
    """Return what the live meters of a bus with a dead one get, for each program."""
    found = {}
    for name, (command, job) in drivers.items():
        spec = SlaveSpec(kind="rtu+tcp", dead=(DEAD,), baudrate=9600, latency_s=LATENCY_S)
        with slave(spec) as bus:
            job = job | {"port": bus.address[1], "points": POINTS, "units": UNITS}
            process = subprocess.Popen(
                [*command, json.dumps(job)], stdout=subprocess.DEVNULL, cwd=PLACE
            )
            time.sleep(SETTLE_S)
            bus.seen()
            began_s = time.monotonic()
            time.sleep(DEAD_S)
            seen = bus.seen()
            ended_s = time.monotonic()
            process.kill()
            process.wait()
        found[name] = live_polls(seen, began_s, ended_s)
    return found


def live_polls(seen: Seen, began_s: float, ended_s: float) -> dict[str, float]:
    """Return lost polls and the worst gap of the live meters within the window."""
    due = int((ended_s - began_s) // INTERVAL_S)
    polls = {unit: seen.energy_s.get(unit, []) for unit in UNITS if unit != DEAD}
    gaps = [
        after - before
        for times in polls.values()
        for before, after in pairwise([began_s, *times, ended_s])
    ]
    got = [min(len(times), due) for times in polls.values()]
    return {
        "polls_due_per_meter": due,
        "polls_lost_percent": round(100 * (1 - sum(got) / (due * len(got))), 1),
        "fewest_polls": min(got),
        "worst_gap_s": round(max(gaps), 2),
    }


def main() -> int:
    """Measure all, print one line, and return 1 when the agent is not ahead."""
    failures = install()
    pin()
    gone = set(failures)
    saturating = {"timeout_s": 30, "retries": 3, "method": "socket", "poll_ms": 20}
    sparse = {"variant": "tcp", "poll_ms": 0, "batch": PROFILE.max_registers}
    fast: dict[str, tuple[Driver, dict[str, Any]]] = {
        "agent": (agent, {}),
        "thingsboard-gateway": (other("thingsboard-gateway"), saturating),
        "modbus4mqtt": (other("modbus4mqtt"), sparse),
    }
    fast = {name: entry for name, entry in fast.items() if name not in gone}
    rates, asked = speed(fast), requests(fast)
    here = Path(__file__).parent.resolve()
    seconds = {"seconds": 10_000, "warm_up_s": 0, "poll_ms": INTERVAL_S * 1000}
    python = {name: str((PLACE / name / "bin/python").absolute()) for name in NEEDS}
    tb = [python["thingsboard-gateway"], str(here / "anchor_thingsboard.py")]
    m4 = [python["modbus4mqtt"], str(here / "anchor_modbus4mqtt.py")]
    slow: dict[str, tuple[list[str], dict[str, Any]]] = {
        "agent": ([sys.executable, str(here / "anchor_agent.py")], seconds),
        "thingsboard-gateway, its defaults": (
            tb, {**seconds, "timeout_s": 30, "retries": 3, "method": "rtu"},
        ),
        "thingsboard-gateway, 1 s and no retries": (
            tb, {**seconds, "timeout_s": 1, "retries": 0, "method": "rtu"},
        ),
        "modbus4mqtt": (
            m4, {**seconds, "variant": "rtu-over-tcp", "batch": PROFILE.max_registers},
        ),
    }  # fmt: skip
    slow = {name: entry for name, entry in slow.items() if name.partition(",")[0] not in gone}
    os.environ["PYTHONPATH"] = str(here.parent)
    lost = one_dead(slow)
    print(
        json.dumps(
            {
                "bench": "agent_anchors",
                "programs": {name: rates[name] | asked[name] for name in fast},
                "one_of_eight_dead": lost,
                "not_installed": failures,
            }
        )
    )
    behind = any(
        rates[name]["values_per_cpu_s"] > rates["agent"]["values_per_cpu_s"]
        or asked[name]["requests_per_poll"] < asked["agent"]["requests_per_poll"]
        for name in fast
    )
    return int(behind or lost["agent"]["polls_lost_percent"] > 0)


if __name__ == "__main__":
    sys.exit(main())
