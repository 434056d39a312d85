import os
import shutil
import subprocess
from pathlib import Path

import pytest

from gridtokenx_agent.settings import DEFAULT_PATH

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


def test_the_agent_may_write_its_state_and_nothing_else_and_finds_its_configuration_there(
    tmp_path: Path,
) -> None:
    unit = (UNITS / "gridtokenx-agent.service").read_text().splitlines()
    (link,) = [
        line.split()
        for line in (UNITS / "gridtokenx-agent.tmpfiles").read_text().splitlines()
        if line.startswith("L ")
    ]

    assert "ProtectSystem=strict" in unit
    assert "StateDirectory=gridtokenx" in unit
    assert [line for line in unit if line.startswith(("ReadWritePaths", "BindPaths"))] == []
    assert link[1] == str(DEFAULT_PATH)
    assert Path(link[-1]).parent == Path("/var/lib/gridtokenx")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
def test_the_folders_are_made_and_a_configuration_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("root:x:0:0::/:\ngridtokenx:x:4242:4343::/:\n")
    (tmp_path / "etc" / "group").write_text("root:x:0:\ngridtokenx:x:4343:\n")
    create = [
        "systemd-tmpfiles", "--create", f"--root={tmp_path}",
        *map(str, sorted(UNITS.glob("*.tmpfiles"))),
    ]  # fmt: skip

    subprocess.run(create, capture_output=True, check=True)
    done = subprocess.run(create, capture_output=True, text=True, check=False)

    etc, state = tmp_path / "etc" / "gridtokenx", tmp_path / "var" / "lib" / "gridtokenx"
    config = etc / "agent.toml"
    assert (done.returncode, done.stderr) == (0, "")
    assert [(path.stat().st_uid, path.stat().st_gid) for path in (etc, state)] == [
        (0, 4343),
        (4242, 4343),
    ]
    assert [path.stat().st_mode & 0o7777 for path in (etc, state)] == [0o750, 0o700]
    assert str(config.readlink()) == "/var/lib/gridtokenx/agent.toml"
    config.unlink()
    config.write_text("an installer's own")
    subprocess.run(create, capture_output=True, check=False)
    assert config.read_text() == "an installer's own"
