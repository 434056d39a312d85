"""Drives thingsboard-gateway's own Modbus connector; run by its own interpreter, prints JSON.

Arguments: a JSON object with port, method, seconds, units, poll_ms, points, timeout_s, retries.
"""

import importlib
import json
import logging
import sys
import tempfile
import time
from typing import Any


class Gateway:
    """What the connector wants to know of its gateway."""

    def __init__(self) -> None:
        self.values = 0
        self.tb_client = None
        self.stopped = True  # its thread that ships logs ends at once
        self._devices: dict[str, Any] = {}

    def get_config_path(self) -> str:
        return tempfile.gettempdir() + "/"

    def get_devices(self) -> dict[str, Any]:
        return self._devices

    def add_device(self, name: str, content: Any, device_type: str = "") -> bool:
        self._devices[name] = content
        return True

    def del_device(self, name: str) -> None:
        self._devices.pop(name, None)

    def send_to_storage(self, _name: str, _id: str, data: Any) -> None:
        self.values += data.telemetry_datapoints_count

    def get_report_strategy_service(self) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def slave_config(job: dict[str, Any], unit: int) -> dict[str, Any]:
    """Return one meter as the gateway's documentation writes it."""
    return {
        "host": "127.0.0.1",
        "port": job["port"],
        "type": "tcp",
        "method": job["method"],
        "unitId": unit,
        "deviceName": f"meter {unit}",
        "byteOrder": "BIG",
        "wordOrder": "BIG",
        "timeout": job["timeout_s"],
        "retries": job["retries"],
        "pollPeriod": job["poll_ms"],
        "attributes": [],
        "attributeUpdates": [],
        "rpc": [],
        "timeseries": [
            {
                "tag": name,
                "type": "32float",
                "functionCode": 4,
                "objectsCount": 2,
                "address": address,
            }
            for name, address in job["points"].items()
        ],
    }


def main() -> None:
    """Run the connector for the seconds asked for."""
    job = json.loads(sys.argv[1])
    logging.disable(logging.CRITICAL)
    module = importlib.import_module("thingsboard_gateway.connectors.modbus.modbus_connector")
    gateway = Gateway()
    config = {
        "name": "modbus",
        "logLevel": "ERROR",
        "master": {"slaves": [slave_config(job, unit) for unit in job["units"]]},
    }
    connector = module.AsyncModbusConnector(gateway, config, "modbus")
    connector.open()
    time.sleep(job["warm_up_s"])
    values, cpu, wall = gateway.values, time.process_time(), time.monotonic()
    time.sleep(job["seconds"])
    print(
        json.dumps(
            {
                "values": gateway.values - values,
                "cpu_s": time.process_time() - cpu,
                "wall_s": time.monotonic() - wall,
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
    import os

    os._exit(0)
