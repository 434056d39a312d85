"""`gtx-agent run` as a process: killed at any moment, it loses and doubles nothing."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gridtokenx_agent.adapters.keyfile import create_key
from gridtokenx_wire.encoding import line_hash, parse_line
from gridtokenx_wire.record import FIRST_PREV, SlotRecord
from tests.support import build
from tests.support.cloud_process import wait_until
from tests.support.fake_cloud import FakeCloud
from tests.support.mosquitto import shipped_mosquitto
from tests.support.ports import free_port

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("agent-program")]

AGENT = [sys.executable, "-m", "gridtokenx_agent"]


class Site:
    """Broker, cloud and a simulated meter; the agent is started by the test."""

    def __init__(self, folder: Path, broker_port: int, gateway_id: str) -> None:
        self.folder = folder
        self.cloud = FakeCloud(broker_port, "cloud", "cloud-word")
        self.config = folder / "agent.toml"
        meter_port = free_port()
        self.meter = subprocess.Popen(
            [
                *AGENT,
                "simulate",
                *("--profile", "eastron-sdm630", "--url", f"tcp://127.0.0.1:{meter_port}"),
                *("--speed", "3600"),
            ],
            stdout=subprocess.PIPE,
        )
        assert self.meter.stdout is not None
        assert self.meter.stdout.readline().startswith(b"serving")
        (folder / "word").write_text("gateway-word\n")
        self.config.write_text(
            f"""
[gateway]
key_file = "{folder / "gateway.key"}"
token = "{build.TOKEN}"
[cloud]
public_key = "{build.CLOUD_KEY_TEXT}"
[mqtt]
url = "mqtt://127.0.0.1:{broker_port}"
password_file = "{folder / "word"}"
[buffer]
path = "{folder / "buffer.db"}"
resend_after_s = 1
[[bus]]
url = "tcp://127.0.0.1:{meter_port}"
[[bus.meter]]
meter_id = "HOUSE-17"
profile = "eastron-sdm630"
device_id = 1
interval_s = 1
sample_s = 1
"""
        )

    def start(self) -> subprocess.Popen[bytes]:
        with (self.folder / "agent.log").open("ab") as log:
            return subprocess.Popen([*AGENT, "run", "--config", str(self.config)], stderr=log)

    def status(self) -> dict[str, Any]:
        done = subprocess.run(
            [*AGENT, "status", "--config", str(self.config), "--json"],
            capture_output=True,
            check=True,
        )
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def meter_status(self) -> dict[str, Any]:
        (meter,) = self.status()["meters"]
        found: dict[str, Any] = meter
        return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    signer = create_key(tmp_path / "gateway.key")
    port = free_port()
    users = {signer.gateway_id: "gateway-word", "cloud": "cloud-word"}
    with shipped_mosquitto(tmp_path, users, port):
        site = Site(tmp_path, port, signer.gateway_id)
        yield site
        site.cloud.close()
        site.meter.terminate()
        site.meter.communicate(timeout=90)


def test_kills_at_random_moments_lose_and_double_nothing(site: Site) -> None:
    draw = random.Random(17)
    for _ in range(8):
        agent = site.start()
        time.sleep(draw.uniform(0.8, 2.5))
        agent.kill()
        agent.wait(timeout=90)
    agent = site.start()
    seen = site.cloud.count("slot")
    site.cloud.wait_until(lambda: site.cloud.count("slot") > seen + 2)

    agent.send_signal(signal.SIGTERM)

    assert agent.wait(timeout=90) == 0
    assert site.cloud.conflicts == []
    assert_whole(site)


def assert_whole(site: Site) -> None:
    """All that was committed either arrived or still waits; the chain has no gap."""
    # Lines may still be on their way from the broker: what is judged is what was there at once.
    arrived = {key: site.cloud.lines[key] for key in sorted(site.cloud.known())}
    streams: dict[tuple[str, str], list[int]] = {}
    for meter_id, epoch, seq in arrived:
        streams.setdefault((meter_id, epoch), []).append(seq)
    waiting = site.status()["pending"]
    missing = sum(max(seqs) - len(seqs) for seqs in streams.values())
    assert missing <= sum(waiting.values())
    records = [parse_line(line) for line in arrived.values()]
    slots = [record for record in records if isinstance(record, SlotRecord)]
    assert len({slot.stamp.epoch for slot in slots}) == 1
    lines = [arrived[("HOUSE-17", s.stamp.epoch, s.stamp.seq)] for s in slots]
    if missing == 0:
        assert [slot.prev for slot in slots] == [FIRST_PREV, *map(line_hash, lines[:-1])]
    exports = [slot.export_wh for slot in slots]
    assert exports == sorted(exports)


def test_sigterm_ends_it_cleanly_and_status_shows_where_it_was(site: Site) -> None:
    agent = site.start()
    site.cloud.wait_until(lambda: site.cloud.count("slot") >= 2)

    # On a busy machine the meter, too, may be late at times.
    site.cloud.wait_until(lambda: site.meter_status()["state"] == "ok")
    meter = site.meter_status()
    agent.send_signal(signal.SIGTERM)

    assert agent.wait(timeout=90) == 0
    site.cloud.wait_until(lambda: site.cloud.states[-1] == "offline")
    assert meter["seq"] >= 3


def test_it_is_small_and_loads_nothing_of_the_cloud(site: Site) -> None:
    agent = site.start()
    site.cloud.wait_until(lambda: site.cloud.count("slot") >= 3)

    status = Path(f"/proc/{agent.pid}/status").read_text()
    maps = Path(f"/proc/{agent.pid}/maps").read_text()

    agent.terminate()
    assert agent.wait(timeout=90) == 0
    resident_kb = int(status.split("VmRSS:")[1].split()[0])
    assert resident_kb < 80 * 1024
    assert "solders" not in maps


def test_a_meter_and_a_broker_that_are_not_there_are_no_fault(tmp_path: Path) -> None:
    create_key(tmp_path / "gateway.key")
    config = tmp_path / "agent.toml"
    config.write_text(
        f"""
[gateway]
key_file = "{tmp_path / "gateway.key"}"
token = "{build.TOKEN}"
[cloud]
public_key = "{build.CLOUD_KEY_TEXT}"
[mqtt]
url = "mqtt://127.0.0.1:{free_port()}"
[buffer]
path = "{tmp_path / "buffer.db"}"
[[bus]]
url = "tcp://127.0.0.1:{free_port()}"
[[bus.meter]]
meter_id = "HOUSE-17"
profile = "eastron-sdm630"
device_id = 1
interval_s = 1
"""
    )
    log = tmp_path / "log"
    with log.open("wb") as file:
        agent = subprocess.Popen([*AGENT, "run", "--config", str(config)], stderr=file)
    told = ("broker trouble", "bus is down")
    wait_until(lambda: all(text in log.read_text() for text in told), "both are missed")
    # It goes on trying, and says no more of it.
    time.sleep(4)

    still_running = agent.poll() is None
    os.kill(agent.pid, signal.SIGINT)

    assert still_running
    assert agent.wait(timeout=90) == 0
    text = log.read_text()
    assert text.count("broker trouble") == 1
    assert text.count("bus is down") == 1
