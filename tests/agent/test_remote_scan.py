"""The search for meters that the cloud asks for: which device ids, and for how long."""

import asyncio
from collections.abc import Sequence

import pytest

from gridtokenx_agent.actions import SILENT_MS, device_ids, scan_fault, search_for_meters
from gridtokenx_agent.ports import ReadFunction, WordsRead
from gridtokenx_agent.remote import left_ms
from gridtokenx_wire.command import Command, CommandName
from gridtokenx_wire.record import ClockQuality
from tests.agent.test_scan_search import meter
from tests.support import build
from tests.support.fake_bus import FakeBus, SteadyClock


class SilentFrom(FakeBus):
    """A bus on which the device ids from one on never come to an end."""

    first_endless: int = 247

    async def read_words(
        self, device_id: int, function: ReadFunction, address: int, count: int, min_gap_ms: int
    ) -> WordsRead:
        if device_id >= self.first_endless:
            await asyncio.Event().wait()
        return await super().read_words(device_id, function, address, count, min_gap_ms)


def bus(*units: int) -> SilentFrom:
    return SilentFrom({unit: meter() for unit in units})


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", range(1, 11)), ("7", [7]), ("11-13", [11, 12, 13]), ("1-247", range(1, 248)),
        ("0-3", ()), ("5-4", ()), ("1-248", ()), ("a", ()), ("1-", ()), ("-1", ()), ("1 2", ()),
    ],
)  # fmt: skip
def test_device_ids_are_one_or_a_range_within_the_bus(text: str, ids: Sequence[int]) -> None:
    assert list(device_ids(text)) == list(ids)


def test_a_range_that_takes_longer_than_the_command_lives_is_refused_with_the_way_out() -> None:
    ids = device_ids("1-247")

    refused = scan_fault("1-247", ids, 300_000)

    assert refused is not None
    assert "247 device ids may take 496 s, the command lives for 300 s" in refused
    assert "--timeout" in refused
    assert scan_fault("1-247", ids, 600_000) is None


def test_nonsense_is_refused_and_the_usual_ten_never() -> None:
    assert "no device ids" in str(scan_fault("all", device_ids("all"), 300_000))
    assert scan_fault("", device_ids(""), SILENT_MS) is None


async def test_those_of_the_range_that_are_not_configured_are_asked() -> None:
    site = bus(11, 12, 13)

    looked = await search_for_meters(device_ids("11-14"), 60_000)(site, frozenset({12}))

    assert [device["device_id"] for device in looked.devices] == [11, 13]
    assert "abb-b23" in looked.devices[0]["profiles"]
    assert looked.unasked == ()
    assert {read[0] for read in site.reads} == {11, 13, 14}


async def test_a_search_ends_with_the_command_and_says_who_was_not_asked() -> None:
    site = bus(1)
    site.first_endless = 3

    looked = await search_for_meters(device_ids("1-5"), 0)(site, frozenset())

    assert [device["device_id"] for device in looked.devices] == [1]
    assert looked.unasked == (3, 4, 5)


def test_how_long_the_cloud_waits_is_known_with_and_without_a_true_clock() -> None:
    asked = Command(
        gateway_id=build.SIGNER.gateway_id, nonce="0" * 32, issued_ms=build.NOON_MS,
        expires_ms=build.NOON_MS + 300_000, command=CommandName.SCAN,
    )  # fmt: skip
    clock = SteadyClock(wall_ms=build.NOON_MS + 20_000)

    synchronised = left_ms(asked, clock.now())
    clock.quality = ClockQuality.UNSYNCHRONISED

    assert synchronised == 280_000
    assert left_ms(asked, clock.now()) == 300_000
