"""From a new machine to a configuration that is right: flags, questions, and the claim."""

import io
import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gridtokenx_agent.adapters.keyfile import load_key
from gridtokenx_wire.claim import Claim, ClaimedMeter, decode_claim
from gridtokenx_wire.signing import verify_ed25519
from tests.agent.test_cli import Cli, cli, init_arguments
from tests.agent.test_scan_search import meter
from tests.support import build
from tests.support.served import served

__all__ = ["cli"]


def places(tmp_path: Path) -> list[str]:
    return [
        "--config", str(tmp_path / "agent.toml"), "--key-file", str(tmp_path / "gateway.key"),
        "--buffer", str(tmp_path / "buffer.db"),
    ]  # fmt: skip


def answer(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def written(tmp_path: Path) -> dict[str, Any]:
    return tomllib.loads((tmp_path / "agent.toml").read_text())


def test_flags_alone_ask_nothing_and_give_a_claim_the_cloud_can_check(
    cli: Cli, tmp_path: Path
) -> None:
    code, out, err = cli(*init_arguments(tmp_path, rated_power_w="11000"), "--json")

    said = json.loads(out)
    assert (code, err) == (0, "")
    assert decode_claim(said["claim"].encode(), verify_ed25519) == Claim(
        gateway_id=load_key(tmp_path / "gateway.key").gateway_id,
        token=build.TOKEN,
        meters=(
            ClaimedMeter(
                meter_id="HOUSE-17",
                profile="eastron-sdm630",
                resolution_wh=1,
                rated_power_w=11_000,
            ),
        ),
    )


def test_the_claim_can_be_printed_again(cli: Cli, tmp_path: Path) -> None:
    first = json.loads(cli(*init_arguments(tmp_path), "--json")[1])["claim"]

    again = cli("claim", "--config", str(tmp_path / "agent.toml"))[1]

    assert again == f"{first}\n"


def test_questions_and_a_search_give_a_configuration_that_is_right(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served({1: meter(), 4: meter(identity="1002")}) as url:
        answer(
            monkeypatch,
            "mqtt://127.0.0.1:1", "", build.CLOUD_KEY_TEXT, build.TOKEN,
            url, "", "ROOF", "11000", "", "CELLAR", "",
        )  # fmt: skip
        code, out, err = cli("init", *places(tmp_path))

    (bus,) = written(tmp_path)["bus"]
    assert code == 0
    assert [
        (entry["meter_id"], entry["profile"], entry["device_id"], entry.get("rated_power_w"))
        for entry in bus["meter"]
    ] == [("ROOF", "abb-b23", 1, 11_000), ("CELLAR", "abb-b23", 4, None)]
    assert bus["url"] == url
    assert "gtx-cloud gateway accept CLAIM --user OWNER --name NAME" in out
    assert "--rated-power-w W in addition, for CELLAR" in out
    assert "meter ROOF: answers: import" in err


def test_a_wrong_answer_is_told_and_asked_again(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(
        monkeypatch,
        "http://x", "mqtt://127.0.0.1:1", "", "abc", build.CLOUD_KEY_TEXT, build.TOKEN,
        "hand", "ttyUSB0", "tcp://127.0.0.1:1", "eastron-sdm6300", "eastron-sdm630", "999", "3",
        "a b", "ROOF", "much", "",
    )  # fmt: skip

    code, _, err = cli("init", *places(tmp_path))

    assert code == 0
    assert "must be mqtt://" in err
    assert "wrong length" in err
    assert "must begin with tcp://" in err
    assert "eastron-sdm630" in err
    assert written(tmp_path)["bus"][0]["meter"][0]["device_id"] == 3


def test_where_no_meter_is_found_it_can_be_named(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(
        monkeypatch,
        "mqtt://127.0.0.1:1", "", build.CLOUD_KEY_TEXT, build.TOKEN,
        "tcp://127.0.0.1:1", "tcp://127.0.0.1:1", "abb-b23", "7", "ROOF", "",
    )  # fmt: skip

    code, _, err = cli("init", *places(tmp_path))

    assert code == 0
    assert "No meter was recognised" in err
    assert "cannot be opened" in err


def test_a_flag_that_is_missing_where_nobody_answers_is_a_usage_error(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch)

    code, _, err = cli("init", *places(tmp_path))

    assert code == 2
    assert "--mqtt-url is missing" in err
    assert not (tmp_path / "agent.toml").exists()
    assert not (tmp_path / "gateway.key").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_files_root_makes_belong_to_whom_the_folder_belongs(cli: Cli, tmp_path: Path) -> None:
    for name in ("state", "etc"):
        (tmp_path / name).mkdir()
        os.chown(tmp_path / name, 4242, 4343)

    cli(
        *init_arguments(
            tmp_path,
            config=str(tmp_path / "etc" / "agent.toml"),
            key_file=str(tmp_path / "state" / "gateway.key"),
        )
    )

    key, config = (tmp_path / "state" / "gateway.key"), (tmp_path / "etc" / "agent.toml")
    assert [(path.stat().st_uid, path.stat().st_gid) for path in (key, config)] == [
        (4242, 4343),
        (4242, 4343),
    ]
    assert key.stat().st_mode & 0o777 == 0o600
    assert config.stat().st_mode & 0o007 == 0


def test_a_link_to_where_the_service_may_write_is_followed(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "etc").mkdir()
    link = tmp_path / "etc" / "agent.toml"
    link.symlink_to(tmp_path / "state" / "agent.toml")

    code, _, _ = cli(*init_arguments(tmp_path, config=str(link)))

    assert code == 0
    assert link.is_symlink()
    assert (tmp_path / "state" / "agent.toml").is_file()
