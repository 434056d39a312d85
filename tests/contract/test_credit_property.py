"""Whatever happens on the way, a meter is credited what its register moved: no Wh more or less."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, cycle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.held import SqlHeldReadings
from gridtokenx_cloud.adapters.store.ingest import SqlIngestStore
from gridtokenx_cloud.adapters.verifier import verify
from gridtokenx_cloud.errors import ValidationError
from gridtokenx_cloud.ingest import IngestService
from gridtokenx_cloud.verify import ReadingRules
from gridtokenx_wire.encoding import line_hash
from gridtokenx_wire.record import FIRST_PREV, LiveValues, Quality, SlotRecord
from gridtokenx_wire.signing import signer
from tests.support import build_cloud as build
from tests.support.build_cloud import GATEWAY, SLOT_MS, Cloud

RATED_W = 10_000
ROLLOVERS_WH = (0, 2**32 - 2_500, 3 * 2**32 - 1)
"""Registers of 32 bits turn over between the slots; the gateway sends the unwrapped total."""
ALL_HOLD = ReadingRules(
    spike_holds=True,
    spike_percent=100,
    spike_rated_percent=0,
    stuck_holds=True,
    stuck_wh=1,
    chain_gap_holds=True,
    chain_gap_wait_s=3_000,
    phase_sum_holds=True,
)
_meters = count(1)


@dataclass(frozen=True)
class Sent:
    """A slot as the gateway keeps it until a receipt."""

    epoch: str
    slot: SlotRecord


@dataclass(frozen=True)
class Deed:
    """One thing that happens: lines arrive, or an operator decides.

    Attributes:
        picks: Numbers that choose lines, or one held reading.
        worker: Which of the workers takes the lines.
    """

    kind: str
    picks: tuple[int, ...]
    worker: int


DEEDS = st.lists(
    st.builds(
        Deed,
        kind=st.sampled_from(["arrive"] * 6 + ["release", "reject", "accept_epoch"]),
        picks=st.lists(st.integers(0, 99), min_size=1, max_size=5).map(tuple),
        worker=st.integers(0, 1),
    ),
    max_size=14,
)
COUNTS = st.lists(
    st.tuples(
        st.sampled_from(ROLLOVERS_WH),
        st.lists(st.sampled_from([0, 1, 900, 3_000, 3_002, 3_003, 9_000]), max_size=6),
    ),
    min_size=1,
    max_size=3,
)
SIGNS = st.lists(
    st.tuples(
        st.sampled_from([None, 0, -3_600, -12_000]),
        st.sampled_from([Quality.NONE, Quality.NONE, Quality.POWER_MISMATCH]),
    ),
    min_size=1,
    max_size=5,
)


@pytest.fixture(scope="module")
def cloud(new_store: Callable[[], Database]) -> Iterator[Cloud]:
    with build.cloud(new_store()) as made:
        yield made


def worker(cloud: Cloud, rules: ReadingRules) -> IngestService:
    return IngestService(
        SqlIngestStore(cloud.database),
        verify,
        signer(build.CLOUD_KEY),
        lambda: rules,
        build.TOKEN,
        cloud.clock,
    )


def lines_of(
    meter_id: str, counts: list[tuple[int, list[int]]], signs: list[tuple[int | None, Quality]]
) -> list[Sent]:
    """Return what the gateway reads: one epoch after the other, a slot every 15 minutes.

    *signs* are the measured power and the quality of one slot after the other, all over again.
    """
    shown = cycle(signs)
    sent: list[Sent] = []
    at_slot = 20
    for number, (start_wh, steps) in enumerate(counts):
        epoch, export_wh, prev = f"{number:016x}", start_wh, FIRST_PREV
        for seq, step_wh in enumerate([0, *steps], 1):
            export_wh += step_wh
            stamp = build.stamp(
                seq,
                meter_id=meter_id,
                epoch=epoch,
                wall_ms=build.NOON_MS + (at_slot - 100) * SLOT_MS,
                mono_ms=at_slot * SLOT_MS,
            )
            power_w, flags = next(shown)
            plain = build.slot(
                at=stamp, export_wh=export_wh, live=LiveValues(active_power_w=power_w)
            )
            slot = plain._replace(prev=prev, flags=flags)
            prev = line_hash(GATEWAY.line(slot))
            sent.append(Sent(epoch, slot))
            at_slot += 1
    return sent


@dataclass
class World:
    """One meter, its lines, two workers and an operator."""

    cloud: Cloud
    meter_id: str
    sent: list[Sent]
    rules: ReadingRules
    workers: tuple[IngestService, IngestService]

    @property
    def desk(self) -> SqlHeldReadings:
        return SqlHeldReadings(self.cloud.database, self.cloud.clock, actor="test")

    def do(self, deed: Deed) -> None:
        if deed.kind == "arrive":
            chosen = [self.sent[pick % len(self.sent)].slot for pick in deed.picks]
            self.workers[deed.worker].process([GATEWAY.sends(*chosen)])
        elif deed.kind == "accept_epoch":
            self.accept(self.sent[deed.picks[0] % len(self.sent)].epoch)
        else:
            self.decide(deed.kind, deed.picks[0])

    def accept(self, epoch: str) -> None:
        known = self.cloud.rows(
            "SELECT 1 FROM meter_epochs WHERE meter_id = ? AND epoch = ?", self.meter_id, epoch
        )
        if known:
            self.desk.accept_epoch(self.meter_id, epoch, self.rules)

    def held(self) -> list[int]:
        rows = self.cloud.rows(
            "SELECT reading_id FROM meter_readings WHERE meter_id = ? AND status = 'held'"
            " ORDER BY epoch, seq",
            self.meter_id,
        )
        return [int(str(reading_id)) for (reading_id,) in rows]

    def decide(self, kind: str, pick: int) -> None:
        held = self.held()
        if not held:
            return
        reading_id = held[pick % len(held)]
        if kind == "reject":
            # The ends of a count decide what it is worth, so the test's operator keeps them.
            if not self.is_end(reading_id):
                self.desk.reject(reading_id, "looked wrong")
            return
        try:
            self.desk.release(reading_id)
        except ValidationError as exc:
            if exc.code != "UnknownEpoch":
                raise

    def is_end(self, reading_id: int) -> bool:
        ((epoch, seq),) = self.cloud.rows(
            "SELECT epoch, seq FROM meter_readings WHERE reading_id = ?", reading_id
        )
        seqs = [one.slot.stamp.seq for one in self.sent if one.epoch == epoch]
        return seq in (seqs[0], seqs[-1])

    def bring_home(self) -> None:
        """Let every line arrive once more, and an operator release whatever waits."""
        for one in self.sent:
            self.workers[0].process([GATEWAY.sends(one.slot)])
        for epoch in {one.epoch for one in self.sent}:
            self.accept(epoch)
        # Releasing one may leave nothing to decide of others.
        while waiting := self.held():
            self.desk.release(waiting[0])

    def credited_wh(self) -> dict[str, int]:
        rows = self.cloud.rows(
            "SELECT epoch, sum(credit_wh) FROM meter_readings WHERE meter_id = ? GROUP BY epoch",
            self.meter_id,
        )
        return {str(epoch): int(str(wh)) for epoch, wh in rows}

    def counted_wh(self) -> dict[str, int]:
        """Return how far the registers of the readings moved that an epoch counts."""
        rows = self.cloud.rows(
            "SELECT epoch, coalesce(max(export_wh) - min(export_wh), 0) FROM meter_readings"
            " WHERE meter_id = ? AND status IN ('accepted', 'late') GROUP BY epoch",
            self.meter_id,
        )
        return {str(epoch): int(str(wh)) for epoch, wh in rows}


@pytest.mark.no_cover  # the same lines a thousand times
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(counts=COUNTS, deeds=DEEDS, signs=SIGNS, rules=st.sampled_from([ReadingRules(), ALL_HOLD]))
def test_credited_is_what_the_register_moved_whatever_happens_on_the_way(
    cloud: Cloud,
    counts: list[tuple[int, list[int]]],
    deeds: list[Deed],
    signs: list[tuple[int | None, Quality]],
    rules: ReadingRules,
) -> None:
    meter_id = f"PROPERTY-{next(_meters)}"
    cloud.registry.add_meter(
        meter_id,
        gateway_id=GATEWAY.gateway_id,
        user_id="ann",
        rated_power_w=RATED_W,
        resolution_wh=1,
        epoch_policy="first",
    )
    sent = lines_of(meter_id, counts, signs)
    workers = worker(cloud, rules), worker(cloud, rules)
    world = World(cloud, meter_id, sent, rules, workers)

    for deed in deeds:
        world.do(deed)
        # At every moment: nothing but what accepted readings moved, and all of that.
        counted = world.counted_wh()
        assert {e: wh for e, wh in world.credited_wh().items() if wh} == {
            e: wh for e, wh in counted.items() if wh
        }
    world.bring_home()

    moved = {f"{number:016x}": sum(steps) for number, (_, steps) in enumerate(counts)}
    assert world.credited_wh() == moved
    assert world.held() == []
    assert cloud.rows("SELECT count(*) FROM meter_readings WHERE meter_id = ?", meter_id) == [
        (len(world.sent),)
    ]
    ((through_wh,),) = cloud.rows(
        "SELECT sum(credited_through_wh - baseline_wh) FROM meter_epochs WHERE meter_id = ?",
        meter_id,
    )
    assert through_wh == sum(moved.values())
