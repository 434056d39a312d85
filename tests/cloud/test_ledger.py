"""The arithmetic of credits and of sequence ranges, in every order of arrival."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_cloud.ledger import Mark, Span, add_seq, covers, elapsed_ms, place
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
