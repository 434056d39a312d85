"""Start, watch and stop the demo's programs; one that dies is started again."""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

RESTART_DELAY_S = 0.5
STOP_TIMEOUT_S = 20.0
_PORTS = range(15_000, 32_000)


def free_port() -> int:
    """Return a port nobody listens on, out of those that no outgoing connection is given.

    Linux gives those from 32768 on (ip_local_port_range): one of them may be gone again before the
    program it is meant for has started.
    """
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


async def wait_for_port(port: int, program: "Program", timeout_s: float = 30.0) -> None:
    """Return once *port* accepts connections; raise with the log's end when it never does."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if not program.running:
                break
            await asyncio.sleep(0.05)
            continue
        writer.close()
        return
    raise DemoError(f"{program.name} did not open port {port}:\n{program.log_tail()}")


class DemoError(Exception):
    """The demo cannot go on; the text says why and what to do."""


@dataclass
class Program:
    """One child process with its log file.

    The children live in sessions of their own, so Ctrl-C reaches only the demo, which drains
    them in order; and they are told to stop should the demo itself be killed.
    """

    name: str
    argv: list[str]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    restarts: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None else None

    def start(self) -> None:
        argv = self.argv
        if shutil.which("setpriv"):
            argv = ["setpriv", "--pdeathsig", "TERM", "--", *argv]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.env},
                start_new_session=True,
            )

    async def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int | None:
        """Ask it to end, wait, and return its exit code; kill it only when it does not listen."""
        if self.process is None:
            return None
        if self.running:
            self.process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.to_thread(self.process.wait, timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()

    def log_tail(self, lines: int = 6) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:]) or "(it said nothing)"


class Supervisor:
    """Restarts any program of its list that ends, until told to let it go."""

    def __init__(self) -> None:
        self.programs: list[Program] = []
        self._let_go: set[str] = set()

    def add(self, program: Program) -> Program:
        self.programs.append(program)
        program.start()
        return program

    async def watch(self) -> None:
        """Run until cancelled."""
        while True:
            await asyncio.sleep(RESTART_DELAY_S)
            for program in self.programs:
                if program.name not in self._let_go and not program.running:
                    program.restarts += 1
                    program.start()

    async def stop(self, name: str) -> int | None:
        """Let one program go and end it; return its exit code."""
        self._let_go.add(name)
        for program in self.programs:
            if program.name == name:
                return await program.stop()
        return None

    async def stop_all(self) -> None:
        """End everything, the last started first."""
        for program in reversed(self.programs):
            await self.stop(program.name)


def run(argv: list[str], env: Mapping[str, str], what: str) -> str:
    """Run a command to its end and return its stdout; raise with its own words when it fails."""
    done = subprocess.run(
        argv, env={**os.environ, **env}, capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise DemoError(f"{what} failed ({' '.join(argv[:4])} ...): {' / '.join(said)}")
    return done.stdout
