"""Going over ports, lines and device ids; what is printed, and what is never done."""

import json
import os
import socket
import tomllib
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from gridtokenx_agent.adapters.profile_files import find_profile
from gridtokenx_agent.adapters.simulator import (
    BusSimulator,
    Faults,
    MeterSimulator,
    house_registers,
)
from gridtokenx_agent.adapters.simulator.house import House
from gridtokenx_agent.commands.scan import paste
from gridtokenx_agent.commands.searching import FoundMeter, Search, open_endpoints, tcp_targets
from gridtokenx_agent.diagnosis import PortFacts
from gridtokenx_agent.errors import ConfigError
from gridtokenx_agent.identification import Judgement, Sureness
from gridtokenx_agent.scanning import Found
from gridtokenx_agent.settings import BusSettings
from tests.agent.test_cli import Cli, cli
from tests.support.fake_bus import SteadyClock

__all__ = ["cli"]

PROFILES = {name: find_profile(name) for name in ("abb-b23", "janitza-umg96rm")}


def meter(
    name: str = "abb-b23", faults: Faults | None = None, identity: str = "1001"
) -> MeterSimulator:
    clock = SteadyClock()
    registers = house_registers(find_profile(name), House(), clock, clock.wall_ms, identity)
    return MeterSimulator(find_profile(name), registers, faults)


def a_find(url: str, device_id: int, profile: str) -> FoundMeter:
    judgement = Judgement(profile=profile, sureness=Sureness.LIKELY, score=1)
    found = Found(device_id=device_id, fits=(judgement,), misses=(), fingerprint="")
    return FoundMeter(url=url, device=found)


async def test_meters_behind_one_tcp_gateway_are_all_found() -> None:
    bus = BusSimulator({1: meter(), 3: meter("janitza-umg96rm")})
    service = await bus.serve_tcp("127.0.0.1", 0)
    search = Search(profiles=PROFILES)

    await search.url(service.url)

    await service.close()
    assert [(found.device.device_id, found.device.fits[0].profile) for found in search.found] == [
        (1, "abb-b23"),
        (3, "janitza-umg96rm"),
    ]


async def test_a_meter_that_answers_for_every_device_id_is_found_once() -> None:
    one = meter()
    service = await BusSimulator(dict.fromkeys(range(256), one)).serve_tcp("127.0.0.1", 0)
    search = Search(profiles={"abb-b23": PROFILES["abb-b23"]})

    await search.url(service.url)

    await service.close()
    assert len(search.found) == 1
    assert "every device id" in search.remarks[0]


async def test_a_serial_port_is_tried_with_other_settings_where_it_refuses_some(
    tmp_path: Path,
) -> None:
    service = await BusSimulator({1: meter()}).serve_pty(tmp_path / "bus")
    search = Search(profiles={"abb-b23": PROFILES["abb-b23"]})

    search.tell = lambda line: _stop_after_one(search, line)
    with pytest.raises(KeyboardInterrupt):
        await search.serial(tmp_path / "bus")

    await service.close()
    (found,) = search.found
    assert found.url.endswith("bus?baudrate=9600&parity=N&stopbits=1")
    # A pseudo-terminal has no parity bit, like some adapters: other settings are still tried.
    assert any("8E1" in remark or "Invalid argument" in remark for remark in search.remarks)


def _stop_after_one(search: Search, line: str) -> None:
    """Interrupt as Ctrl-C does; what was found must still be there."""
    if search.found and line.endswith("device id 2"):
        raise KeyboardInterrupt


async def test_an_endpoint_that_is_not_there_is_a_remark_and_not_the_end() -> None:
    search = Search(profiles=PROFILES)

    await search.url("tcp://127.0.0.1:1")

    assert search.found == []
    assert "cannot be opened" in search.remarks[0]


@pytest.fixture
def open_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


async def test_a_named_host_is_always_looked_at_and_a_network_only_where_a_port_is_open(
    open_port: int,
) -> None:
    named = await open_endpoints([("127.0.0.1", 1, False)])
    swept = await open_endpoints([("127.0.0.1", 1, True), ("127.0.0.1", open_port, True)])

    assert named == ["tcp://127.0.0.1:1"]
    assert swept == [f"tcp://127.0.0.1:{open_port}"]


def test_hosts_ports_and_networks_are_understood() -> None:
    targets = tcp_targets(["10.0.0.5,meter.lan:1502", "192.168.1.0/30"])

    assert targets == (
        ("10.0.0.5", 502, False),
        ("meter.lan", 1502, False),
        ("192.168.1.1", 502, True),
        ("192.168.1.2", 502, True),
    )


@pytest.mark.parametrize("text", ["10.0.0.0/16", "host:port", "", "10.0.0.0/x", "fe80::/120"])
def test_a_larger_network_and_nonsense_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        tcp_targets([text])


def test_what_is_pasted_is_a_configuration_the_agent_takes() -> None:
    url = "rtu:///dev/ttyUSB0?baudrate=9600&parity=E&stopbits=1"

    text = paste([a_find(url, 1, "abb-b23"), a_find(url, 3, "abb-b24")])

    (bus,) = [BusSettings.model_validate(entry) for entry in tomllib.loads(text)["bus"]]
    assert bus.url == url
    assert [(entry.device_id, entry.profile) for entry in bus.meter] == [
        (1, "abb-b23"),
        (3, "abb-b24"),
    ]


def test_a_port_in_use_is_left_alone(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    from gridtokenx_agent.commands import searching

    facts = PortFacts(
        path=Path("/dev/x"), exists=True, is_port=True, usable=True, users=((7, "gtx-agent"),)
    )
    monkeypatch.setattr(searching, "port_facts", lambda _path: facts)

    code, out, _ = cli("scan", "--port", "/dev/x", "--json")

    found = json.loads(out)
    assert (code, found["meters"]) == (1, [])
    assert found["remarks"] == [
        "port /dev/x is in use by gtx-agent (pid 7); "
        "stop that program: two on one port take each other's answers"
    ]


def test_a_scan_without_any_port_says_what_to_do(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    from gridtokenx_agent.adapters import host

    monkeypatch.setattr(host, "serial_ports", tuple)

    code, out, err = cli("scan")

    assert (code, out) == (2, "")
    assert "--tcp HOST" in err
    assert err.count("\n") == 1


def test_a_scan_of_nothing_is_exit_code_1_with_the_reason(cli: Cli) -> None:
    code, out, err = cli("scan", "--tcp", "127.0.0.1:1")

    assert code == 1
    assert "cannot be opened" in out
    assert "device id 1" in err


async def test_a_pseudo_terminal_is_not_in_use_by_its_other_end() -> None:
    from gridtokenx_agent.adapters.host import port_facts

    master, slave = os.openpty()
    tty.setraw(slave)

    facts = port_facts(Path(os.ttyname(slave)))

    os.close(master)
    os.close(slave)
    assert (facts.exists, facts.is_port, facts.usable, facts.users) == (True, True, True, ())
