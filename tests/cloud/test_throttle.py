"""A gateway that floods waits; a backlog does not, and others never."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_cloud.errors import FloodedError
from gridtokenx_cloud.ingest import Message
from gridtokenx_cloud.throttle import RejectionBudget, TokenBuckets
from gridtokenx_cloud.wiring import submit
from tests.support import build_cloud as build
from tests.support.build_cloud import GATEWAY, NOON_MS, OTHER_GATEWAY, Cloud

WEEK_OF_TEN_METERS = 10 * 7 * 96


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with build.cloud(tmp_path, buckets=TokenBuckets(lines_per_s=10, burst=20)) as made:
        yield made


def test_a_weeks_backlog_passes_at_once_and_a_flood_waits() -> None:
    buckets = TokenBuckets(lines_per_s=1_500, burst=10_000)

    backlog = [buckets.take("gw", 100, 0) for _ in range(WEEK_OF_TEN_METERS // 100 + 1)]
    flood = [buckets.take("gw", 100, 0) for _ in range(100)]

    assert set(backlog) == {0}
    assert flood[-1] > 0
    assert buckets.take("other", 100, 0) == 0


def test_after_the_named_wait_there_is_room() -> None:
    buckets = TokenBuckets(lines_per_s=10, burst=20)
    buckets.take("gw", 20, 1_000)

    wait_ms = buckets.take("gw", 5, 1_000)

    assert wait_ms == 500
    assert buckets.take("gw", 5, 1_000 + wait_ms - 1) == 1
    assert buckets.take("gw", 5, 1_000 + wait_ms) == 0


def test_a_message_larger_than_a_bucket_passes_when_the_bucket_is_full_and_leaves_a_debt() -> None:
    buckets = TokenBuckets(lines_per_s=10, burst=20)

    assert buckets.take("gw", 100, 0) == 0
    assert buckets.take("gw", 1, 0) == 8_100


@given(st.lists(st.tuples(st.integers(0, 2_000), st.integers(1, 30)), max_size=60))
def test_no_sender_ever_gets_more_than_its_rate_and_one_burst(
    arrivals: list[tuple[int, int]],
) -> None:
    buckets, now_ms, passed = TokenBuckets(lines_per_s=10, burst=30), 0, 0

    for pause_ms, lines in arrivals:
        now_ms += pause_ms
        if buckets.take("gw", lines, now_ms) == 0:
            passed += lines
        assert passed * 1000 <= 30 * 1000 + now_ms * 10


def test_names_nobody_hears_of_again_are_forgotten() -> None:
    buckets = TokenBuckets(lines_per_s=10, burst=20)

    for number in range(25_000):
        buckets.take(f"gw-{number}", 1, number)

    assert len(buckets._levels) <= 10_000


def test_a_clock_that_is_set_back_refills_nothing() -> None:
    buckets = TokenBuckets(lines_per_s=10, burst=20)
    buckets.take("gw", 20, 10_000)

    assert buckets.take("gw", 1, 0) > 0


def test_above_six_hundred_a_minute_refused_lines_are_only_counted() -> None:
    budget = RejectionBudget()

    kept = [budget.allows("gw", 0) for _ in range(700)]

    assert kept.count(True) == 600
    assert budget.allows("other", 0)
    assert budget.allows("gw", 60_000)


def test_a_flood_of_refused_lines_gets_receipts_and_leaves_counts(tmp_path: Path) -> None:
    with build.cloud(tmp_path) as cloud:
        outcomes = [
            cloud.take(GATEWAY.message(*(b"noise %d" % (start + n) for n in range(100))))
            for start in range(0, 700, 100)
        ]
        cloud.take(OTHER_GATEWAY.message(b"noise"))

        assert len(build.receipt(outcomes[-1]).rejected) == 100
        assert cloud.rows("SELECT count(*) FROM rejections") == [(601,)]
        assert cloud.rows("SELECT gateway_id, lines FROM rejection_floods") == [
            (GATEWAY.gateway_id, 100)
        ]
        assert cloud.rows("SELECT count(*) FROM events") == [(601,)]


def test_a_gateway_above_its_rate_is_told_over_http_when_to_go_on(cloud: Cloud) -> None:
    lines = [GATEWAY.line(build.slot(seq, seq)) for seq in range(60, 90)]
    submit(cloud.service, GATEWAY.gateway_id, b"\n".join(lines[:20]))

    with pytest.raises(FloodedError) as raised:
        submit(cloud.service, GATEWAY.gateway_id, b"\n".join(lines[20:]))

    assert raised.value.wait_s == 1
    assert len(cloud.readings()) == 20
    other = OTHER_GATEWAY.line(build.slot(at=build.stamp(96, meter_id="HOUSE-18")))
    submit(cloud.service, OTHER_GATEWAY.gateway_id, other)
    cloud.clock.at_ms = NOON_MS + 1_000
    submit(cloud.service, GATEWAY.gateway_id, b"\n".join(lines[20:]))
    assert len(cloud.readings()) == 31


def test_nonsense_topics_have_buckets_too(cloud: Cloud) -> None:
    message = Message("gridtokenx/v1/+/readings", b"\n" * 19)

    assert [cloud.service.wait_ms(message) for _ in range(2)] == [0, 2_000]
