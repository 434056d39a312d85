"""The arithmetic of credits and of sequence ranges, in every order of arrival."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_cloud.ledger import (
    Mark,
    Placement,
    Span,
    add_seq,
    covers,
    elapsed_ms,
    overlaps,
    place,
    window,
)
from gridtokenx_wire.receipt import Ranges

steps = st.lists(st.integers(0, 5_000), min_size=1, max_size=12)


def mark(seq: int, export_wh: int, *, boot_id: str = "b", at_ms: int = 0) -> Mark:
    return Mark(
        reading_id=seq,
        seq=seq,
        export_wh=export_wh,
        boot_id=boot_id,
        mono_ms=seq * 1_000,
        not_before_ms=at_ms,
        not_after_ms=at_ms,
    )


def series(moves: list[int]) -> list[Mark]:
    """Return one reading per move, registers and seq both rising."""
    total, marks = 0, []
    for seq, wh in enumerate(moves, start=1):
        total += wh
        marks.append(mark(seq, total))
    return marks


def credit(marks: list[Mark], resolution_wh: int = 1) -> tuple[int, Span | None]:
    """Return what the readings are credited in this order, each `seq` taken once."""
    span: Span | None = None
    seen: Ranges = ()
    total = 0
    for one in marks:
        if covers(seen, one.seq):
            continue
        seen = add_seq(seen, one.seq)
        placement = place(span, one, resolution_wh)
        assert placement is not None
        total += placement.credit_wh
        span = placement.span
    return total, span


@given(steps, st.data())
def test_any_order_of_any_part_credits_exactly_what_the_register_moved(
    moves: list[int], data: st.DataObject
) -> None:
    arrived = data.draw(
        st.lists(st.sampled_from(series(moves)), min_size=1, max_size=30), label="arrivals"
    )

    total, span = credit(arrived)

    registers = [one.export_wh for one in arrived]
    assert total == max(registers) - min(registers)
    assert span is not None
    assert span.credited_through_wh - span.baseline_wh == total


@given(steps, st.integers(1, 100), st.data())
def test_a_coarse_register_is_never_credited_beyond_what_it_moved(
    moves: list[int], resolution_wh: int, data: st.DataObject
) -> None:
    arrived = data.draw(st.permutations(series(moves)), label="arrivals")

    total, _ = credit(arrived, resolution_wh)

    moved = arrived_span(arrived)
    assert total % resolution_wh == 0
    assert moved - 2 * resolution_wh < total <= moved


@given(steps, st.integers(1, 100))
def test_in_order_the_rest_below_the_resolution_waits_and_is_not_lost(
    moves: list[int], resolution_wh: int
) -> None:
    arrived = series(moves)

    total, _ = credit(arrived, resolution_wh)

    assert total == arrived_span(arrived) // resolution_wh * resolution_wh


def arrived_span(marks: list[Mark]) -> int:
    registers = [one.export_wh for one in marks]
    return max(registers) - min(registers)


def test_a_register_against_the_order_of_seq_finds_no_place() -> None:
    _, span = credit([mark(10, 100), mark(20, 200)])

    assert place(span, mark(21, 199), 1) is None
    assert place(span, mark(9, 101), 1) is None
    assert place(span, mark(15, 99), 1) is None
    assert place(span, mark(15, 201), 1) is None
    assert place(span, mark(15, 150), 1) is not None


def test_within_one_boot_the_boot_time_clock_tells_how_much_time_passed() -> None:
    early, late = mark(1, 0, at_ms=500_000), mark(4, 0, at_ms=0)

    assert elapsed_ms(early, late) == elapsed_ms(late, early) == 3_000


def test_over_a_boot_the_wall_clock_tells_and_never_runs_backwards() -> None:
    before = mark(1, 0, boot_id="a", at_ms=1_000)

    assert elapsed_ms(before, mark(2, 0, boot_id="b", at_ms=61_000)) == 60_000
    assert elapsed_ms(before, mark(2, 0, boot_id="b", at_ms=0)) == 0


@given(st.lists(st.integers(1, 40), max_size=60))
def test_ranges_hold_exactly_what_was_put_in_and_stay_apart(seqs: list[int]) -> None:
    ranges: Ranges = ()
    for seq in seqs:
        ranges = add_seq(ranges, seq)

    assert {seq for seq in range(42) if covers(ranges, seq)} == set(seqs)
    assert all(first <= last for first, last in ranges)
    assert all(left[1] + 1 < right[0] for left, right in pairwise(ranges))


def test_a_number_that_follows_a_range_makes_it_longer_and_one_between_two_joins_them() -> None:
    assert add_seq(((1, 3),), 4) == ((1, 4),)
    assert add_seq(((2, 4),), 1) == ((1, 4),)
    assert add_seq(((1, 3), (5, 7)), 4) == ((1, 7),)


def span_of(first: Mark, newest: Mark) -> Span:
    return Span(
        first=first,
        newest=newest,
        baseline_wh=first.export_wh,
        credited_through_wh=newest.export_wh,
    )


def test_a_reading_says_what_it_is_and_from_where_its_credit_counts() -> None:
    low, high = mark(2, 100), mark(4, 300)
    span = span_of(low, high)
    after, before = mark(5, 350), mark(1, 40)

    assert place(None, low, 1) == Placement(
        status="accepted", credit_wh=0, span=span_of(low, low), since=None
    )
    assert place(span, after, 1) == Placement(
        status="accepted", credit_wh=50, span=span_of(low, after), since=high
    )
    assert place(span, before, 1) == Placement(
        status="late", credit_wh=60, span=span_of(before, high), since=low
    )
    for inside in (mark(3, 100), mark(3, 200), mark(3, 300)):
        assert place(span, inside, 1) == Placement(
            status="late", credit_wh=0, span=span, since=None
        )


def test_a_register_that_stood_still_is_accepted_at_either_end() -> None:
    span = span_of(mark(2, 100), mark(4, 300))

    ends = [place(span, mark(1, 100), 1), place(span, mark(5, 300), 1)]

    assert [one.credit_wh if one else None for one in ends] == [0, 0]


def test_no_time_at_all_passes_between_readings_of_one_instant() -> None:
    one, other = mark(1, 0), mark(2, 0)._replace(mono_ms=mark(1, 0).mono_ms)

    assert elapsed_ms(one, other) == 0


def test_two_epochs_may_touch_but_not_cover_the_same_time() -> None:
    span = span_of(mark(1, 0, at_ms=100), mark(2, 9, at_ms=200))

    assert window(span) == (100, 200)
    assert window(span_of(mark(1, 0, at_ms=100), mark(2, 9, at_ms=50))) == (100, 100)
    assert overlaps(span, mark(3, 9, at_ms=300), []) is False
    assert overlaps(span, mark(3, 9, at_ms=300), [(120, 150)]) is True
    assert overlaps(span, mark(3, 9, at_ms=300), [(300, 400)]) is False
    assert overlaps(span, mark(3, 9, at_ms=301), [(300, 400)]) is True
    assert overlaps(span, mark(3, 9, at_ms=150), [(0, 100)]) is False
    assert overlaps(span, mark(3, 9, at_ms=99), [(0, 100)]) is True
    assert overlaps(None, mark(1, 0, at_ms=50), [(0, 100)]) is True
    assert overlaps(None, mark(1, 0, at_ms=100), [(0, 100)]) is False
    assert overlaps(None, mark(1, 0, at_ms=0), [(0, 100)]) is False
    assert overlaps(None, mark(1, 0, at_ms=7), [(7, 7)]) is True
    assert overlaps(None, mark(1, 0, at_ms=7), [(8, 8)]) is False
    assert overlaps(None, mark(1, 0, at_ms=50), [(90, 100), (0, 60)]) is True
