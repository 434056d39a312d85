"""`gtx-cloud gateway command` against a running agent: a broker, a meter, two programs."""

import json
import os
import secrets
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from solders.keypair import Keypair

from gridtokenx_agent.adapters.keyfile import create_key
from tests.support import build
from tests.support.here import gtx_cloud_here
from tests.support.mosquitto import shipped_mosquitto
from tests.support.ports import free_port

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("agent-program")]

AGENT = [sys.executable, "-m", "gridtokenx_agent"]
CLOUD = [sys.executable, "-m", "gridtokenx_cloud"]


class Site:
    """An agent with one meter, and the cloud's command line."""

    def __init__(self, folder: Path, broker_port: int, gateway_id: str) -> None:
        self.folder = folder
        self.gateway_id = gateway_id
        self.broker_port = broker_port
        self.meter_port = free_port()
        self.metrics_port = free_port()
        self.config = folder / "agent.toml"
        self.log = folder / "agent.log"
        key = Keypair()
        (folder / "cloud.json").write_text(key.to_json())
        (folder / "cloud.json").chmod(0o600)
        self.cloud_key = str(key.pubkey())
        (folder / "word").write_text("gateway-word\n")
        self.config.write_text(self.text())
        self.database_url = f"sqlite:///{folder / 'cloud.db'}"
        self.environment = {
            **os.environ,
            "GTX_CLOUD_ENVIRONMENT": "development",
            "GTX_CLOUD_CLOUD_KEY": f"file:{folder / 'cloud.json'}",
            "GTX_CLOUD_MQTT_URL": f"mqtt://127.0.0.1:{broker_port}",
            "GTX_CLOUD_MQTT_USERNAME": "cloud",
            "GTX_CLOUD_MQTT_PASSWORD": "cloud-word",
            "GTX_CLOUD_DATABASE_URL": self.database_url,
        }
        self.cloud("migrate")
        self.cloud("gateway", "add", gateway_id)
        self.meter = subprocess.Popen(
            [
                *AGENT,
                "simulate",
                *("--profile", "eastron-sdm630", "--url", f"tcp://127.0.0.1:{self.meter_port}"),
            ],
            stdout=subprocess.PIPE,
        )
        assert self.meter.stdout is not None
        self.meter.stdout.readline()

    def text(self, *, meter_port: int | None = None, interval_s: int = 1) -> str:
        return f"""
[gateway]
key_file = "{self.folder / "gateway.key"}"
token = "{build.TOKEN}"
[cloud]
public_key = "{self.cloud_key}"
[mqtt]
url = "mqtt://127.0.0.1:{self.broker_port}"
password_file = "{self.folder / "word"}"
[buffer]
path = "{self.folder / "buffer.db"}"
[metrics]
bind = "127.0.0.1:{self.metrics_port}"
[[bus]]
url = "tcp://127.0.0.1:{meter_port or self.meter_port}"
[[bus.meter]]
meter_id = "HOUSE-17"
profile = "eastron-sdm630"
device_id = 1
interval_s = {interval_s}
"""

    def start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            agent = subprocess.Popen([*AGENT, "run", "--config", str(self.config)], stderr=log)
        self.wait_until(lambda: "gridtokenx_agent_uplink_connected 1" in self.metrics())
        self.wait_until(lambda: "gridtokenx_agent_readings_total" in self.slots())
        return agent

    def cloud(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return gtx_cloud_here(self.environment, *arguments)

    def command(self, *arguments: str) -> dict[str, Any]:
        done = self.cloud("gateway", "command", self.gateway_id, *arguments, "--json")
        assert done.returncode in (0, 1), done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def asked_until(
        self, good: Callable[[dict[str, Any]], bool], *arguments: str
    ) -> dict[str, Any]:
        """Ask until the answer is good: on a busy machine the meter may be late at times."""
        deadline = time.monotonic() + 90
        while not good(answer := self.command(*arguments)):
            assert time.monotonic() < deadline, answer
        return answer

    def metrics(self) -> str:
        try:
            url = f"http://127.0.0.1:{self.metrics_port}/metrics"
            with urllib.request.urlopen(url, timeout=30) as page:
                text: str = page.read().decode()
        except OSError:
            return ""
        return text

    def slots(self) -> str:
        lines = self.metrics().splitlines()
        return "".join(line for line in lines if "readings_total{" in line and "slot" in line)

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = 90) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def audit(self) -> list[tuple[str, str]]:
        db = sqlite3.connect(self.folder / "cloud.db")
        rows = db.execute(
            "SELECT action, detail FROM audit_log WHERE subject = ? ORDER BY entry",
            (self.gateway_id,),
        ).fetchall()
        db.close()
        return [(action, detail) for action, detail in rows]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    signer = create_key(tmp_path / "gateway.key")
    port = free_port()
    users = {signer.gateway_id: "gateway-word", "cloud": "cloud-word"}
    with shipped_mosquitto(tmp_path, users, port):
        site = Site(tmp_path, port, signer.gateway_id)
        yield site
        site.meter.terminate()
        site.meter.communicate(timeout=90)


