import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "systemd"

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here"),
]


@pytest.mark.parametrize("unit", sorted(path.name for path in UNITS.glob("*.service")))
def test_systemd_finds_no_fault_in_the_unit(tmp_path: Path, unit: str) -> None:
    text = (UNITS / unit).read_text()
    for program in ("gtx-cloud", "gtx-agent"):
        # The program itself is not installed on a build machine.
        text = text.replace(f"/opt/gridtokenx/bin/{program}", "/bin/true")
    (tmp_path / unit).write_text(text)

    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / unit)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
