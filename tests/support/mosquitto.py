"""A real mosquitto with the shipped configuration, on a free port of this machine."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.broker import adapt

_SHIPPED = Path(__file__).parents[2] / "deploy" / "mosquitto"


def find_mosquitto() -> str | None:
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def shipped_mosquitto(
    folder: Path, users: dict[str, str], port: int, *, lines: Iterable[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the broker with *users* (name -> password) and the shipped ACL until the end.

    *lines* go into its password file as they are.
    """
    broker = find_mosquitto()
    assert broker is not None, "mosquitto is not installed; run `make setup`"
    passwords = folder / "passwords"
    passwords.write_text("".join(f"{name}:{word}\n" for name, word in users.items()))
    passwords.chmod(0o600)
    subprocess.run(["mosquitto_passwd", "-U", str(passwords)], check=True)
    with passwords.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)
    acl = folder / "acl"
    shutil.copy(_SHIPPED / "acl", acl)
    acl.chmod(0o600)
    config = folder / "mosquitto.conf"
    changes = {
        "listener": f"listener {port} 127.0.0.1",
        "password_file": f"password_file {passwords}",
        "acl_file": f"acl_file {acl}",
        "persistence_location": f"persistence_location {folder}/",
        "user": f"user {pwd.getpwuid(os.geteuid()).pw_name}",
    }
    config.write_text(adapt((_SHIPPED / "mosquitto.conf").read_text(), changes))
    with (folder / "mosquitto.log").open("wb") as log:
        process = subprocess.Popen([broker, "-c", str(config)], stderr=log)
    try:
        wait_for_port(port, process)
        yield process
    finally:
        process.terminate()
        process.wait(timeout=90)


def wait_for_port(port: int, process: subprocess.Popen[bytes], timeout_s: float = 90.0) -> None:
    """Return once *port* takes connections."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        assert process.poll() is None, f"{process.args!r} ended with {process.returncode}"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port} after {timeout_s:g} s")
