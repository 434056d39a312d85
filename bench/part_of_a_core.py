"""Hold processes to a part of a core each, so that more of them fit on the cores there are.

Linux alone does it, by control groups, and lets only root ask for it.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_V1 = Path("/sys/fs/cgroup/cpu")
_V2 = Path("/sys/fs/cgroup")
_PERIOD_US = 10_000
"""Short: who has used up its part while it holds a lock keeps the others waiting until the end."""


@contextmanager
def held_to(percent: int, pids: list[int]) -> Iterator[bool]:
    """Hold each process to so many percent of a core; yield whether that is possible here."""
    made: list[Path] = []
    try:
        try:
            for pid in pids:
                made.append(_group(pid))
                _limit(made[-1], percent * _PERIOD_US // 100)
                (made[-1] / "cgroup.procs").write_text(str(pid))
        except OSError:
            yield False
            return
        yield True
    finally:
        for group in made:
            with suppress(OSError):
                for left in (group / "cgroup.procs").read_text().split():
                    (group.parent / "cgroup.procs").write_text(left)
                group.rmdir()


def _group(pid: int) -> Path:
    group = (_V1 if _V1.is_dir() else _V2) / f"gridtokenx-bench-{pid}"
    group.mkdir()
    return group


def _limit(group: Path, quota_us: int) -> None:
    if (group / "cpu.cfs_quota_us").exists():
        (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(quota_us))
    else:
        (group / "cpu.max").write_text(f"{quota_us} {_PERIOD_US}")
