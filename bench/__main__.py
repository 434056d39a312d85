"""`make bench`: run every measurement, one JSON line each."""

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run bench_*.py one after the other, so that none disturbs another."""
    failed = 0
    for path in sorted(Path(__file__).parent.glob("bench_*.py")):
        failed |= subprocess.run(
            [sys.executable, "-m", f"bench.{path.stem}"], check=False
        ).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
