"""What one transaction costs through the agent's bus, against bare pymodbus in the same run.

20 registers over Modbus TCP from a slave on another core; rounds alternate, medians are compared.
Floor: 1.3 times bare pymodbus. Prints one JSON line. Run: `python -m bench.bench_agent_polling`.
"""

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusException

from bench.agent_rig import Slave, SlaveSpec, pin, slave
from gridtokenx_agent.adapters.modbus import open_bus
from gridtokenx_agent.adapters.system import SystemClock
from gridtokenx_agent.errors import MeterTimeoutError

ROUNDS = 11
TRANSACTIONS = 3000
REGISTERS = 20
FLOOR = 1.3

Poll = Callable[[], Awaitable[object]]


async def measure(bus: Slave) -> dict[str, list[float]]:
    """Return µs per transaction of every round: wall time and CPU time of both."""
    _, port = bus.address
    bare = AsyncModbusTcpClient("127.0.0.1", port=port)
    await bare.connect()
    ours = open_bus(bus.url, SystemClock())
    polls: dict[str, Poll] = {
        "bare": lambda: bare.read_input_registers(0, count=REGISTERS, device_id=1),
        "agent": lambda: ours.read_words(1, 4, 0, REGISTERS, 0),
    }
    found: dict[str, list[float]] = {f"{name}_{of}": [] for name in polls for of in ("wall", "cpu")}
    for number in range(ROUNDS + 1):
        for name, poll in polls.items():
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(TRANSACTIONS):
                # A slave kept waiting by something else spoils one round, not the medians.
                with suppress(MeterTimeoutError, ModbusException):
                    await poll()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if number:  # the first round warms up
                found[f"{name}_wall"].append(wall / TRANSACTIONS * 1e6)
                found[f"{name}_cpu"].append(cpu / TRANSACTIONS * 1e6)
    bare.close()
    await ours.close()
    return found


def main() -> int:
    """Measure, print one line, and return 1 when the floor is missed."""
    with slave(SlaveSpec(kind="tcp")) as bus:
        pin()
        rounds = asyncio.run(measure(bus))
    medians = {name: statistics.median(values) for name, values in rounds.items()}
    wall = medians["agent_wall"] / medians["bare_wall"]
    cpu = medians["agent_cpu"] / medians["bare_cpu"]
    result = {
        "bench": "agent_polling",
        "transactions": ROUNDS * TRANSACTIONS,
        "us_per_transaction": {name: round(value, 1) for name, value in medians.items()},
        "ratio_wall": round(wall, 3),
        "ratio_cpu": round(cpu, 3),
        "floor": FLOOR,
        "ok": max(wall, cpu) <= FLOOR,
    }
    print(json.dumps(result))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
