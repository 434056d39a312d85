"""What this process holds open, by kind: a leak is more of a kind, never other numbers.

Counts are compared as "nothing more than before": descriptors that an earlier test left to the
garbage collector may close at any moment, and do not stand for a leak nor hide one of another kind.
"""

import gc
from collections import Counter
from pathlib import Path


def open_files() -> Counter[str]:
    """Return how many descriptors of each kind are open: a socket, a pipe, a pty, or the path."""
    gc.collect()
    kinds: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:  # the descriptor of this listing, or one closed meanwhile
            continue
        kinds["pty" if target.startswith("/dev/pts/") else target.split(":[")[0]] += 1
    return kinds


def left_open(before: Counter[str]) -> Counter[str]:
    """Return what is open beyond *before*, empty when nothing leaked."""
    return open_files() - before
