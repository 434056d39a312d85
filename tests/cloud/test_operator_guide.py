"""The operator guide names commands and options that exist, and every code that it explains."""

import re
import shlex
from pathlib import Path
from typing import get_args

import click
import pytest

from gridtokenx_cloud.__main__ import cli
from gridtokenx_cloud.verify import Code

GUIDE = (Path(__file__).parents[2] / "docs" / "operator-guide.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL)
COMMANDS = sorted(
    {
        *(line for block in BLOCKS for line in block.splitlines() if line.startswith("gtx-cloud")),
        *re.findall(r"`(gtx-cloud [^`]+)`", GUIDE),
    }
)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_guide_can_be_typed_as_it_stands(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    command: click.Command = cli
    context = click.Context(cli)

    while isinstance(command, click.Group) and words:
        found = command.get_command(context, words[0])
        assert found is not None, words[0]
        command, words = found, words[1:]

    known = {name for one in command.params for name in one.opts}
    assert {word for word in words if word.startswith("--")} <= known
    if not isinstance(command, click.Group):
        command.make_context(command.name, list(words))


def test_every_code_of_a_reading_is_explained() -> None:
    told_by_the_service = {"BadTopic", "StoreRefused"}

    assert {code for code in get_args(Code) if f"`{code}`" not in GUIDE} == told_by_the_service
