"""Raw registers, and everything they could mean."""

import json
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_agent.commands.probe import Meaning, meanings
from tests.agent.test_cli import Cli, cli
from tests.agent.test_scan_search import meter
from tests.support.served import served

__all__ = ["cli"]


def the(kind: str, found: list[Meaning], address: int = 72) -> dict[str, str | None]:
    (entry,) = [entry for entry in found if (entry.type, entry.address) == (kind, address)]
    return entry.values


def test_two_words_stand_there_as_every_type_in_every_order() -> None:
    found = list(meanings((0x45A2, 0x26C7), 72))

    assert the("float32", found)["ABCD"] == "5188.847"
    assert the("uint32", found) == {
        "ABCD": str(0x45A226C7),
        "CDAB": str(0x26C745A2),
        "BADC": str(0xA245C726),
        "DCBA": str(0xC726A245),
    }
    assert the("uint16", found, 73) == {"ABCD": str(0x26C7), "BADC": str(0xC726)}


def test_what_other_meters_mean_by_no_value_is_shown_as_it_is() -> None:
    found = list(meanings((0xFFFF, 0xFFFF), 72))

    assert the("uint32", found)["ABCD"] == "4294967295"
    assert the("int32", found)["ABCD"] == "-1"
    assert the("float32", found)["ABCD"] is None


@given(st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=8))
def test_any_words_have_meanings_and_none_breaks(words: list[int]) -> None:
    found = list(meanings(words, 0))

    assert len([entry for entry in found if entry.type == "uint16"]) == len(words)
    assert all(
        value is None or Decimal(value).is_finite()
        for entry in found
        for value in entry.values.values()
    )


def test_probe_shows_the_words_of_a_meter(cli: Cli) -> None:
    with served({1: meter()}) as url:
        code, out, _ = cli("probe", url, "--device-id", "1", "--address", "0x8960", "--json")
        text = cli("probe", url, "--device-id", "1", "--address", "35168")[1]

    holding, input_ = json.loads(out)["answers"]
    assert code == 0
    assert holding["words"] == ["4232", "3300"]
    assert (input_["words"], "exception 2" in input_["error"]) == (None, True)
    assert "4232 3300" in text
    assert "35168 (0x8960)" in text
    assert max(len(line) for line in text.splitlines()) < 140


def test_a_meter_that_refuses_is_exit_code_1(cli: Cli) -> None:
    with served({1: meter()}) as url:
        code, out, _ = cli("probe", url, "--device-id", "1", "--address", "1", "--function", "3")

    assert code == 1
    assert "exception 2" in out


def test_a_bus_that_is_not_there_is_one_line(cli: Cli) -> None:
    code, out, err = cli("probe", "tcp://127.0.0.1:1", "--device-id", "1", "--address", "0")

    assert (code, out, err.count("\n")) == (1, "", 1)
