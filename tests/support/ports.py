"""Ports for the programs of the tests: each is one test's own, whatever runs beside it."""

import fcntl
import os
import random
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

_PORTS = range(10_000, 15_000)
"""Below those of demos, and below those that Linux gives to outgoing connections."""
_LOCKS = (Path(tempfile.gettempdir()) / f"gridtokenx-test-ports-{os.geteuid()}").open("ab")
_taken: set[int] = set()


def free_port() -> int:
    """Return a port that nobody listens on, and that no other test is given while we run.

    That nobody listens on it says nothing about the next second: the program it is for has yet to
    start, another test's program as well, and one that is killed leaves its port for a while. So
    each port handed out is locked until the end of this process, by a byte of a file.
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        if port not in _taken and _locked(port) and _nobody_listens(port):
            return port
    raise AssertionError(f"no port from {_PORTS.start} to {_PORTS.stop} is free")


def _locked(port: int) -> bool:
    with suppress(OSError):
        fcntl.lockf(_LOCKS, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        _taken.add(port)
        return True
    return False


def _nobody_listens(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False
