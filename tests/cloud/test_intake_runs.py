"""The short way of a usual line and the long way of every line come to the same."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from gridtokenx_cloud.intake import Intake
from gridtokenx_cloud.opened import OpenedLine
from gridtokenx_cloud.ports.ingest import Books
from gridtokenx_cloud.tenure import Ownership
from gridtokenx_cloud.verify import ReadingRules
from gridtokenx_wire.encoding import encode, line_hash
from gridtokenx_wire.record import FIRST_PREV, ClockQuality, LiveValues, Quality, SlotRecord
from tests.support import build_cloud as build
from tests.support.build_cloud import GATEWAY, OTHER_GATEWAY, SLOT_MS

METERS = ("M-0", "M-1", "M-2")
RULES = ReadingRules(max_reading_wh=5_000)


@dataclass(frozen=True)
class Step:
    """What a meter's next line is like; `twist` names what is odd about it."""

    meter: int
    moved_wh: int
    power_w: int | None
    twist: str | None


TWISTS = (
    "again",
    "another line under the same seq",
    "a lost line before it",
    "late",
    "no chain",
    "register backwards",
    "register stands",
    "other boot",
    "no time passed",
    "hardly any time passed",
    "clock unknown",
    "in the future",
    "too old",
    "other token",
    "phases do not add up",
    "remarks that hold nothing",
    "other epoch",
    "a sample",
    "sent by another gateway",
    "former key",
)
steps = st.builds(
    Step,
    meter=st.integers(0, 2),
    moved_wh=st.sampled_from([0, 1, 9, 10, 25, 249, 2_400, 2_900, 3_100, 5_200]),
    power_w=st.sampled_from([None, -9_500, -1_000, -40, 0, 500]),
    twist=st.one_of(st.none(), st.none(), st.sampled_from(TWISTS)),
)


class Sender:
    """Makes the lines of some meters, each chained to the one before it."""

    def __init__(self) -> None:
        self._last = {
            meter: build.slot(20, 1_000, at=build.stamp(20, meter_id=meter)) for meter in METERS
        }
        self._prev = dict.fromkeys(METERS, FIRST_PREV)

    def line(self, step: Step) -> OpenedLine:
        meter = METERS[step.meter]
        before = self._last[meter]
        seq = before.stamp.seq + (3 if step.twist in ("a lost line before it", "late") else 1)
        usual = SlotRecord(
            stamp=build.stamp(seq, meter_id=meter, boot_id=before.stamp.boot_id),
            interval_s=900,
            import_wh=before.import_wh,
            export_wh=before.export_wh + step.moved_wh,
            token=build.TOKEN,
            prev=self._prev[meter],
            live=LiveValues(active_power_w=step.power_w),
        )
        return self._twisted(step.twist, usual, before)

    def _twisted(self, twist: str | None, slot: SlotRecord, before: SlotRecord) -> OpenedLine:
        at = slot.stamp
        twisted: dict[str, Callable[[], SlotRecord]] = {
            "again": lambda: before,
            "another line under the same seq": lambda: before._replace(import_wh=1),
            "late": lambda: slot._replace(stamp=build.stamp(at.seq - 1, meter_id=at.meter_id)),
            "no chain": lambda: slot._replace(prev="f" * 32),
            "register backwards": lambda: slot._replace(export_wh=before.export_wh - 1),
            "register stands": lambda: slot._replace(export_wh=before.export_wh),
            "other boot": lambda: slot._replace(
                stamp=at._replace(boot_id="e" * 32, mono_ms=at.mono_ms + 99 * SLOT_MS)
            ),
            "no time passed": lambda: slot._replace(
                stamp=at._replace(mono_ms=before.stamp.mono_ms)
            ),
            "hardly any time passed": lambda: slot._replace(
                stamp=at._replace(mono_ms=before.stamp.mono_ms + 1)
            ),
            "clock unknown": lambda: slot._replace(
                stamp=at._replace(clock=ClockQuality.UNSYNCHRONISED)
            ),
            "in the future": lambda: slot._replace(
                stamp=at._replace(wall_ms=build.NOON_MS + 300_001)
            ),
            "too old": lambda: slot._replace(
                stamp=at._replace(wall_ms=build.NOON_MS - 7 * 86_400_000 - 1)
            ),
            "other token": lambda: slot._replace(token="1" * 32),
            "phases do not add up": lambda: slot._replace(flags=Quality.POWER_MISMATCH),
            "remarks that hold nothing": lambda: slot._replace(flags=Quality.RE_READ),
            "other epoch": lambda: slot._replace(stamp=at._replace(epoch="00000000000000e2")),
        }
        made = twisted.get(str(twist), lambda: slot)()
        line = encode(made)
        if twist == "a sample":
            sample = build.sample(at.seq, 100, at=at)
            return OpenedLine(GATEWAY.gateway_id, encode(sample), sample)
        if twist == "sent by another gateway":
            return OpenedLine(OTHER_GATEWAY.gateway_id, line, made)
        if twist == "former key":
            return OpenedLine(GATEWAY.gateway_id, line, made, signed_by=OTHER_GATEWAY.gateway_id)
        if twist not in ("again", "another line under the same seq", "late"):
            self._last[at.meter_id], self._prev[at.meter_id] = made, line_hash(line)
        return OpenedLine(GATEWAY.gateway_id, line, made)


