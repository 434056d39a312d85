"""Fails where the tests leave too much of a part of the cloud out.

`coverage_gate.py REPORT` reads the JSON report of coverage.py, counts lines and branches, prints
one line for each part with its floor, and for a part below it the files that pull it down. Each
module belongs to the first part that names it, so that a new one is in some part whatever it is.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

_SHOWN = 8
_CLOUD = "cloud/gridtokenx_cloud/"


@dataclass(frozen=True, slots=True)
class Part:
    """What belongs together, and the least of it that tests must reach, in percent."""

    name: str
    floor: int
    patterns: tuple[str, ...]


PARTS = (
    Part("wire contract", 100, ("agent/gridtokenx_wire/*",)),
    Part("mint states", 100, (f"{_CLOUD}mint_state.py",)),
    Part("configuration", 95, (f"{_CLOUD}settings/*",)),
    Part(
        "polling service",
        90,
        tuple(f"{_CLOUD}{name}" for name in ("settle.py", "minting.py", "mint_rules.py")),
    ),
    Part(
        "live events",
        90,
        tuple(
            f"{_CLOUD}{name}"
            for name in (
                "broadcast/*",
                "event*.py",
                "adapters/websocket_api/*",
                "adapters/store/events.py",
            )
        ),
    ),
    Part(
        "minting",
        90,
        tuple(
            f"{_CLOUD}{name}"
            for name in (
                *("batching.py", "tokenization.py", "formats.py", "merkle.py", "waiting.py"),
                *("audit.py", "rebuild.py", "janitor.py", "proof.py", "mint_wiring.py"),
                *("ports/mint.py", "ports/upkeep.py", "ports/keys.py", "roles/settle.py"),
                *("adapters/solana_rpc/*", "adapters/localnet/*", "adapters/keystore/*"),
                *("adapters/store/mint*.py", "adapters/store/key_journal.py"),
                *("commands/mint*.py", "commands/chain.py", "commands/keys.py"),
                "commands/localnet.py",
            )
        ),
    ),
    Part(
        "ledger",
        90,
        tuple(
            f"{_CLOUD}{name}"
            for name in (
                *("ingest.py", "intake.py", "verify.py", "plausibility.py", "ledger.py"),
                *("remarks.py", "tenure.py", "throttle.py", "registry.py", "opened.py"),
                *("answers.py", "reading_events.py", "ports/ingest.py", "roles/ingest.py"),
                *("adapters/mqtt/*", "adapters/store/*", "adapters/verifier.py"),
                *("adapters/mosquitto.py", "commands/registry.py", "commands/gateway.py"),
                *("commands/store.py", "commands/archive.py", "ports/archive.py"),
                *("archiving.py", "archive_wiring.py", "adapters/parquet.py"),
            )
        ),
    ),
    Part("API and program", 90, (f"{_CLOUD}*",)),
)


@dataclass(slots=True)
class Tally:
    """Lines and branches, and how many of them some test went through."""

    all: int = 0
    reached: int = 0

    @property
    def percent(self) -> float:
        """The share that was reached."""
        return 100 * self.reached / self.all if self.all else 100.0


def tally_of(summary: Mapping[str, int]) -> Tally:
    """Return the tally of one file of the report."""
    return Tally(
        summary["num_statements"] + summary["num_branches"],
        summary["covered_lines"] + summary["covered_branches"],
    )


def part_of(path: str) -> Part | None:
    """Return where a file belongs; None = it is none of ours."""
    for part in PARTS:
        if any(fnmatch(path, pattern) for pattern in part.patterns):
            return part
    return None


def judge(report: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Yield the line of each part, and whether it passes."""
    files: dict[str, dict[str, Tally]] = {part.name: {} for part in PARTS}
    for path, entry in report["files"].items():
        part = part_of(path)
        if part is not None:
            files[part.name][path] = tally_of(entry["summary"])
    for part in PARTS:
        tallies = files[part.name]
        whole = Tally(
            sum(tally.all for tally in tallies.values()),
            sum(tally.reached for tally in tallies.values()),
        )
        # A part without files is a report of something else, no good part.
        passes = bool(tallies) and whole.percent >= part.floor
        yield f"{part.name:18} {whole.percent:6.2f} %   floor {part.floor} %", passes
        if not passes:
            yield from ((line, False) for line in _worst(tallies))


def _worst(tallies: Mapping[str, Tally]) -> Iterator[str]:
    missed = sorted(tallies.items(), key=lambda item: item[1].reached - item[1].all)
    for path, tally in missed[:_SHOWN]:
        if tally.reached < tally.all:
            yield f"    {path}: {tally.all - tally.reached} of {tally.all} not reached"


def main() -> int:
    """Print the verdict; 0 = every part is above its floor."""
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    good = True
    for line, passes in judge(report):
        good &= passes
        mark = "" if passes or line.startswith(" ") else "   TOO LOW"
        sys.stdout.write(f"coverage: {line}{mark}\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