@pytest.fixture
def agent(site: Site) -> Iterator[subprocess.Popen[bytes]]:
    running = site.start()
    yield running
    running.kill()
    running.wait(timeout=90)


def test_the_cloud_reads_now_scans_and_asks_for_the_status(
    site: Site, agent: subprocess.Popen[bytes]
) -> None:
    read = site.asked_until(was_read, "read-now")
    scan = site.command("scan", f"tcp://127.0.0.1:{site.meter_port}")
    beyond = site.command("scan", f"tcp://127.0.0.1:{site.meter_port} 1-247")
    status = site.asked_until(is_well, "status")
    elsewhere = site.command("scan", "tcp://127.0.0.1:1")

    assert agent.poll() is None
    assert read["outcome"] == "done"
    (meter,) = read["result"]["meters"]
    assert meter["meter_id"] == "HOUSE-17"
    assert isinstance(meter["import_wh"], int)
    assert scan["outcome"] == "done"
    assert beyond["outcome"] == "refused"
    assert "ask for fewer" in beyond["detail"]
    assert status["outcome"] == "done"
    assert elsewhere["outcome"] == "refused"
    actions = [action for action, _ in site.audit() if action != "gateway_enrolled"]
    assert len(actions) >= 2 * 5
    assert actions == ["command_sent", "command_answered"] * (len(actions) // 2)


def was_read(answer: dict[str, Any]) -> bool:
    return "import_wh" in answer["result"]["meters"][0]


def is_well(answer: dict[str, Any]) -> bool:
    return bool(answer["result"]["buffer"]["meters"][0]["state"] == "ok")


def test_a_new_configuration_holds_and_a_dead_one_is_taken_back(
    site: Site, agent: subprocess.Popen[bytes]
) -> None:
    good = site.write("good.toml", site.text(interval_s=5))
    dead = site.write("dead.toml", site.text(meter_port=free_port()))
    wrong = site.write("wrong.toml", site.text(interval_s=7))

    answers = [site.command("set-config", path) for path in (good, good)]
    answers.append(site.command("set-config", dead))
    while answers[-1]["outcome"] == "done":
        # The meter was late just before, on a busy machine: nobody misses one that was away.
        site.asked_until(lambda answer: answer["outcome"] == "done", "set-config", good)
        site.asked_until(was_read, "read-now")
        answers[-1] = site.command("set-config", dead)
    answers.append(site.command("set-config", wrong))
    waiting = site.command("status")["result"]["buffer"]["pending"]

    assert [answer["outcome"] for answer in answers] == ["done", "done", "failed", "refused"]
    assert answers[1]["detail"] == "the configuration is the same"
    assert "stays dead" in answers[2]["detail"]
    assert "divide a day" in answers[3]["detail"]
    assert site.config.read_text() == Path(good).read_text()
    assert agent.poll() is None
    assert waiting["slot"] >= 1
    assert waiting["event"] >= 4


def test_the_service_manager_hears_of_the_start_and_then_of_progress(site: Site) -> None:
    address = site.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        manager.settimeout(90)
        agent = subprocess.Popen(
            [*AGENT, "run", "--config", str(site.config)],
            env={**os.environ, "NOTIFY_SOCKET": str(address)},
            stderr=subprocess.DEVNULL,
        )
        heard = [manager.recv(100) for _ in range(2)]
        agent.terminate()

    assert agent.wait(timeout=90) == 0
    assert heard == [b"READY=1", b"WATCHDOG=1"]


def test_a_restart_begins_anew_and_is_answered_first(
    site: Site, agent: subprocess.Popen[bytes]
) -> None:
    answer = site.command("restart")
    site.wait_until(lambda: site.log.read_text().count(" started ") == 2)
    site.wait_until(lambda: "gridtokenx_agent_uplink_connected 1" in site.metrics())

    again = site.command("status")

    assert answer["outcome"] == "done"
    assert again["outcome"] == "done"
    assert agent.poll() is None


def test_kill_9_during_a_change_leaves_the_old_configuration(
    site: Site, agent: subprocess.Popen[bytes]
) -> None:
    before = site.config.read_bytes()
    # Tried for three of its periods: long enough to be killed in them on any machine.
    dead = site.write("dead.toml", site.text(meter_port=free_port(), interval_s=60))
    asking = change_under_way(site, dead)

    agent.kill()
    agent.wait(timeout=90)
    left = site.config.read_bytes()
    again = site.start()
    said, _ = asking.communicate(timeout=90)

    again.terminate()
    assert again.wait(timeout=90) == 0
    assert left == before == site.config.read_bytes()
    answer = json.loads(said)
    assert answer["outcome"] == "failed"
    assert "ended while it ran" in answer["detail"]


def change_under_way(site: Site, path: str) -> subprocess.Popen[bytes]:
    """Return who has asked for a change that the agent tries just now."""
    before = site.config.read_text()
    command = [*CLOUD, "gateway", "command", site.gateway_id, "set-config", path, "--json"]
    while True:
        tried = site.log.read_text().count("command=set-config")
        asking = subprocess.Popen(command, env=site.environment, stdout=subprocess.PIPE)
        site.wait_until(lambda: site.log.read_text().count("command=set-config") > tried)  # noqa: B023
        time.sleep(0.3)
        if asking.poll() is None and site.config.read_text() == before:
            return asking
        # The meter was late just before, on a busy machine: nobody misses one that was away.
        asking.communicate(timeout=90)
        old = site.write("before.toml", before)
        site.asked_until(lambda answer: answer["outcome"] == "done", "set-config", old)
        site.asked_until(was_read, "read-now")


def test_sighup_takes_the_file_and_leaves_untouched_buses_alone(
    site: Site, agent: subprocess.Popen[bytes]
) -> None:
    site.config.write_text(site.text(interval_s=2))
    agent.send_signal(signal.SIGHUP)
    site.wait_until(lambda: "configuration changed" in site.log.read_text())
    site.config.write_text("no configuration")
    agent.send_signal(signal.SIGHUP)
    site.wait_until(lambda: "configuration refused" in site.log.read_text())

    assert agent.poll() is None
    assert site.asked_until(was_read, "read-now")["outcome"] == "done"


def test_a_gateway_that_is_not_enrolled_or_revoked_is_asked_for_nothing(site: Site) -> None:
    stranger = site.cloud("gateway", "command", build.SIGNER.gateway_id, "status")
    site.cloud("gateway", "revoke", site.gateway_id)
    revoked = site.cloud("gateway", "command", site.gateway_id, "status")
    usage = site.cloud("gateway", "command", site.gateway_id, "write-register")

    assert (stranger.returncode, revoked.returncode, usage.returncode) == (1, 1, 2)
    assert "not enrolled" in stranger.stderr
    assert "revoked" in revoked.stderr


def test_a_gateway_that_is_away_gives_no_answer_and_that_is_audited(site: Site) -> None:
    answer = site.command("status", "--timeout", "1")

    assert answer["outcome"] == "no answer"
    assert "no answer" in site.audit()[-1][1]


def test_the_health_page_and_an_unknown_one(site: Site, agent: subprocess.Popen[bytes]) -> None:
    base = f"http://127.0.0.1:{site.metrics_port}"
    with urllib.request.urlopen(f"{base}/healthz", timeout=30) as page:
        said = page.read()
    with pytest.raises(OSError, match="404"):
        urllib.request.urlopen(f"{base}/{secrets.token_hex(4)}", timeout=30)

    assert agent.poll() is None
    assert said == b"ok\n"
    well = 'gridtokenx_agent_meter_state{meter_id="HOUSE-17",state="ok"} 1'
    site.wait_until(lambda: well in site.metrics())
    text = site.metrics()
    for name in (
        'readings_total{meter_id="HOUSE-17",kind="slot"}',
        "bus_transactions_total{",
        "buffer_rows{",
        "uplink_acknowledged_total ",
        "clock_quality ",
        'meter_state{meter_id="HOUSE-17",state="ok"} ',
    ):
        assert f"gridtokenx_agent_{name}" in text