def books() -> Books:
    """Return a fine and a coarse meter of one gateway, and one that changed hands."""
    sold = (Ownership(user_id="bob", wallet=build.wallet(2), from_ms=build.NOON_MS - 60 * SLOT_MS),)
    return Books(
        gateways={GATEWAY.gateway_id: "active", OTHER_GATEWAY.gateway_id: "active"},
        meters={
            METERS[0]: build.meter(METERS[0], resolution_wh=10),
            METERS[1]: build.meter(METERS[1], resolution_wh=1_000, rated_power_w=1_000),
            METERS[2]: build.meter(METERS[2]),
        },
        owners={METERS[2]: sold},
        reading_ids=iter(()),
    )


def taken(known: Books, batch: Sequence[OpenedLine], first_id: int, *, short: bool) -> Intake:
    known.reading_ids = count(first_id)
    intake = Intake(known, RULES, build.TOKEN, build.NOON_MS)
    if short:
        intake.take_all(batch)
    else:
        for opened in batch:
            intake.take(opened)
    known.reading_ids = iter(())
    return intake


def shown(intake: Intake) -> object:
    """Return all that an intake came to, in a form that can be compared."""
    known = {name: getattr(intake.books, name) for name in Books.__slots__ if name != "reading_ids"}
    return intake.changes, known, intake.tally, intake.remarks, list(intake.receipts())


@given(sent=st.lists(steps, min_size=1, max_size=40), size=st.integers(1, 12))
@example(sent=[Step(0, 25, None, None)] * 6, size=3)
@example(sent=[Step(0, 9, -100, twist) for twist in (None, None, *TWISTS) for _ in "ab"], size=7)
@example(sent=[Step(0, 5_200, None, t) for t in ("other boot", None, "other boot")], size=9)
@example(
    sent=[
        Step(1, 2_400, power, t)
        for power in (None, -9_500)
        for t in (None, None, "hardly any time passed")
    ],
    size=9,
)
def test_a_usual_line_comes_out_as_if_it_had_gone_the_long_way(sent: list[Step], size: int) -> None:
    sender, short, long = Sender(), books(), books()
    lines = [sender.line(step) for step in sent]

    for first in range(0, len(lines), size):
        batch = lines[first : first + size]
        quick = taken(short, batch, first + 1, short=True)
        slow = taken(long, copy.deepcopy(batch), first + 1, short=False)

        assert shown(quick) == shown(slow)


class Looked(list[OpenedLine]):
    """Lines that count how often one of them is looked at by its place."""

    looks = 0

    def __getitem__(self, at: Any) -> Any:
        self.looks += isinstance(at, int)
        return super().__getitem__(at)


def test_lines_that_come_again_are_each_looked_at_a_few_times() -> None:
    sender, known = Sender(), books()
    batch = [sender.line(Step(0, 25, None, None)) for _ in range(200)]
    taken(known, batch, 1, short=True)
    again = Looked(batch)

    intake = taken(known, again, 201, short=True)

    assert intake.tally["duplicate"] == 200
    assert again.looks <= 3 * 200
