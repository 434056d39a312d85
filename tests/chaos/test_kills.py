"""kill -9 at random moments of a demo-sized run; afterwards every sum must agree."""

import contextlib
import json
import random
import re
import time
import urllib.request
from pathlib import Path

import pytest

from tests.support.demo import RunningDemo, demo

KILLS = 24
VICTIMS = ("agent-ada", "agent-ben", "cloud", "broker", "localnet's connections", "localnet")


@pytest.mark.chaos
@pytest.mark.timeout(1200)
@pytest.mark.xdist_group("kills")
def test_two_dozen_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    draw = random.Random(20261125)
    with demo(tmp_path) as running:
        running.wait_until_alive()
        for number in range(KILLS):
            time.sleep(draw.uniform(0.5, 4.5))
            strike(running, VICTIMS[number % len(VICTIMS)])
        # As long as a busy machine takes for it.
        running.wait_until(lambda: running.books().transactions >= 3, "three transactions")
        running.wait_until(lambda: running.books().readings_accepted > 20, "twenty readings")

        result = running.stop()

    line = result.check_sums()
    restarts = re.search(r"started again: (\d+)", result.out)
    assert restarts is not None
    assert int(restarts[1]) >= KILLS // 2
    assert line["readings_accepted"] > 20
    assert line["transactions"] >= 3


def strike(running: RunningDemo, victim: str) -> None:
    if victim == "localnet's connections":
        drop_connections(running.port("rpc"))
    else:
        running.kill(victim)


def drop_connections(port: int) -> None:
    """Cut every client of the localnet, the minter's requests in the middle."""
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "gtx_dropConnections", "params": []})
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}", body.encode(), {"Content-Type": "application/json"}
    )
    # Our own connection is cut as well, or the localnet is between two lives.
    with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=2):
        pass
