"""What the shipped service may do is enough for what the agent does."""

import os
from pathlib import Path

import pytest

from gridtokenx_agent.adapters.host import _BARE_PORTS, port_facts
from gridtokenx_agent.diagnosis import Level, PortFacts, check_port

UNIT = (Path(__file__).parents[2] / "systemd" / "gridtokenx-agent.service").read_text()


def test_every_kind_of_serial_port_that_is_looked_for_may_be_opened() -> None:
    """A port that `scan` finds as root and the service may not open would never be read."""
    allowed = {line.split("char-")[1].split()[0] for line in UNIT.splitlines() if "=char-" in line}

    assert {pattern.removesuffix("*") for pattern in _BARE_PORTS} <= allowed


def test_a_large_buffer_has_time_to_be_looked_through_at_the_start() -> None:
    (limit,) = [line for line in UNIT.splitlines() if line.startswith("TimeoutStartSec=")]

    assert int(limit.partition("=")[2]) >= 600


@pytest.mark.parametrize(
    ("service", "may", "level"),
    [(True, False, Level.BAD), (True, True, Level.OK), (False, False, Level.OK)],
)
def test_what_root_may_do_says_nothing_about_the_service(
    service: bool, may: bool, level: Level
) -> None:
    facts = PortFacts(
        path=Path("/dev/ttyAMA0"),
        exists=True,
        is_port=True,
        usable=True,
        service_may=may,
        group="tty",
    )

    check = check_port(facts, None, service=service)

    assert check.level is level
    assert ("raspi-config" in check.way_out) == (level is Level.BAD)


@pytest.mark.parametrize(("mode", "may"), [(0o600, False), (0o666, True), (0o660, False)])
def test_the_ports_mode_and_group_tell_whether_the_service_may(mode: int, may: bool) -> None:
    master, slave = os.openpty()
    path = Path(os.ttyname(slave))
    os.fchmod(slave, mode)

    facts = port_facts(path)

    os.close(master)
    os.close(slave)
    assert facts.group not in ("dialout", "gridtokenx")
    assert facts.service_may is may
