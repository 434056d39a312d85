"""Run the demo as a user does, and read what it says."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.books import Books, read_books

ROOT = Path(__file__).parents[2]


@dataclass
class RunningDemo:
    """A demo under way in its own folder."""

    folder: Path
    process: subprocess.Popen[str]

    def pids(self) -> dict[str, int]:
        """Return the process ids of its programs, empty before they run."""
        with contextlib.suppress(FileNotFoundError):
            found: dict[str, int] = json.loads((self.folder / "pids.json").read_text())
            return found
        return {}

    def wait_until_alive(self) -> dict[str, int]:
        """Return the process ids once every program is up."""
        self.wait_until(lambda: len(self.pids()) >= 5, "every program is up")
        return self.pids()

    def wait_until(self, holds: Callable[[], bool], what: str, timeout_s: float = 180) -> None:
        """Return once that is so; fail when the demo ends before."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                out, err = self.process.communicate()
                raise AssertionError(f"not while the demo ran: {what}\n{out}\n{err}")
            time.sleep(0.2)

    def books(self) -> Books:
        """Return what the ledger holds now; nothing while it cannot be read."""
        with contextlib.suppress(sqlite3.OperationalError):
            return read_books(self.folder / "cloud.db")
        return Books()

    def port(self, name: str) -> int:
        """Return a port the demo chose, from the file it keeps."""
        ports: dict[str, int] = json.loads((self.folder / "ports.json").read_text())
        return ports[name]

    def kill(self, program: str) -> None:
        """SIGKILL one program; it may be between two lives just then."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pids()[program], signal.SIGKILL)

    def stop(self) -> "DemoResult":
        """End it as Ctrl-C does, and return what it said."""
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self, timeout_s: float = 600) -> "DemoResult":
        """Wait for its own end and return what it said."""
        out, err = self.process.communicate(timeout=timeout_s)
        return DemoResult(self.process.returncode, out, err)


@dataclass(frozen=True)
class DemoResult:
    """Exit code and words of a demo that ended."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> dict[str, Any]:
        """The JSON object of the last line of stdout."""
        value: dict[str, Any] = json.loads(self.out.strip().splitlines()[-1])
        return value

    def check_sums(self) -> dict[str, Any]:
        """Fail unless every sum agrees with its neighbour; return the line."""
        assert self.code == 0, f"exit {self.code}\n{self.out[-3000:]}\n{self.err[-3000:]}"
        line = self.line
        assert line["audit"] == "ok"
        assert line["exported_wh"] == line["credited_wh"] == line["minted_wh"] > 0
        assert line["supply_base_units"] == line["minted_wh"] * 1_000_000
        return line


@contextmanager
def demo(folder: Path, seconds: float | None = None) -> Iterator[RunningDemo]:
    """Run the demo in *folder*, for ever by default; it is killed should the test fail."""
    env = {name: text for name, text in os.environ.items() if not name.startswith("DEMO_")}
    env["DEMO_DIR"] = str(folder)
    if seconds is not None:
        env["DEMO_SECONDS"] = str(seconds)
    process = subprocess.Popen(
        [sys.executable, "-m", "demo"],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield RunningDemo(folder, process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.communicate()
