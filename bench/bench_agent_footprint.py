"""How large the agent is: installed, in memory with ten meters, idle, and after 100,000 polls.

Installs `gridtokenx[agent]` from this checkout into a fresh environment under `var/bench`, runs
it from there against ten simulated meters, and counts what it loads. Floors: 45 MB installed
(site-packages without pip and setuptools), 60 MB resident, 1 % of a core when idle, nothing of
the cloud loaded, and resident memory flat within 2 MB over 100,000 polls.

Prints one JSON line. Run: `python -m bench.bench_agent_footprint`.
"""

import asyncio
import gc
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from bench.agent_rig import SlaveSpec, pin, resident_mb, slave
from demo.processes import free_port
from gridtokenx_agent.adapters.keyfile import create_key
from gridtokenx_agent.adapters.modbus import open_bus
from gridtokenx_agent.adapters.profile_files import find_profile
from gridtokenx_agent.adapters.system import SystemClock
from gridtokenx_agent.errors import MeterTimeoutError
from gridtokenx_agent.reader import MeterReader
from tests.support import build
from tests.support.fake_cloud import FakeCloud
from tests.support.mosquitto import shipped_mosquitto

PLACE = Path("var/bench/agent")
NOT_OURS = ("pip", "setuptools", "pkg_resources", "_distutils_hack", "distutils-precedence")
METERS = 10
POLLS = 100_000
WARM_UP_S = 15
IDLE_S = 30
FLOORS = {"installed_mb": 45, "resident_mb": 60, "idle_cpu_percent": 1, "growth_mb": 2}


def install() -> float:
    """Install into a fresh environment; return its size in MB."""
    shutil.rmtree(PLACE, ignore_errors=True)
    venv.create(PLACE, with_pip=True)
    subprocess.run([PLACE / "bin/pip", "install", "-q", ".[agent]"], check=True)
    (packages,) = (PLACE / "lib").glob("python3*/site-packages")
    files = [
        path
        for entry in packages.iterdir()
        if not entry.name.startswith(NOT_OURS)
        for path in ([entry] if entry.is_file() else entry.rglob("*"))
        if path.is_file()
    ]
    return sum(path.stat().st_size for path in files) / 1e6


@contextmanager
def running(folder: Path, port: int, bus_url: str) -> Iterator[int]:
    """Run the installed agent with ten meters, one sample every ten seconds; yield its pid."""
    meters = "".join(
        f'[[bus.meter]]\nmeter_id = "M{unit}"\nprofile = "eastron-sdm630"\ndevice_id = {unit}\n'
        "interval_s = 900\nsample_s = 10\n"
        for unit in range(1, METERS + 1)
    )
    (folder / "word").write_text("gateway-word\n")
    config = folder / "agent.toml"
    config.write_text(
        f'[gateway]\nkey_file = "{folder / "gateway.key"}"\ntoken = "{build.TOKEN}"\n'
        f'[cloud]\npublic_key = "{build.CLOUD_KEY_TEXT}"\n'
        f'[mqtt]\nurl = "mqtt://127.0.0.1:{port}"\npassword_file = "{folder / "word"}"\n'
        f'[buffer]\npath = "{folder / "buffer.db"}"\n[[bus]]\nurl = "{bus_url}"\n{meters}'
    )
    command = [str((PLACE / "bin/gtx-agent").absolute()), "run", "--config", str(config)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, cwd=folder)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(timeout=20)


def watch() -> dict[str, Any]:
    """Return memory and processor time of the agent with ten meters."""
    with (
        tempfile.TemporaryDirectory(prefix="gtx-bench-") as place,
        slave(SlaveSpec(kind="tcp", longest=40)) as bus,
    ):
        folder, port = Path(place), free_port()
        gateway_id = create_key(folder / "gateway.key").gateway_id
        users = {gateway_id: "gateway-word", "cloud": "cloud-word"}
        with shipped_mosquitto(folder, users, port):
            cloud = FakeCloud(port, "cloud", "cloud-word")
            with running(folder, port, bus.url) as pid:
                time.sleep(WARM_UP_S)
                process = psutil.Process(pid)
                before_s = sum(process.cpu_times()[:2])
                time.sleep(IDLE_S)
                cpu_s = sum(process.cpu_times()[:2]) - before_s
                resident = resident_mb(pid)
                maps = Path(f"/proc/{pid}/maps").read_text()
            lines = len(cloud.known())
            cloud.close()
    return {
        "resident_mb": round(resident, 1),
        "idle_cpu_percent": round(100 * cpu_s / IDLE_S, 2),
        "lines_received": lines,
        "loads_solders": "solders" in maps,
    }


def cloud_modules() -> list[str]:
    """Return what of the cloud a whole agent imports."""
    script = (
        "import sys, pkgutil, importlib, gridtokenx_agent as a\n"
        "names = [m.name for m in pkgutil.walk_packages(a.__path__, 'gridtokenx_agent.')]\n"
        "[importlib.import_module(n) for n in names if not n.endswith('__main__')]\n"
        "bad = ('gridtokenx_cloud', 'solders', 'solana', 'fastapi', 'uvicorn', 'websockets')\n"
        "print(' '.join(n for n in sys.modules if n.partition('.')[0] in bad))\n"
    )
    found = subprocess.run(
        [(PLACE / "bin/python").absolute(), "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    return found.stdout.split()


async def growth_mb(url: str) -> float:
    """Return how much memory 100,000 transactions leave behind."""
    bus = open_bus(url, SystemClock())
    profile = find_profile("eastron-sdm630").model_copy(update={"min_gap_ms": 0})
    reader = MeterReader(bus, 1, profile, None)
    before = 0.0
    for number in range(POLLS // 2 + POLLS // 10):
        if number == POLLS // 10:
            gc.collect()
            before = resident_mb()
        with suppress(MeterTimeoutError):  # the slave was kept waiting by something else
            await reader.read_slot(identity=False)
    gc.collect()
    after = resident_mb()
    await bus.close()
    return after - before


def main() -> int:
    """Measure all, print one line, and return 1 when a floor is missed."""
    os.environ.pop("PYTHONPATH", None)
    installed = install()
    result: dict[str, Any] = {"bench": "agent_footprint", "meters": METERS, "polls": POLLS}
    result |= {"installed_mb": round(installed, 1), "cloud_modules": cloud_modules()}
    result |= watch()
    pin()
    with slave(SlaveSpec(kind="tcp")) as bus:
        result["growth_mb"] = round(asyncio.run(growth_mb(bus.url)), 2)
    missed = [name for name, floor in FLOORS.items() if result[name] >= floor]
    missed += [name for name in ("cloud_modules", "loads_solders") if result[name]]
    print(json.dumps({**result, "floors": FLOORS, "missed": missed}))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
