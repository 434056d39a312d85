import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_cloud.mint_state import (
    FIRST_MINT_INDEX,
    MARKER_INDEX,
    ChainError,
    Dispute,
    Expire,
    Fail,
    HoldRecipient,
    InFlight,
    Keep,
    Land,
    Marker,
    MarkerOrigin,
    Observation,
    Resolve,
    Sealed,
    StatusFinal,
    StatusSeen,
    StatusUnknown,
    StopAll,
    TopUp,
    TryAgain,
    Wait,
    classify,
    needs_marker,
    next_step,
    resolve,
)

FLIGHT = InFlight(1, "sig", last_valid_block_height=500)
STALE, FRESH = 999, 1000
FROZEN = ChainError(FIRST_MINT_INDEX, 17)


def seen(
    height: int = 501,
    status: StatusUnknown | StatusSeen | StatusFinal | None = None,
    marker: Marker | None = None,
) -> Observation:
    return Observation(FRESH, height, status or StatusUnknown(FRESH), marker)


def test_an_attempt_with_a_finalized_success_has_landed_however_late() -> None:
    assert next_step(FLIGHT, seen(9999, StatusFinal(77, None))) == Land("sig", 77)


def test_an_error_counts_only_when_it_is_finalized() -> None:
    assert next_step(FLIGHT, seen(501, StatusSeen(), Marker(False, FRESH))) == Keep()
    assert next_step(FLIGHT, seen(501, StatusFinal(9, FROZEN))) == Fail(9, FROZEN)


def test_an_attempt_expires_on_complete_proof() -> None:
    assert next_step(FLIGHT, seen(501, marker=Marker(False, FRESH))) == Expire()


@pytest.mark.parametrize(
    "doubt",
    [
        seen(500, marker=Marker(False, FRESH)),
        seen(501, StatusUnknown(STALE), Marker(False, FRESH)),
        seen(501, marker=Marker(False, STALE)),
        seen(501, marker=None),
    ],
    ids=["may land in the last block", "old status", "old marker", "marker not read"],
)
def test_any_doubt_keeps_an_attempt_alive(doubt: Observation) -> None:
    assert next_step(FLIGHT, doubt) in (Keep(), Wait())


def test_a_marker_without_a_known_signature_is_looked_into() -> None:
    assert next_step(FLIGHT, seen(501, marker=Marker(True, STALE))) == Resolve()


@given(
    st.integers(0, 1000),
    st.one_of(
        st.builds(StatusUnknown, st.integers(900, 1100)),
        st.builds(StatusSeen),
        st.builds(StatusFinal, st.integers(0, 2000), st.one_of(st.none(), st.just(FROZEN))),
    ),
    st.one_of(st.none(), st.builds(Marker, st.booleans(), st.integers(900, 1100))),
)
def test_no_observation_expires_an_attempt_that_might_still_land(
    height: int,
    status: StatusUnknown | StatusSeen | StatusFinal,
    marker: Marker | None,
) -> None:
    decision = next_step(FLIGHT, Observation(FRESH, height, status, marker))

    if isinstance(decision, Expire):
        assert height > FLIGHT.last_valid_block_height
        assert isinstance(status, StatusUnknown)
        assert status.context_slot >= FRESH
        assert marker is not None
        assert not marker.exists
        assert marker.context_slot >= FRESH


def test_the_marker_is_read_only_when_it_decides() -> None:
    assert needs_marker(FLIGHT, 501, StatusUnknown(1))
    assert not needs_marker(FLIGHT, 500, StatusUnknown(1))
    assert not needs_marker(FLIGHT, 501, StatusSeen())


def test_a_marker_made_by_a_matching_mint_means_landed_whoever_sent_it() -> None:
    assert resolve(Sealed(), MarkerOrigin("other", 5, matches=True), 0) == Land("other", 5)


def test_a_marker_made_by_another_mint_is_disputed() -> None:
    assert isinstance(resolve(FLIGHT, MarkerOrigin("other", 5, matches=False), 0), Dispute)


