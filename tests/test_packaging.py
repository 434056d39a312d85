"""What each program loads, and what the wheel carries."""

import subprocess
import sys

HEAVY = ("solders", "solana", "fastapi", "uvicorn", "websockets", "gridtokenx_cloud")


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_a_running_agent_never_loads_a_cloud_package() -> None:
    names = loaded_by(
        "import gridtokenx_agent.__main__, gridtokenx_agent.app\n"
        "import gridtokenx_agent.adapters.modbus, gridtokenx_agent.adapters.mqtt\n"
        "import gridtokenx_agent.adapters.sqlite_buffer, gridtokenx_agent.commands.operate"
    )

    assert names.isdisjoint(HEAVY)
    assert {"pymodbus", "paho", "sqlite_utils"} <= names


def test_a_running_cloud_never_loads_the_agent() -> None:
    names = loaded_by("import gridtokenx_cloud.__main__, gridtokenx_cloud.app")

    assert names.isdisjoint({"gridtokenx_agent", "pymodbus", "serial"})
