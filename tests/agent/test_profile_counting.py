"""A profile whose counters mean something else is another profile, whatever its name."""

from decimal import Decimal
from typing import Any

import pytest

from gridtokenx_agent.adapters.profile_files import find_profile
from gridtokenx_agent.profiles import MeterProfile, counting, counts_alike
from gridtokenx_agent.recorder import Recorder
from tests.support import build
from tests.support.site import Site

MINE = find_profile("abb-b23")


def corrected(point: str = "import_energy", **changes: Any) -> MeterProfile:
    points = MINE.points | {point: MINE.points[point].model_copy(update=changes)}
    return MINE.model_copy(update={"points": points})


@pytest.mark.parametrize(
    "changes",
    [
        {"scale": Decimal("0.1")},
        {"order": "CDAB"},
        {"type": "int64"},
        {"address": 0x5460},
        {"unit": "Wh"},
        {"function": 4},
    ],
)
def test_another_way_to_read_a_counter_is_another_profile_of_the_same_name(
    changes: dict[str, Any],
) -> None:
    before, after = counting("mine", MINE), counting("mine", corrected(**changes))

    assert before != after
    assert not counts_alike(before, after)


def test_what_does_not_touch_the_counters_changes_nothing() -> None:
    before = counting("mine", MINE)

    assert counting("mine", corrected("voltage_l1", scale=Decimal(1))) == before
    assert counting("mine", corrected(scale=Decimal("0.010"), evidence="SINGLE")) == before
    assert not counts_alike(before, counting("other", MINE))


def test_a_name_from_before_there_were_marks_goes_on() -> None:
    assert counts_alike("mine", counting("mine", MINE))
    assert counts_alike("/home/pi/#1.toml", counting("/home/pi/#1.toml", MINE))
    assert not counts_alike("other", counting("mine", MINE))


async def test_a_corrected_scale_begins_an_epoch_and_is_no_energy() -> None:
    site = Site()
    await site.pass_time(61)
    parts, known = build.recorder_parts(site.buffer), site.buffer.known["M1"]
    first = Recorder(parts, "M1", counting("eastron-sdm630", MINE), known)
    await first.open(site.clock.now())
    assert first.state.epoch == known.epoch
    await first.event("MeterUp", "", site.clock.now())

    second = Recorder(parts, "M1", counting("eastron-sdm630", corrected(order="CDAB")), first.state)
    await second.open(site.clock.now())

    assert second.state.epoch != known.epoch
    assert (second.state.counter, second.state.identity) == (None, "")
