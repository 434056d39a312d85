"""`make bench`: run every measurement, one JSON line each; a name picks those that begin so."""

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run bench_*.py one after the other, so that none disturbs another."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    failed = 0
    for path in sorted(Path(__file__).parent.glob(f"bench_{wanted}*.py")):
        failed |= subprocess.run(
            [sys.executable, "-m", f"bench.{path.stem}"], check=False
        ).returncode
    return failed


if __name__ == "__main__":
    sys.exit(main())
