"""Where a demo keeps its state, which ports it uses, and the lock that keeps two apart."""

import fcntl
import json
import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from demo.processes import DemoError, free_port

ROOT = Path(__file__).parent.parent
PORTS = ("http", "ws", "metrics", "mqtt", "rpc", "sdm630", "iem3155", "b23")


@dataclass(frozen=True)
class Place:
    """One demo's folder and ports."""

    folder: Path
    ports: dict[str, int]
    lock: IO[str]

    def path(self, name: str) -> Path:
        return self.folder / name

    @property
    def logs(self) -> Path:
        return self.folder / "log"


def take_place() -> Place:
    """Take the demo's folder, or the next free one when another demo runs in it.

    `DEMO_DIR` names a folder; `DEMO_HTTP_PORT`, `DEMO_WS_PORT`, ... fix a port.
    """
    named = os.environ.get("DEMO_DIR")
    base = Path(named) if named else ROOT / "var" / "demo"
    candidates = [base] if named else [base, *(base.with_name(f"demo-{n}") for n in range(2, 10))]
    for folder in candidates:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        lock = (folder / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        (folder / "log").mkdir(exist_ok=True)
        ports = {name: _port(name) for name in PORTS}
        write_private(folder / "ports.json", json.dumps(ports))
        return Place(folder, ports, lock)
    raise DemoError(f"{base}: another demo is running there; stop it, or set DEMO_DIR to a folder")


def _port(name: str) -> int:
    variable = f"DEMO_{name.upper()}_PORT"
    text = os.environ.get(variable, "")
    if not text:
        return free_port()
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise DemoError(f"{variable}={text!r} is no port; give a number from 1 to 65535")
    return int(text)


def demo_seconds() -> float | None:
    """Return `DEMO_SECONDS`, or None to run until Ctrl-C."""
    text = os.environ.get("DEMO_SECONDS", "")
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise DemoError(f"DEMO_SECONDS={text!r} is no number of seconds above 0")
    return seconds


def secret_file(path: Path, size_bytes: int = 24) -> str:
    """Return the secret kept in *path*, made on the first call, readable by this user only."""
    if not path.exists():
        write_private(path, secrets.token_urlsafe(size_bytes))
    return path.read_text().strip()


def write_private(path: Path, text: str) -> None:
    """Write *text* whole or not at all, mode 0600."""
    fresh = path.with_name(path.name + ".new")
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.replace(path)


def read_json(path: Path) -> dict[str, object] | None:
    """Return the object in *path*, or None when it is not there."""
    if not path.exists():
        return None
    value: dict[str, object] = json.loads(path.read_text())
    return value


def command(name: str) -> str:
    """Return the path of one of our commands in this environment."""
    beside = ROOT / ".venv" / "bin" / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise DemoError(f"{name} is not installed; run `make setup`")
    return found
