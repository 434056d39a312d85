"""The demo's programs: where they listen."""

import socket
from pathlib import Path

from demo.processes import free_port

OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_a_free_port_can_be_listened_on_and_is_given_to_no_outgoing_connection() -> None:
    first_outgoing = int(OUTGOING.read_text().split()[0])

    ports = [free_port() for _ in range(50)]

    assert max(ports) < first_outgoing
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", ports[0]))
