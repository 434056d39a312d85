import importlib
import json
import sqlite3
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from gridtokenx_cloud.__main__ import _COMMANDS, run
from gridtokenx_cloud.adapters.store.database import open_database
from gridtokenx_cloud.adapters.store.mint_queue import SqlMintQueue
from gridtokenx_cloud.commands.context import Row, emit
from gridtokenx_cloud.ports.mint import Refusal
from gridtokenx_cloud.settings import GROUPS
from gridtokenx_cloud.tokenization import RetryPolicy
from tests.support.mint_world import add_credits, add_owner


@pytest.fixture(autouse=True)
def _clean_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for group in GROUPS.values():
        for field in group.model_fields:
            monkeypatch.delenv(group.env_name(field), raising=False)


@pytest.fixture
def store(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'cloud.db'}"
    assert run(["--database-url", url, "migrate"]) == 0
    return url


def test_the_table_of_commands_and_their_modules_agree() -> None:
    by_module: dict[str, set[str]] = defaultdict(set)
    for command, module_name in _COMMANDS.items():
        by_module[module_name].add(command)

    for name, expected in by_module.items():
        module = importlib.import_module(f"gridtokenx_cloud.commands.{name}")
        commands = (*getattr(module, "COMMANDS", ()), *getattr(module, "GROUPS", ()))

        assert {command.name for command in commands} == expected


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["--help"])

    said = capsys.readouterr().out
    assert code == 0
    assert all(f"  {command} " in said for command in _COMMANDS)


def test_help_shows_what_a_command_does_as_a_whole_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(["--help"])

    said = capsys.readouterr().out.partition("Commands:")[2]
    assert "verify-proof" in said
    assert "..." not in said


def test_a_password_is_drawn_only_for_a_gateway_that_there_is(
    store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["--database-url", store, "gateway", "password", "stranger"])

    said = capsys.readouterr()
    assert code == 1
    assert "password" not in said.out
    assert "Gateway stranger is not enrolled" in said.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["set", "nope=1"], "UnknownVariable: nope"),
        (["set", "decimals=3"], "decimals is fixed"),
        (["set", "batch_size=0"], "set it to 1..1000"),
        (["set", "batch_size"], "is not NAME=VALUE"),
        (["unset", "nope"], "UnknownVariable: nope"),
        (["unset", "batch_size", "kwh_to_token_ratio"], "kwh_to_token_ratio is fixed"),
    ],
)
def test_a_setting_that_cannot_change_is_refused_by_name_and_changes_nothing(
    store: str, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    run(["--database-url", store, "config", "set", "batch_size=40"])
    capsys.readouterr()

    code = run(["--database-url", store, "config", *arguments])

    assert code == 2
    assert says in capsys.readouterr().err
    run(["--database-url", store, "config", "list", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert {row["setting"]: row["value"] for row in rows}["batch_size"] == "40"


def test_a_refused_credit_is_sent_on_and_laid_aside_by_number(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = open_database(store)
    add_owner(database, 1)
    ids = add_credits(database, 1, (500, 700), 0)
    policy = RetryPolicy()
    queue = SqlMintQueue(database, lambda: policy)
    queue.refuse(ids, Refusal("RecipientRefused", "frozen"), 0)
    database.close()
    first, second = map(str, ids)

    def gtx(*arguments: str) -> list[dict[str, object]]:
        capsys.readouterr()
        assert run(["--database-url", store, "retry", *arguments, "--json"]) == 0
        found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
        return found

    given_up = gtx("give-up", first)
    parked = gtx("list", "--parked")
    requeued = gtx("requeue", first, second)
    both = gtx("list")

    assert given_up == [{"reading_id": ids[0], "status": "given up"}]
    assert [row["reading_id"] for row in parked] == [ids[0]]
    assert [row["status"] for row in requeued] == ["requeued", "requeued"]
    assert [row["parked_at"] for row in both] == [None, None]
    assert run(["--database-url", store, "retry", "requeue", "999"]) == 1
    assert "is not in the retry queue" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["no-such"], ["user", "add"], ["backup"], ["localnet", "--port", "x"]]
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(arguments)

    out, err = capsys.readouterr()
    assert code == 2
    assert out == ""
    assert err.startswith("gtx-cloud: ")
    assert err.count("\n") == 1


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    code = run([])

    assert code == 2
    assert capsys.readouterr().err.startswith("Usage: gtx-cloud")


def test_the_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(["--version"])

    assert code == 0
    assert capsys.readouterr().out.startswith("gtx-cloud, version 0.")


def test_check_config_lists_every_fault_on_its_own_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GTX_CLOUD_ROLES", "events")
    monkeypatch.setenv("TOKENIZATION_BATCH_SIZE", "0")
    monkeypatch.setenv("WEBSOCKET_BIN", "x")

    code = run(["check-config"])

    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    assert len(lines) == 2
    assert all(line.startswith("gtx-cloud: ") for line in lines)


def test_check_config_prints_what_differs_from_the_defaults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "its.env").write_text("GTX_CLOUD_ROLES=events\nTOKENIZATION_BATCH_SIZE=7\n")

    code = run(["--env-file", "its.env", "check-config", "--json"])

    assert code == 0
    assert json.loads(capsys.readouterr().out) == [
        {"setting": "GTX_CLOUD_ROLES", "value": "events (its.env)"},
        {"setting": "TOKENIZATION_BATCH_SIZE", "value": "7 (its.env)"},
    ]


def test_migrate_makes_a_store_for_its_owner_alone_and_is_safe_to_repeat(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["--database-url", store, "migrate"])

    assert code == 0
    assert "is up to date" in capsys.readouterr().out
    assert (tmp_path / "cloud.db").stat().st_mode & 0o077 == 0


def test_a_command_on_a_store_without_schema_names_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["--database-url", f"sqlite:///{tmp_path / 'new.db'}", "user", "list"])

    assert code == 1
    assert "run `gtx-cloud migrate` first" in capsys.readouterr().err


def test_a_backup_is_a_whole_store_and_overwrites_nothing(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run(["--database-url", store, "backup", "copy.db"])
    second = run(["--database-url", store, "backup", "copy.db"])

    assert (first, second) == (0, 2)
    assert "copy.db exists" in capsys.readouterr().err
    with sqlite3.connect(tmp_path / "copy.db") as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert copy.execute("SELECT count(*) FROM meters").fetchone() == (0,)
    copy.close()
    assert [path.name for path in tmp_path.glob("*.part")] == []


def test_a_table_is_aligned_and_json_is_exact(capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[Row] = [{"meter_id": "A", "wh": 2**53 + 1}, {"meter_id": "HOUSE-17", "wh": None}]

    emit(rows, False, sys.stdout)
    emit(rows, True, sys.stdout)

    table, _, text = capsys.readouterr().out.partition("[")
    assert table.splitlines() == ["meter_id  wh", "A         9007199254740993", "HOUSE-17  -"]
    assert json.loads("[" + text) == rows


@pytest.mark.integration
def test_a_plain_command_loads_neither_servers_nor_chain(store: str) -> None:
    script = (
        "import sys; from gridtokenx_cloud.__main__ import run;"
        f"code = run(['--database-url', {store!r}, 'user', 'list']);"
        "heavy = {'uvicorn', 'fastapi', 'websockets', 'solana', 'pydantic'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else code)"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
