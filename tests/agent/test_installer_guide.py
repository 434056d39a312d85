"""The installer guide names only what there is: commands, options, files."""

import re
from pathlib import Path

import click
import pytest

from gridtokenx_agent.__main__ import cli

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "installer-guide.md"
TEXT = GUIDE.read_text(encoding="utf-8")
TYPED = sorted(set(re.findall(r"gtx-agent ((?:[a-z-]+)(?: [^\n`|#;&]*)?)", TEXT)))


@pytest.mark.parametrize("typed", TYPED)
def test_every_command_of_the_guide_is_there_with_its_options(typed: str) -> None:
    name, *words = typed.split()
    given = {word.partition("=")[0] for word in words if word.startswith("--")}

    command = cli.commands.get(name)

    assert isinstance(command, click.Command), name
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert given <= known


def test_every_command_is_in_the_guide() -> None:
    assert {typed.split()[0] for typed in TYPED} >= set(cli.commands) - {"keygen"}


def test_every_file_the_guide_points_to_is_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)", TEXT) if "://" not in link]
    installed = re.findall(r"(?<!/)systemd/gridtokenx[a-z.-]+\b", TEXT)

    assert [link for link in links if not (GUIDE.parent / link).exists()] == []
    assert [name for name in installed if not (ROOT / name).exists()] == []
