"""Held readings and moved meters as an operator types it: what is printed, and the exit codes."""

import getpass
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from gridtokenx_cloud.__main__ import run
from gridtokenx_cloud.events import rfc3339
from tests.support import build_cloud as build
from tests.support.build_cloud import GATEWAY, METER_ID, NOON_MS, OTHER_GATEWAY, SLOT_MS, Cloud
from tests.support.stores import migrated


@dataclass
class Desk:
    """A store that readings come into, and the program over it."""

    url: str
    cloud: Cloud
    capsys: pytest.CaptureFixture[str]

    def types(self, *words: str) -> tuple[int, str]:
        """Return the exit code, and what was printed: the output, or else the error."""
        self.capsys.readouterr()
        code = run(["--database-url", self.url, *words])
        shown = self.capsys.readouterr()
        return code, shown.out or shown.err

    def rows(self, *words: str) -> list[dict[str, object]]:
        code, text = self.types(*words, "--json")
        assert code == 0, text
        found: list[dict[str, object]] = json.loads(text)
        return found


@pytest.fixture
def desk(new_store_url: Callable[[], str], capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    url = new_store_url()
    with build.cloud(migrated(url)) as cloud:
        yield Desk(url, cloud, capsys)


def at_slot(seq: int) -> str:
    return f"{rfc3339(NOON_MS + (seq - 100) * SLOT_MS)[:19]}Z"


def test_held_readings_are_listed_released_and_rejected_and_each_word_is_on_record(
    desk: Desk,
) -> None:
    desk.cloud.take(GATEWAY.sends(build.slot(95, 1_000), build.slot(96, 21_000)))
    desk.cloud.take(GATEWAY.sends(build.slot(97, 900)))

    table = desk.types("held", "list")
    first, second = desk.rows("held", "list")
    released = desk.rows("held", "release", str(first["reading_id"]))
    no_reason = desk.types("held", "reject", str(second["reading_id"]))
    against_order = desk.types("held", "release", str(second["reading_id"]))
    rejected = desk.types("held", "reject", str(second["reading_id"]), "--reason", "misread")
    twice = desk.types("held", "release", str(first["reading_id"]))
    left = desk.types("held", "list")
    desk.cloud.take(GATEWAY.sends(build.slot(98, 21_100)))

    heads, *lines = table[1].splitlines()
    assert heads.split()[:6] == ["reading_id", "meter_id", "epoch", "seq", "export_wh", "reason"]
    assert [line.split()[1:6] for line in lines] == [
        [METER_ID, build.EPOCH, "96", "21000", "PowerExceeded"],
        [METER_ID, build.EPOCH, "97", "900", "CounterBackwards"],
    ]
    assert released == [{"reading_id": first["reading_id"], "credit_wh": 20_000}]
    assert (no_reason[0], against_order[0], rejected[0], twice[0]) == (2, 1, 0, 1)
    assert "--reason" in no_reason[1]
    assert "run `gtx-cloud held reject` instead" in against_order[1]
    assert "is not held; `gtx-cloud held list` shows what is" in twice[1]
    assert left == (0, "none\n")
    assert desk.cloud.readings() == [
        (95, "accepted", 0, None),
        (96, "accepted", 20_000, None),
        (97, "rejected", 0, "CounterBackwards"),
        (98, "accepted", 100, None),
    ]
    told = desk.rows("audit-log", "list", "--limit", "2")
    assert {(row["actor"], row["action"]) for row in told} == {
        (f"cli:{getpass.getuser()}", "reading_released"),
        (f"cli:{getpass.getuser()}", "reading_rejected"),
    }
    assert desk.types("audit-log", "verify")[0] == 0


def test_a_moved_meters_readings_are_whose_the_date_says_and_none_counts_twice(desk: Desk) -> None:
    desk.cloud.take(GATEWAY.sends(build.slot(90, 1_000), build.slot(92, 1_400)))

    moved = desk.types("meter", "move", METER_ID, "--user", "bob", "--from", at_slot(95))
    again = desk.types("meter", "move", METER_ID, "--user", "bob")
    future = desk.types("meter", "move", METER_ID, "--user", "ann", "--from", "2222-01-01")
    both = desk.types("meter", "move", METER_ID, "--user", "ann", "--gateway", "x")
    desk.cloud.take(GATEWAY.sends(build.slot(93, 1_500), build.slot(97, 2_500)))
    other = ("--gateway", OTHER_GATEWAY.gateway_id, "--from", at_slot(98))
    device = desk.rows("meter", "move", METER_ID, *other)
    refused = desk.cloud.take(GATEWAY.sends(build.slot(99, 3_000)))
    desk.cloud.take(
        OTHER_GATEWAY.sends(
            *(
                build.slot(at=build.stamp(seq, epoch="00000000000000e2"), export_wh=wh)
                for seq, wh in ((99, 3_000), (100, 3_200))
            )
        )
    )

    assert moved[0] == 0
    assert at_slot(95)[:19] in moved[1]
    assert (again[0], future[0], both[0]) == (1, 1, 2)
    assert "is there already" in again[1]
    assert "cannot move at 2222-01-01" in future[1]
    assert device[0]["gateway_id"] == OTHER_GATEWAY.gateway_id
    assert refused.tally["rejected:MeterNotOfGateway"] == 1
    (listed,) = [row for row in desk.rows("meter", "list") if row["meter_id"] == METER_ID]
    assert (listed["user_id"], listed["gateway_id"]) == ("bob", OTHER_GATEWAY.gateway_id)
    assert desk.cloud.rows(
        "SELECT user_id, sum(credit_wh) FROM meter_readings GROUP BY user_id ORDER BY user_id"
    ) == [("ann", 400 + 100), ("bob", 1_000 + 200)]
