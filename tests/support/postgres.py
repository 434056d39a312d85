"""A real PostgreSQL server of our own: made by initdb, on a free port, gone at the end."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import psycopg

from tests.support.mosquitto import wait_for_port
from tests.support.ports import free_port

NOT_INSTALLED = "PostgreSQL's server programs are not installed; run `make test`, or apt-get"
_numbers = count(1)
_PATIENCE_S = 90.0
_COPIES = 30
"""More than a test has open at a time; each is 8 MB."""
_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of ours is made in it
_MEMORY_BYTES = 4 << 30


def find_postgres() -> Path | None:
    """Return the folder of initdb and postgres, the newest version's."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    if folders:
        return folders[-1].parent
    found = shutil.which("initdb")
    return None if found is None else Path(found).resolve().parent


def _version(initdb: Path) -> int:
    name = initdb.parent.parent.name
    return int(name) if name.isdecimal() else 0


class Server:
    """A cluster that can be killed and started again; its port stays."""

    def __init__(self, folder: Path, bin_folder: Path, port: int, *, fsync: bool) -> None:
        self.port = port
        self._folder = folder
        self._bin = bin_folder
        self._fsync = fsync
        self._process: subprocess.Popen[bytes] | None = None
        self._copies: deque[str] = deque()

    @property
    def pid(self) -> int:
        """The process that starts all others of the server."""
        assert self._process is not None
        return self._process.pid

    def initialise(self) -> None:
        command = [str(self._bin / "initdb"), "-D", str(self._folder / "data")]
        options = ["-U", "gtx", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        subprocess.run(
            [*command, *options], check=True, stdout=subprocess.DEVNULL, user=_owner(), cwd="/"
        )

    def start(self) -> None:
        # Tests kill, they cut no power: the operating system keeps what was written.
        settings = {
            "fsync": "on" if self._fsync else "off",
            # Hundreds of small databases that live for one test: nothing to tidy up in them.
            "autovacuum": "off",
            "full_page_writes": "on" if self._fsync else "off",
            "wal_level": "minimal",
            "max_wal_senders": "0",
            "max_connections": "60",
            "unix_socket_directories": "",
        }
        options = [part for item in settings.items() for part in ("-c", "=".join(item))]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._bin / "postgres"),
                    *("-D", str(self._folder / "data"), "-h", "127.0.0.1", "-p", str(self.port)),
                    *options,
                ],
                stderr=log,
                stdout=log,
                user=_owner(),
                cwd="/",
            )
        wait_for_port(self.port, self._process)
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        """After a kill it recovers first; `connect` alone would meet `starting up`."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.url("postgres")).close()
                return
            time.sleep(0.1)
        raise AssertionError((self._folder / "log").read_text())

    def kill(self) -> None:
        """Kill -9 the server and its children; none is left, and the port is free again."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        # A new server refuses to start while a child of the dead one still has its memory.
        deadline = time.monotonic() + _PATIENCE_S
        while children := self._children():
            assert time.monotonic() < deadline, children
            for pid in children:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        (self._folder / "data" / "postmaster.pid").unlink(missing_ok=True)

    def _children(self) -> list[int]:
        """Return who works in the folder of the data; a zombie works nowhere."""
        found = []
        for entry in Path("/proc").glob("[0-9]*/cwd"):
            with suppress(OSError):
                if entry.readlink() == self._folder / "data":
                    found.append(int(entry.parent.name))
        return found

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_PATIENCE_S)

    def url(self, database: str) -> str:
        return f"postgresql://gtx@127.0.0.1:{self.port}/{database}"

    def new_database(self, template: str = "template0") -> str:
        """Return the URL of a new database; of the copies of a template the newest ones stay."""
        name = f"gtx_{next(_numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as admin:
            self._copy(admin, template, name)
            if template != "template0":
                self._copies.append(name)
                self._drop_oldest(admin)
        return self.url(name)

    def _copy(self, admin: psycopg.Connection, template: str, name: str) -> None:
        """Copy a template; who worked in it may be gone and not yet be missed."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
            except psycopg.errors.ObjectInUse:
                assert time.monotonic() < deadline, f"{template} stays in use"
                continue
            return

    def _drop_oldest(self, admin: psycopg.Connection) -> None:
        while len(self._copies) > _COPIES:
            oldest = self._copies.popleft()
            with suppress(psycopg.errors.ObjectInUse):
                admin.execute(f"DROP DATABASE {oldest}".encode())


def _owner() -> str | None:
    """PostgreSQL refuses to run as root; the package has made a user for it."""
    return "postgres" if os.geteuid() == 0 else None


def _in_memory() -> Path | None:
    """Return a folder in memory where there is plenty: the disk is what these tests wait for."""
    if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _MEMORY_BYTES:
        return _MEMORY
    return None


@contextmanager
def running_postgres(*, fsync: bool = False) -> Iterator[Server]:
    """Run a server until the end."""
    bin_folder = find_postgres()
    assert bin_folder is not None, NOT_INSTALLED
    with tempfile.TemporaryDirectory(
        prefix="gtx-postgres-", dir=None if fsync else _in_memory(), ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        server = Server(folder, bin_folder, free_port(), fsync=fsync)
        server.initialise()
        server.start()
        try:
            yield server
        finally:
            server.stop()
