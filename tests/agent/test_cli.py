"""`gtx-agent` as it is typed: output, one line per error, exit codes."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from gridtokenx_agent.__main__ import main
from gridtokenx_agent.adapters.keyfile import load_key
from gridtokenx_agent.adapters.sqlite_buffer import open_buffer
from tests.support import build

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["gtx-agent", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        assert isinstance(caught.value.code, int)
        return caught.value.code, captured.out, captured.err

    return call


def init_arguments(tmp_path: Path, **changes: str) -> list[str]:
    values = {
        "config": str(tmp_path / "agent.toml"),
        "key-file": str(tmp_path / "gateway.key"),
        "buffer": str(tmp_path / "buffer.db"),
        "mqtt-url": "mqtt://127.0.0.1:1883",
        "cloud-key": build.CLOUD_KEY_TEXT,
        "token": build.TOKEN,
        "bus-url": "tcp://127.0.0.1:1",
        "meter-id": "HOUSE-17",
        "profile": "eastron-sdm630",
        "device-id": "1",
    } | {name.replace("_", "-"): value for name, value in changes.items()}
    return ["init", *(part for name, value in values.items() for part in (f"--{name}", value))]


def test_init_leaves_a_configuration_that_is_right_and_a_key(cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli(*init_arguments(tmp_path))

    checked = cli("check-config", "--config", str(tmp_path / "agent.toml"), "--json")

    gateway_id = load_key(tmp_path / "gateway.key").gateway_id
    assert (code, err) == (0, "")
    assert f"gateway {gateway_id}" in out
    assert "gtx-cloud gateway accept CLAIM" in out
    assert checked[0] == 0
    assert json.loads(checked[1]) == {
        "gateway_id": gateway_id,
        "meters": ["HOUSE-17"],
        "warnings": [],
    }


def test_init_never_touches_a_configuration_that_is_there(cli: Cli, tmp_path: Path) -> None:
    cli(*init_arguments(tmp_path))

    code, _, err = cli(*init_arguments(tmp_path))

    assert code == 2
    assert err.count("\n") == 1
    assert "exists already" in err


def test_init_says_at_once_what_is_wrong_with_an_answer(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli(*init_arguments(tmp_path, profile="eastron-sdm6300", token="abc"))

    assert code == 2
    assert len(err.splitlines()) == 2


def test_keygen_keeps_a_key_that_is_there(cli: Cli, tmp_path: Path) -> None:
    first = cli("keygen", "--key-file", str(tmp_path / "k"), "--json")
    second = cli("keygen", "--key-file", str(tmp_path / "k"), "--json")

    assert first == second
    assert json.loads(first[1])["gateway_id"] == load_key(tmp_path / "k").gateway_id


def test_a_device_changes_its_key_and_is_told_what_to_write_where(cli: Cli, tmp_path: Path) -> None:
    cli(*init_arguments(tmp_path))
    config, new = tmp_path / "agent.toml", tmp_path / "next.key"
    before = load_key(tmp_path / "gateway.key").gateway_id
    cli("keygen", "--key-file", str(new))

    code, said, _ = cli("change-key", str(new), "--config", str(config))
    _, again, _ = cli("change-key", str(new), "--config", str(config), "--json")

    after = load_key(new).gateway_id
    assert code == 0
    assert f'key_file = "{new}" in {config}' in said
    assert json.loads(again) == {"gateway_id": after, "former_id": before}


def test_a_key_others_can_read_stops_with_one_line(cli: Cli, tmp_path: Path) -> None:
    cli(*init_arguments(tmp_path))
    (tmp_path / "gateway.key").chmod(0o644)

    code, _, err = cli("run", "--config", str(tmp_path / "agent.toml"))

    assert code == 2
    assert err.count("\n") == 1
    assert "chmod 600" in err


def test_a_wrong_configuration_stops_with_one_line_per_fault(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_text("[mqtt]\nurl = 'x'\n")

    code, _, err = cli("run", "--config", str(path))

    assert code == 2
    assert len(err.splitlines()) == 5
    assert all(line.startswith("gtx-agent: ") for line in err.splitlines())


def test_a_missing_configuration_is_one_line(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli("status", "--config", str(tmp_path / "no.toml"))

    assert code == 2
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "value", "flag"),
    [
        (("--type", "float32", "4366", "199A"), 0, "230.1", None),
        (("--type", "float32", "--order", "CDAB", "199A", "4366"), 0, "230.1", None),
        (("--type", "uint32", "--scale", "0.01", "0001", "0000"), 0, "655.36", None),
        (("--type", "float32", "7FC0", "0000"), 1, None, "not_available"),
        (("--type", "uint16", "FFFF"), 1, None, "not_available"),
    ],
)
def test_decode_prints_exact_values(
    cli: Cli, words: tuple[str, ...], code: int, value: str | None, flag: str | None
) -> None:
    result, out, _ = cli("decode", *words, "--json")

    assert (result, json.loads(out)) == (code, {"value": value, "flag": flag})


@pytest.mark.parametrize(
    "words",
    [
        ("--type", "float33", "4366", "199A"),
        ("--type", "float32", "4366"),
        ("--type", "uint16", "12345"),
        ("--type", "uint16", "xyz"),
        ("--type", "uint16", "--scale", "much", "0001"),
        ("--type", "uint16", "--order", "BABA", "0001"),
    ],
)
def test_decode_refuses_what_it_cannot_understand(cli: Cli, words: tuple[str, ...]) -> None:
    code, out, err = cli("decode", *words)

    assert (code, out) == (2, "")
    assert "Error" in err


def test_profiles_lists_every_model(cli: Cli) -> None:
    code, out, _ = cli("profiles", "--json")

    assert code == 0
    assert "eastron-sdm630" in [row["profile"] for row in json.loads(out)["profiles"]]


def test_read_tells_which_meter_does_not_answer(cli: Cli, tmp_path: Path) -> None:
    cli(*init_arguments(tmp_path))

    code, out, _ = cli("read", "--config", str(tmp_path / "agent.toml"), "--json")

    (meter,) = json.loads(out)["meters"]
    assert code == 1
    assert meter["meter_id"] == "HOUSE-17"
    assert meter["error"]


async def _filled(path: Path, gateway_id: str) -> None:
    buffer = open_buffer(path, gateway_id, 4, 900, 0)
    await build.fill(buffer, "HOUSE-17", ["event", "slot", "sample"])
    buffer.close()


def test_status_shows_what_waits(cli: Cli, tmp_path: Path) -> None:
    cli(*init_arguments(tmp_path))
    gateway_id = load_key(tmp_path / "gateway.key").gateway_id
    asyncio.run(_filled(tmp_path / "buffer.db", gateway_id))

    code, out, _ = cli("status", "--config", str(tmp_path / "agent.toml"), "--json")
    text = cli("status", "--config", str(tmp_path / "agent.toml"))[1]

    found = json.loads(out)
    assert code == 0
    assert found["gateway_id"] == gateway_id
    assert found["pending"] == {"slot": 1, "sample": 1, "event": 1, "clock": 0}
    assert (found["sent_unconfirmed"], found["dead"]) == (0, 0)
    assert [(m["meter_id"], m["seq"], m["state"]) for m in found["meters"]] == [
        ("HOUSE-17", 3, "unknown")
    ]
    assert "HOUSE-17" in text


def test_status_without_a_buffer_is_one_line_and_exit_code_1(cli: Cli, tmp_path: Path) -> None:
    cli(*init_arguments(tmp_path))

    code, _, err = cli("status", "--config", str(tmp_path / "agent.toml"))

    assert (code, err.count("\n")) == (1, 1)
