"""Which meter it is: an epoch waits for an operator, so no single odd answer may begin one."""

from dataclasses import dataclass, field
from decimal import Decimal

import pytest

from tests.support.site import PROFILE, Site


@dataclass
class OddSite(Site):
    """A meter whose identity register says *odd* first, one for each time it is asked."""

    odd: list[int] = field(default_factory=list)

    def _values(self) -> dict[str, Decimal | str | None]:
        values = super()._values()
        _, function, address, _ = self.bus.reads[-1]
        identity = PROFILE.identity
        assert identity is not None
        if self.odd and (function, address) == (identity.function, identity.address):
            values["identity"] = Decimal(self.odd.pop(0))
        return values


async def begun() -> OddSite:
    site = OddSite()
    await site.pass_time(61)
    return site


@pytest.mark.parametrize("odd", [[0], [0, 0, 0], [4712], [4712, 4712], [4712, 0, 4712]])
async def test_an_identity_that_does_not_stay_costs_no_epoch(odd: list[int]) -> None:
    site = await begun()
    site.odd = odd
    site.show(100_010, 5_000)

    await site.pass_time(60)

    assert [slot.import_wh for slot in site.slots] == [100_000, 100_010]
    assert site.slots[0].stamp.epoch == site.slots[1].stamp.epoch
    assert "MeterExchanged" not in site.details


async def test_two_meters_that_answer_in_turn_as_one_device_are_refused_with_a_name() -> None:
    site = await begun()
    site.odd = [4712, 4711] * 100
    site.show(900_000, 700_000)

    await site.pass_time(120)

    assert [slot.import_wh for slot in site.slots] == [100_000]
    assert site.buffer.refusals["IdentityUnsteady"] >= 1
    assert "identity 4712 after 4711" in site.details


async def test_another_meter_that_stays_is_believed_after_three_answers() -> None:
    site = await begun()
    site.odd = [4712] * 3
    site.identity = 4712
    asked = len(site.bus.reads)

    await site.pass_time(60)

    identity_reads = [read for read in site.bus.reads[asked:] if read[2] == 0xFC00]
    assert len({slot.stamp.epoch for slot in site.slots}) == 2
    assert len(identity_reads) == 3
