"""Records as CSV while the agent runs; and the completion scripts."""

import asyncio
import csv
import io
import json
from pathlib import Path

import pytest

from gridtokenx_agent.adapters.keyfile import load_key
from gridtokenx_agent.adapters.sqlite_buffer import open_buffer
from gridtokenx_wire.encoding import parse_line
from tests.agent.test_cli import Cli, cli, init_arguments
from tests.support import build

__all__ = ["cli"]


@pytest.fixture
def config(cli: Cli, tmp_path: Path) -> str:
    """A gateway with three waiting lines and one refused, its buffer held open as in use."""
    cli(*init_arguments(tmp_path))
    gateway_id = load_key(tmp_path / "gateway.key").gateway_id
    asyncio.run(_fill(tmp_path / "buffer.db", gateway_id))
    return str(tmp_path / "agent.toml")


async def _fill(path: Path, gateway_id: str) -> None:
    buffer = open_buffer(path, gateway_id, 4, 900, 0)
    lines = await build.fill(buffer, "HOUSE-17", ["event", "slot", "sample", "slot"])
    await buffer.settle(build.receipt("HOUSE-17", rejected=[lines[3]]), ())
    buffer.close()


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_every_record_is_a_row_with_its_state(cli: Cli, config: str) -> None:
    code, out, err = cli("export", "--config", config)

    rows = table(out)
    assert (code, err) == (0, "")
    assert [(row["kind"], row["seq"], row["state"]) for row in rows] == [
        ("event", "1", "waiting"),
        ("slot", "2", "waiting"),
        ("sample", "3", "waiting"),
        ("slot", "4", "refused"),
    ]
    assert rows[1]["import_wh"] == "2"
    assert rows[0]["import_wh"] == ""
    assert rows[3]["reason"] == "BadSignature: because"
    assert rows[1]["time"] == "2026-01-01T00:00:00.002+00:00"


def test_a_span_of_time_is_from_its_start_to_before_its_end(cli: Cli, config: str) -> None:
    out = cli(
        "export", "--config", config,
        "--since", "2026-01-01T00:00:00.002", "--until", "2026-01-01T01:00:00.003+01:00",
    )[1]  # fmt: skip

    assert [row["seq"] for row in table(out)] == ["2"]


def test_kinds_and_meters_can_be_chosen(cli: Cli, config: str) -> None:
    slots = cli("export", "--config", config, "--kind", "slot")[1]
    nobody = cli("export", "--config", config, "--meter", "HOUSE-18")[1]

    assert {row["kind"] for row in table(slots)} == {"slot"}
    assert table(nobody) == []


def test_json_has_exact_numbers_as_text(cli: Cli, config: str) -> None:
    records = json.loads(cli("export", "--config", config, "--json")[1])["records"]

    assert records[1]["export_wh"] == "2"


def test_lines_are_the_signed_bytes(cli: Cli, config: str) -> None:
    out = cli("export", "--config", config, "--lines", "--kind", "slot")[1]

    assert [parse_line(line.encode()).stamp.seq for line in out.splitlines()] == [2, 4]


def test_a_file_can_be_named(cli: Cli, config: str, tmp_path: Path) -> None:
    code, out, _ = cli("export", "--config", config, "--output", str(tmp_path / "x.csv"))

    assert (code, out) == (0, "")
    assert len(table((tmp_path / "x.csv").read_text())) == 4


@pytest.mark.parametrize("text", ["yesterday", "2026-13-01"])
def test_a_time_that_is_none_is_a_usage_error(cli: Cli, config: str, text: str) -> None:
    code, _, err = cli("export", "--config", config, "--since", text)

    assert code == 2
    assert text in err


def test_without_a_buffer_export_is_one_line_and_exit_code_1(cli: Cli, tmp_path: Path) -> None:
    cli(*init_arguments(tmp_path))

    code, out, err = cli("export", "--config", str(tmp_path / "agent.toml"))

    assert (code, out, err.count("\n")) == (1, "", 1)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_completion_script(cli: Cli, shell: str) -> None:
    code, out, _ = cli("completion", shell)

    assert code == 0
    assert "_GTX_AGENT_COMPLETE" in out
