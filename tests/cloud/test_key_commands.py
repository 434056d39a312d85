"""`gtx-cloud keys`, and what a process that holds a key never does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from gridtokenx_cloud.__main__ import cli, run
from gridtokenx_cloud.adapters.keystore import load_key
from gridtokenx_cloud.adapters.keystore.sealed import ScryptCost

PASSWORD = "correct horse battery staple"


@pytest.fixture(autouse=True)
def _cheap_guesses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "gridtokenx_cloud.adapters.keystore.sealed.ScryptCost", lambda *_: ScryptCost(2**14)
    )


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.touch(mode=0o600)
    path.write_text(PASSWORD + "\n")
    return path


def test_a_new_key_is_made_sealed_shown_and_checked(
    tmp_path: Path,
    password_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain, sealed = tmp_path / "plain.json", tmp_path / "sealed.json"
    monkeypatch.setenv("GTX_CLOUD_ENVIRONMENT", "development")
    monkeypatch.setenv("BLOCKCHAIN_MINT_AUTHORITY_KEY", f"enc:{sealed}")
    monkeypatch.setenv("BLOCKCHAIN_KEY_PASSWORD", f"file:{password_file}")

    made = run(["keys", "new", str(plain)])
    wrapped = run(
        ["keys", "encrypt", str(plain), str(sealed), "--password-file", str(password_file)]
    )
    shown = (run(["keys", "show", str(plain)]), run(["keys", "show", f"enc:{sealed}"]))
    text = capsys.readouterr().out.split()
    checked = run(["keys", "check", "--json"])
    [row] = json.loads(capsys.readouterr().out)

    address = load_key(plain).address
    assert (made, wrapped, shown, checked) == (0, 0, (0, 0), 0)
    assert text == [address] * 4
    assert row == {
        "role": "mint_authority",
        "source": f"enc:{sealed}",
        "address": address,
        "result": "signs",
    }
    assert plain.stat().st_mode & 0o777 == sealed.stat().st_mode & 0o777 == 0o600


def test_a_password_is_asked_for_twice_and_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "key"

    result = CliRunner().invoke(
        cli, ["keys", "new", str(path), "--sealed"], input=f"{PASSWORD}\n{PASSWORD}\n"
    )

    assert result.exit_code == 0
    assert PASSWORD not in result.output
    assert '"format": "gridtokenx-key"' in path.read_text()


def test_a_short_password_makes_no_key(
    tmp_path: Path, password_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    password_file.write_text("short")

    code = run(
        ["keys", "new", str(tmp_path / "k"), "--sealed", "--password-file", str(password_file)]
    )

    assert code == 2
    assert "shorter than 12" in capsys.readouterr().err
    assert not (tmp_path / "k").exists()


def test_a_key_that_can_not_sign_fails_the_check_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GTX_CLOUD_ENVIRONMENT", "development")
    monkeypatch.setenv("BLOCKCHAIN_FEE_PAYER_KEY", f"file:{tmp_path}/missing")

    assert run(["keys", "check"]) == 1

    assert f"{tmp_path}/missing cannot be read" in capsys.readouterr().out


def test_no_key_at_all_is_no_passed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GTX_CLOUD_ENVIRONMENT", "development")

    assert run(["keys", "check"]) == 1


def test_a_service_that_is_not_described_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "show", "keychain:vault?token=hvs.secret"]) == 2

    said = capsys.readouterr().err
    assert "url is missing" in said
    assert "hvs.secret" not in said


_DUMPABLE = """
import ctypes, resource
from gridtokenx_cloud.adapters.system import forbid_core_dumps
before = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
forbid_core_dumps()
print(before, ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))
"""


@pytest.mark.integration
def test_a_process_with_a_key_can_not_be_dumped_or_looked_into() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _DUMPABLE], capture_output=True, text=True, check=True, timeout=60
    )

    assert done.stdout.strip() == "1 0 (0, 0)"


@pytest.mark.integration
def test_a_command_that_holds_a_key_leaves_no_core_file(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "gridtokenx_cloud", "keys", "new", "--sealed", "key"]
    # What it says first is the question for the password: it has made the key by then.
    with subprocess.Popen(
        program,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        assert process.stderr.read(1)
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        process.kill()

    [core] = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert core.split()[4:6] == ["0", "0"]