def test_without_history_the_attempt_in_flight_made_the_marker() -> None:
    assert resolve(FLIGHT, None, 0) == Wait()
    assert resolve(FLIGHT, None, 30) == Land("sig", None)
    assert isinstance(resolve(Sealed(), None, 30), Dispute)


def test_a_stranger_at_the_marker_is_never_taken_for_our_mint() -> None:
    stranger = MarkerOrigin("theirs", 5, matches=False, ours=False)

    assert resolve(FLIGHT, stranger, 0) == Wait()
    assert isinstance(resolve(FLIGHT, stranger, 30), Dispute)
    assert isinstance(resolve(Sealed(), stranger, 30), Dispute)


@pytest.mark.parametrize("code", [17, 3, "InvalidAccountData", "IncorrectProgramId", 99])
def test_an_error_of_a_mint_names_its_recipient(code: int | str) -> None:
    decision = classify(ChainError(FIRST_MINT_INDEX + 1, code), recipients=2)

    assert isinstance(decision, HoldRecipient)
    assert decision.position == 1


@pytest.mark.parametrize("code", [4, 5, 14, 18])
def test_wrong_authority_supply_or_decimals_stop_all(code: int) -> None:
    assert isinstance(classify(ChainError(FIRST_MINT_INDEX, code), 1), StopAll)


@pytest.mark.parametrize(
    ("error", "decision"),
    [
        (ChainError(MARKER_INDEX, 0), Resolve()),
        (ChainError(MARKER_INDEX, 1), TopUp()),
        (ChainError(None, "InsufficientFundsForFee"), TopUp()),
        (ChainError(None, "AccountNotFound"), TopUp()),
        (ChainError(None, "BlockhashNotFound"), TryAgain(more_compute=False)),
        (ChainError(7, "ComputationalBudgetExceeded"), TryAgain(more_compute=True)),
        (ChainError(FIRST_MINT_INDEX + 2, "ProgramFailedToComplete"), TryAgain(more_compute=True)),
        (ChainError(FIRST_MINT_INDEX, "ProgramFailedToComplete"), TryAgain(more_compute=True)),
        (ChainError(9, "InvalidInstructionData"), TryAgain(more_compute=False)),
    ],
    ids=str,
)
def test_every_other_failure_has_its_way_out(error: ChainError, decision: object) -> None:
    assert classify(error, recipients=2) == decision


def test_an_error_says_where_it_happened() -> None:
    assert str(ChainError(3, 17)) == "instruction 3: 17"
    assert str(ChainError(None, "AccountNotFound")) == "transaction: AccountNotFound"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (17, "AccountFrozen: 17"),
        (3, "RecipientRefused: 3"),
        ("InvalidAccountData", "RecipientRefused: InvalidAccountData"),
        (99, "RecipientFailed: 99"),
    ],
)
def test_a_held_recipient_is_told_why(code: int | str, reason: str) -> None:
    assert classify(ChainError(FIRST_MINT_INDEX + 1, code), 2) == HoldRecipient(1, reason)


def test_what_stops_everything_says_so() -> None:
    assert classify(ChainError(FIRST_MINT_INDEX, 4), 1) == StopAll(
        "the key is not the mint's authority"
    )


def test_a_dispute_names_the_transaction_and_what_is_wrong_with_it() -> None:
    other = MarkerOrigin("sig", 1, matches=False)
    stranger = MarkerOrigin("sig", 1, matches=False, ours=False)

    assert resolve(Sealed(), other, 0) == Dispute(
        "transaction sig made this batch's marker and minted something else"
    )
    assert resolve(Sealed(), stranger, 30) == Dispute(
        "transaction sig touched this batch's marker, and none that our authority signed is known"
        " to have made it"
    )
    assert resolve(Sealed(), None, 30) == Dispute(
        "the marker exists, the store knows no attempt, and the chain keeps no history"
    )
