"""The gate itself: each file counts in one part, and what is too low is named."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def gate() -> ModuleType:
    path = ROOT / "deploy" / "scripts" / "coverage_gate.py"
    spec = importlib.util.spec_from_file_location("coverage_gate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def report(gate: ModuleType, **missing: int) -> dict[str, Any]:
    """Return a report with a file of 100 lines in each part, *missing* of them not reached."""
    files = {}
    for part in gate.PARTS:
        path = part.patterns[0].replace("*", "one.py")
        gone = missing.get(part.name.replace(" ", "_"), 0)
        files[path] = {
            "summary": {
                "num_statements": 80,
                "num_branches": 20,
                "covered_lines": 80 - gone,
                "covered_branches": 20,
            }
        }
    return {"files": files}


def test_a_report_above_every_floor_passes(gate: ModuleType) -> None:
    verdict = list(gate.judge(report(gate, configuration=5, minting=10)))

    assert all(passes for _, passes in verdict)
    assert len(verdict) == len(gate.PARTS)


@pytest.mark.parametrize(
    ("part", "missing"), [("mint_states", 1), ("configuration", 6), ("ledger", 11)]
)
def test_one_line_below_a_floor_fails_and_names_the_files(
    gate: ModuleType, part: str, missing: int
) -> None:
    verdict = list(gate.judge(report(gate, **{part: missing})))

    failed = [line for line, passes in verdict if not passes]
    assert len(failed) == 2
    assert failed[0].startswith(part.replace("_", " "))
    assert f"{missing} of 100 not reached" in failed[1]


def test_a_report_of_nothing_is_no_good_report(gate: ModuleType) -> None:
    assert not any(passes for _, passes in gate.judge({"files": {}}))


def test_every_module_of_wire_and_cloud_is_in_a_part_and_every_pattern_names_one(
    gate: ModuleType,
) -> None:
    paths = [
        str(path.relative_to(ROOT))
        for folder in ("agent/gridtokenx_wire", "cloud/gridtokenx_cloud")
        for path in (ROOT / folder).rglob("*.py")
    ]

    parts = {path: gate.part_of(path) for path in paths}

    assert None not in parts.values()
    assert gate.part_of("agent/gridtokenx_agent/app.py") is None
    for part in gate.PARTS:
        for pattern in part.patterns:
            assert any(gate.fnmatch(path, pattern) for path in paths), pattern
