"""Writes what benches printed into `docs/benchmarks.md`: figures, date and machine.

Takes JSON lines on stdin; a bench that is not among them keeps its section as it was.
Run: `python -m bench agent | python -m bench.report`.
"""

import ast
import json
import os
import platform
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PAGE = Path("docs/benchmarks.md")
HEAD = """# Benchmarks

Written by `make bench-agent`, `make bench-ingest` and `make bench-mint` from real runs; do not
edit. Each section says when and where its figures come from. A floor that is missed says so:
nothing here is tidied up.
"""
_KEPT = re.compile(r"<!-- (\{.*\}) -->")


def machine() -> str:
    """Return the processor, its cores, the kernel and the interpreter."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    name = cpu.group(1) if cpu else platform.machine()
    return (
        f"{name}, {os.cpu_count()} cores, Linux {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def figures(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield name and text of each figure of a result."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from figures(inner, f"{name}: {key}" if name else key)
    elif isinstance(value, list | dict):
        yield name, ", ".join(map(str, value)) or "none"
    else:
        yield name, str(value)


def section(entry: dict[str, Any]) -> str:
    """Return the text about one bench."""
    result = entry["result"]
    path = Path(__file__).with_name(f"bench_{result['bench']}.py")
    about = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\nPrints")[0]
    rows = [pair for pair in figures(result) if pair[0] != "bench"]
    table = "\n".join(f"| {name.replace('_', ' ')} | {text} |" for name, text in rows)
    return (
        f"## {result['bench'].replace('_', ' ')}\n\n"
        f"{about.partition(' Prints one JSON line.')[0]}\n\n"
        f"{entry['date']}, {entry['machine']}.\n\n"
        f"| figure | value |\n| --- | --- |\n{table}\n\n"
        f"<!-- {json.dumps(entry)} -->\n"
    )


def main() -> None:
    """Read, merge and write."""
    kept = _KEPT.findall(PAGE.read_text()) if PAGE.exists() else []
    entries = {entry["result"]["bench"]: entry for entry in map(json.loads, kept)}
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    for line in sys.stdin:
        result = json.loads(line)
        entries[result["bench"]] = {"date": date, "machine": machine(), "result": result}
    parts = [HEAD, *(section(entries[name]) for name in sorted(entries))]
    PAGE.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
