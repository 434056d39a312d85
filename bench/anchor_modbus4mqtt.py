"""Drives modbus4mqtt's own polling loop; run by its own interpreter, prints JSON.

It reads one device per process; here each device has a thread, which spares it seven interpreters.
Arguments: a JSON object with port, variant, seconds, units, poll_ms, points, batch.
"""

import importlib
import json
import logging
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any


class Broker:
    """Counts what would be published."""

    values = 0

    def publish(self, _topic: str, _value: Any, retain: bool = False) -> None:
        Broker.values += 1


def config_text(job: dict[str, Any], unit: int) -> str:
    """Return one meter as the program's documentation writes it; it knows no floats."""
    head = (
        f"ip: 127.0.0.1\nport: {job['port']}\nupdate_rate: {job['poll_ms'] / 1000}\n"
        f"device_address: {unit}\nscan_batching: {job['batch']}\nword_order: highlow\n"
        f"variant: {job['variant']}\nregisters:\n"
    )
    return head + "".join(
        f"  - pub_topic: meter{unit}/{name}\n    address: {address}\n    table: input\n"
        "    type: uint32\n    pub_only_on_change: false\n"
        for name, address in job["points"].items()
    )


def main() -> None:
    """Run the loops for the seconds asked for."""
    job = json.loads(sys.argv[1])
    logging.disable(logging.CRITICAL)
    module = importlib.import_module("modbus4mqtt.modbus4mqtt")
    folder = Path(tempfile.mkdtemp())
    for unit in job["units"]:
        path = folder / f"{unit}.yaml"
        path.write_text(config_text(job, unit))
        program = module.mqtt_interface("", 0, "", "", str(path), "meters", False, True, "", "", "")
        program._mqtt_client = Broker()
        program.connect_modbus()
        threading.Thread(target=program.loop_forever, daemon=True).start()
    time.sleep(job["warm_up_s"])
    values, cpu, wall = Broker.values, time.process_time(), time.monotonic()
    time.sleep(job["seconds"])
    print(
        json.dumps(
            {
                "values": Broker.values - values,
                "cpu_s": time.process_time() - cpu,
                "wall_s": time.monotonic() - wall,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
    os._exit(0)
