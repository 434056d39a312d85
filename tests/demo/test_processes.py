"""The demo's programs: where they listen."""

import contextlib
import socket
from pathlib import Path

import pytest

from demo.processes import free_port

OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")
LINUX_OWN = 32_768


def test_a_free_port_can_be_listened_on_and_is_given_to_no_outgoing_connection() -> None:
    first_outgoing = int(OUTGOING.read_text().split()[0])
    if first_outgoing < LINUX_OWN:
        pytest.skip("this machine gives outgoing connections lower ports than Linux does by itself")

    ports = [free_port() for _ in range(50)]

    assert max(ports) < first_outgoing
    # A program that was started since may have one of them; hardly all.
    assert any(can_be_listened_on(port) for port in ports)


def can_be_listened_on(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False
