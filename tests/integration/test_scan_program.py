"""`gtx-agent scan` as a program: interrupted, and completed by the shell."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.agent.test_scan_search import meter
from tests.support.served import served

pytestmark = pytest.mark.integration

AGENT = Path(sys.executable).parent / "gtx-agent"


def test_ctrl_c_prints_what_was_found_so_far() -> None:
    with served({1: meter()}) as url, ExitStack() as stack:
        # Nobody answers at the other ones: the search is interrupted at the first of them.
        silent = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        others = [f"tcp://127.0.0.1:{server.getsockname()[1]}" for server in silent]
        said = found_at_last(lambda: interrupted_at(others[0], [url, *others]))

    assert said["interrupted"] is True
    assert [found["profile"] for found in said["meters"]] == ["abb-b23"]
    assert "[[bus.meter]]" in said["toml"]


def interrupted_at(url: str, urls: list[str]) -> dict[str, Any]:
    """Scan *urls*, and press Ctrl-C when it is one's turn."""
    arguments = [part for one in urls for part in ("--url", one)]
    process = subprocess.Popen(
        [AGENT, "scan", *arguments, "--profile", "abb-b23", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while url not in (line := process.stderr.readline()):
        assert line, "it ended before that"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=90)
    assert process.returncode == 0
    said: dict[str, Any] = json.loads(out)
    return said


def found_at_last(scan: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Scan again while nothing is found: on a busy machine the meter may be late."""
    said = scan()
    for _ in range(10):
        said = said if said["meters"] else scan()
    return said


def test_serial_frames_over_tcp_are_scanned_by_their_url() -> None:
    def scan(url: str) -> dict[str, Any]:
        arguments = ["scan", "--url", url, "--profile", "abb-b23", "--json"]
        done = subprocess.run([AGENT, *arguments], capture_output=True, check=False)
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    with served({2: meter()}, rtu=True) as url:
        (found,) = found_at_last(lambda: scan(url))["meters"]

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
