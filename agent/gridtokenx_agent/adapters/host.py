"""What the machine knows: serial ports, who holds them, free space, the service."""

import grp
import os
import shutil
import stat
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

from gridtokenx_agent.diagnosis import PortFacts, ServiceFacts

_BY_ID: Final = Path("/dev/serial/by-id")
_BARE_PORTS: Final = ("ttyUSB*", "ttyACM*", "ttyAMA*", "ttySC*")
"""USB adapters, and the serial chips of RS-485 boards."""
_PSEUDO: Final = Path("/dev/pts")
"""Pseudo-terminals are held open by their other end."""
_SERVICE: Final = "gridtokenx-agent.service"
_SERVICE_GROUPS: Final = ("dialout", "gridtokenx")
"""Of the shipped unit: SupplementaryGroups= and Group=."""
_SYSTEMD: Final = Path("/run/systemd/system")


def serial_ports() -> tuple[Path, ...]:
    """Return the serial ports of this machine, each by its most stable name."""
    stable = tuple(sorted(_BY_ID.iterdir())) if _BY_ID.is_dir() else ()
    named = {path.resolve() for path in stable}
    bare = (path for pattern in _BARE_PORTS for path in sorted(Path("/dev").glob(pattern)))
    return (*stable, *(path for path in bare if path not in named))


def port_facts(path: Path) -> PortFacts:
    """Look at one port without opening it."""
    try:
        found = path.stat()
    except OSError:
        return PortFacts(path=path, exists=False)
    device = path.resolve()
    return PortFacts(
        path=path,
        exists=True,
        is_port=stat.S_ISCHR(found.st_mode),
        usable=os.access(path, os.R_OK | os.W_OK),
        service_may=_service_may(found),
        group=_group(found.st_gid),
        stable_name=_stable_name(path, device),
        users=() if device.parent == _PSEUDO else _users(device),
    )


def lock_holder(path: Path) -> int | None:
    """Return the process that holds a file lock on *path*; 0 when it is not ours to see.

    Asked of the kernel: taking the lock, even for a moment, could stop an agent that starts.
    """
    try:
        found = path.stat()
        table = Path("/proc/locks").read_text(encoding="ascii")
    except OSError:
        return None
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for line in table.splitlines():
        fields = line.split()
        if "FLOCK" in fields and place in fields:
            return max(0, int(fields[4]))
    return None


def free_bytes(folder: Path) -> int | None:
    """Return the space this user may still fill; None when the folder is not there."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def may_write(folder: Path) -> bool:
    """Return whether files can be made in *folder*, and it is not on a read-only disk."""
    try:
        return os.access(folder, os.W_OK | os.X_OK) and not os.statvfs(folder).f_flag & os.ST_RDONLY
    except OSError:
        return False


def give_to_folder_owner(path: Path) -> None:
    """Give a file that root made to whoever owns its folder: the service must be able to read it.

    Others never may: it stays with owner and group.
    """
    if os.geteuid() == 0:
        folder = path.parent.stat()
        os.chown(path, folder.st_uid, folder.st_gid)
        path.chmod(path.stat().st_mode & 0o770)


def service_facts() -> ServiceFacts | None:
    """Return what systemd says about the agent; None without systemd or without the unit."""
    program = shutil.which("systemctl")
    if program is None or not _SYSTEMD.is_dir():
        return None
    properties = "LoadState,ActiveState,Result,NRestarts"
    try:
        answer = subprocess.run(  # noqa: S603 - fixed arguments, nothing from outside
            [program, "show", _SERVICE, f"--property={properties}"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    said = dict(line.split("=", 1) for line in answer.stdout.splitlines() if "=" in line)
    if said.get("LoadState") != "loaded":
        return None
    return ServiceFacts(
        state=said.get("ActiveState", "unknown"),
        result=said.get("Result", ""),
        restarts=int(said.get("NRestarts") or 0),
    )


def _stable_name(path: Path, device: Path) -> Path | None:
    if path.parent == _BY_ID:
        return path
    names = _BY_ID.iterdir() if _BY_ID.is_dir() else ()
    return next((name for name in sorted(names) if name.resolve() == device), None)


def _service_may(found: os.stat_result) -> bool:
    everyone = found.st_mode & 0o006 == 0o006
    return everyone or (found.st_mode & 0o060 == 0o060 and _group(found.st_gid) in _SERVICE_GROUPS)


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def _users(device: Path) -> tuple[tuple[int, str], ...]:
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        # Processes end while we look, and those of others do not show what they have open.
        with suppress(OSError):
            if pid != os.getpid() and _holds(folder, device):
                found[pid] = (folder / "comm").read_text(encoding="utf-8").strip()
    return tuple(sorted(found.items()))


def _holds(process: Path, device: Path) -> bool:
    for entry in (process / "fd").iterdir():
        with suppress(OSError):
            if entry.readlink() == device:
                return True
    return False
