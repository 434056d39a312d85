"""How fast lines leave, and which travel alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_agent.ports import Waiting
from gridtokenx_agent.traffic import (
    FIRST_ASIDE_MS,
    LONGEST_ASIDE_MS,
    LONGEST_HOLD_MS,
    Pace,
    Replies,
    Traffic,
    as_one,
)
from gridtokenx_wire.receipt import Receipt
from tests.support import build


def rows(*row_ids: int, size: int = 10) -> list[Waiting]:
    return [Waiting(row_id, b"x" * size) for row_id in row_ids]


@given(
    rate=st.integers(50, 5000),
    steps=st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 50)), max_size=60),
)
def test_no_more_lines_leave_than_the_pace_allows(rate: int, steps: list[tuple[int, int]]) -> None:
    pace, now_ms, sent = Pace(rate), 0, 0

    for passed_ms, lines in steps:
        now_ms += passed_ms
        if pace.wait_ms(now_ms) == 0:
            pace.take(lines)
            sent += lines

    assert sent <= rate + rate * now_ms // 1000 + 50


@given(rate=st.integers(50, 5000), lines=st.integers(1, 500))
def test_the_wait_it_names_is_enough_and_never_much_longer(rate: int, lines: int) -> None:
    pace = Pace(rate)
    pace.wait_ms(0)
    pace.take(rate + lines)

    wait_ms = pace.wait_ms(0)

    assert 0 < wait_ms <= lines * 1000 // rate + 2
    assert pace.wait_ms(wait_ms) == 0


def test_rows_of_a_message_that_was_lost_go_one_by_one() -> None:
    traffic = Traffic()
    traffic.sent(1, (1, 2, 3), 0)
    traffic.lost(0)

    first = traffic.group(rows(1, 2, 3, 4), 1000)
    traffic.sent(2, tuple(row.row_id for row in first), 0)
    alone = traffic.group(rows(1, 2, 3), 1000)
    traffic.sent(3, (1,), 0)

    assert [row.row_id for row in first] == [4]
    assert [row.row_id for row in alone] == [1]
    assert traffic.busy(0) == {1, 2, 3, 4}


def test_a_row_that_comes_to_grief_alone_is_set_aside_ever_longer_and_tried_again() -> None:
    traffic = Traffic()
    traffic.sent(1, (7,), 0)
    traffic.lost(0)
    pauses = []

    now_ms = 0
    for _ in range(12):
        traffic.sent(2, (7,), now_ms)
        assert traffic.lost(now_ms) == [7]
        pauses.append(traffic.aside[7] - now_ms)
        now_ms = traffic.aside[7]
        assert 7 not in traffic.busy(now_ms)

    assert pauses[:3] == [FIRST_ASIDE_MS, 2 * FIRST_ASIDE_MS, 4 * FIRST_ASIDE_MS]
    assert pauses[-1] == LONGEST_ASIDE_MS


def test_a_row_that_gets_through_alone_is_like_the_others_again() -> None:
    traffic = Traffic()
    traffic.sent(1, (1, 2), 0)
    traffic.turned_down(1, 0)

    traffic.sent(2, (1,), 0)
    traffic.acked(2, 20, 0)

    assert [row.row_id for row in traffic.group(rows(1, 3), 1000)] == [1, 3]


def test_what_is_remembered_of_lost_rows_does_not_grow() -> None:
    traffic = Traffic()

    for start in range(0, 100_000, 1000):
        traffic.sent(1, tuple(range(start, start + 1000)), 0)
        traffic.lost(0)

    assert len(traffic.alone) == 1000


@pytest.mark.parametrize(("ack_ms", "expected"), [(1001, 10), (1000, 20)])
def test_a_slow_broker_gets_fewer_messages_at_once(ack_ms: int, expected: int) -> None:
    traffic = Traffic()
    traffic.sent(1, (1,), 0)

    traffic.acked(1, 20, ack_ms)

    assert traffic.window(20) == expected


def test_the_pause_after_refusals_grows_to_a_minute_and_ends_with_one_success() -> None:
    traffic = Traffic()
    pauses, now_ms = [], 0

    for number in range(10):
        traffic.sent(number, (number,), now_ms)
        traffic.turned_down(number, now_ms)
        pauses.append(traffic.held_until_ms - now_ms)
        now_ms = traffic.held_until_ms
    traffic.sent(99, (99,), now_ms)
    traffic.acked(99, 20, now_ms)
    traffic.sent(100, (100,), now_ms)
    traffic.turned_down(100, now_ms)

    assert pauses[:3] == [1000, 2000, 4000]
    assert pauses[-1] == LONGEST_HOLD_MS
    assert traffic.held_until_ms - now_ms == 1000


def test_a_line_longer_than_the_broker_takes_goes_all_the_same_and_alone() -> None:
    traffic = Traffic()

    assert [row.row_id for row in traffic.group(rows(1, 2, size=500), 100)] == [1]


def test_replies_under_way_at_a_cut_go_again_in_order() -> None:
    replies = Replies()
    replies.waiting.extend([b"c"])
    replies.under_way.update({1: b"a", 2: b"b"})

    replies.lost()

    assert list(replies.waiting) == [b"a", b"b", b"c"]


_SAID = st.builds(
    lambda meter_id, first, length, rejected: build.receipt(
        meter_id, (first, first + length), rejected=rejected
    ),
    st.sampled_from(["M1", "M2"]),
    st.integers(1, 30),
    st.integers(0, 5),
    st.lists(st.sampled_from([b"a", b"b"]), max_size=1),
)


@given(receipts=st.lists(_SAID, min_size=1, max_size=6))
def test_receipts_taken_as_one_say_what_all_of_them_say(receipts: list[Receipt]) -> None:
    whole = as_one(receipts)

    for meter_id in ("M1", "M2"):
        for seq in range(1, 40):
            said = any(receipt.covers(meter_id, build.EPOCH, seq) for receipt in receipts)
            assert whole.covers(meter_id, build.EPOCH, seq) == said
    assert whole.rejected == tuple(entry for receipt in receipts for entry in receipt.rejected)


@pytest.mark.parametrize("rate", [50, 200, 1300])
def test_at_any_pace_a_message_takes_no_more_than_a_quarter_of_a_second(rate: int) -> None:
    pace = Pace(rate)
    pace.take(rate + pace.longest - 1)

    assert pace.wait_ms(0) <= 251
