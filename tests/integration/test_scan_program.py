"""`gtx-agent scan` as a program: interrupted, and completed by the shell."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gridtokenx_agent.adapters.simulator import BusSimulator
from tests.agent.test_scan_search import meter
from tests.support.served import served

pytestmark = pytest.mark.integration

AGENT = Path(sys.executable).parent / "gtx-agent"


def test_ctrl_c_prints_what_was_found_so_far() -> None:
    with served({1: meter()}) as url:
        process = subprocess.Popen(
            [AGENT, "scan", "--url", url, "--url", "tcp://192.0.2.1:502", "--profile", "abb-b23",
             "--json"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        # The second bus is one nobody answers for: there the search is interrupted.
        while "192.0.2.1" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)

    said = json.loads(out)
    assert process.returncode == 0
    assert said["interrupted"] is True
    assert [found["profile"] for found in said["meters"]] == ["abb-b23"]
    assert "[[bus.meter]]" in said["toml"]


async def test_serial_frames_over_tcp_are_scanned_by_their_url() -> None:
    service = await BusSimulator({2: meter()}).serve_rtu_tcp("127.0.0.1", 0)
    arguments = ["scan", "--url", service.url, "--profile", "abb-b23", "--json"]

    process = await asyncio.create_subprocess_exec(
        AGENT, *arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    out, _ = await process.communicate()

    await service.close()
    (found,) = json.loads(out)["meters"]
    assert (found["device_id"], found["profile"], found["sureness"]) == (2, "abb-b23", "certain")


def test_the_shell_completes_commands_and_profiles() -> None:
    def completed(words: str, place: int) -> str:
        environment = os.environ | {
            "_GTX_AGENT_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(place),
        }
        return subprocess.run(
            [AGENT], env=environment, capture_output=True, text=True, check=False
        ).stdout

    assert "plain,doctor" in completed("gtx-agent do", 1)
    assert "plain,abb-b23" in completed("gtx-agent scan --profile abb", 3)
