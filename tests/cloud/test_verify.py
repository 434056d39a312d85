"""Each reading rule: its code, its sentence, and the order in which they decide."""

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridtokenx_cloud.adapters.verifier import verify
from gridtokenx_cloud.ledger import Span, Window, place
from gridtokenx_cloud.plausibility import Verdict, mark_of, validate_reading
from gridtokenx_cloud.remarks import Remark
from gridtokenx_cloud.verify import (
    Code,
    Fault,
    Meter,
    ReadingRules,
    check_enrolment,
    check_epoch,
    check_gateway,
    check_key_end,
    conflict,
    fault,
    open_line,
)
from gridtokenx_wire import base58, canonical
from gridtokenx_wire.record import ClockQuality, Record, SlotRecord
from gridtokenx_wire.signing import RECORD_DOMAIN, seal, signer
from tests.support import build_cloud as build
from tests.support.build_cloud import GATEWAY, METER_ID, OTHER_GATEWAY, TOKEN

DAY_SLOTS = 96
ALL_HOLD = ReadingRules(
    spike_holds=True, stuck_holds=True, chain_gap_holds=True, phase_sum_holds=True
)


def opened(line: bytes) -> Record | Fault:
    key = base58.decode_key(GATEWAY.gateway_id)
    return open_line(line, GATEWAY.gateway_id, key, verify)


def enrolled(slot: SlotRecord, meter: Meter | None, *, may_send: bool = True) -> Fault | None:
    return check_enrolment(slot, meter, TOKEN, gateway_id=GATEWAY.gateway_id, may_send=may_send)


def sealed(**changes: object) -> bytes:
    """Return a line signed over changed values, as only a faulty gateway would."""
    value = canonical.load(GATEWAY.line(build.slot())[:-96] + b"}")
    return seal(canonical.dump(value | changes), RECORD_DOMAIN, signer(GATEWAY.key))


def code_of(found: object) -> str | None:
    return found.code if isinstance(found, Fault) else None


def judged(
    slot: SlotRecord,
    span: Span | None,
    *,
    meter: Meter | None = None,
    rules: ReadingRules | None = None,
    undated: bool = False,
    odd: Remark = Remark.NONE,
    others: Sequence[Window] = (),
) -> Verdict:
    dated_ms = None if undated else slot.stamp.wall_ms
    return validate_reading(
        mark_of(slot, 2, dated_ms, build.NOON_MS),
        span,
        meter or build.meter(),
        interval_s=slot.interval_s,
        dated_ms=dated_ms,
        now_ms=build.NOON_MS,
        rules=rules or ReadingRules(),
        odd=odd,
        others=others,
    )


def based_on(slot: SlotRecord) -> Span:
    placed = place(None, mark_of(slot, 1, slot.stamp.wall_ms, build.NOON_MS), 1)
    assert placed is not None
    return placed.span


def test_a_line_signed_by_its_gateway_is_read() -> None:
    assert opened(GATEWAY.line(build.slot())) == build.slot()


def test_the_signature_decides_before_anything_is_read() -> None:
    assert code_of(opened(OTHER_GATEWAY.line(build.slot()))) == "BadSignature"
    assert code_of(opened(GATEWAY.line(build.slot()).replace(b'"v":1', b'"v":2'))) == "BadSignature"


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"", "NotCanonical"),
        (b"{}", "NotCanonical"),
        (b"\xff" * 400, "NotCanonical"),
        (b"x" * 1_000_000, "NotCanonical"),
        (sealed(v=2), "WrongVersion"),
        (sealed(v=True), "NotCanonical"),
        (sealed(export_wh=-1), "NegativeAmount"),
        (sealed(import_wh=-(2**70)), "NegativeAmount"),
        (sealed(export_wh=2**64), "NotCanonical"),
        (sealed(export_wh="12"), "NotCanonical"),
        (sealed(export_wh=True), "NotCanonical"),
        (sealed(export_wh=None), "NotCanonical"),
        (sealed(meter_id="A/#"), "NotCanonical"),
        (sealed(meter_id="\x00"), "NotCanonical"),
        (sealed(**{"\ud800": 1}), "NotCanonical"),
        (seal(b'{"a":NaN}', RECORD_DOMAIN, signer(GATEWAY.key)), "NotCanonical"),
        (seal(b'{"a":1e999}', RECORD_DOMAIN, signer(GATEWAY.key)), "NotCanonical"),
        (seal(b'{"a":1,"a":1}', RECORD_DOMAIN, signer(GATEWAY.key)), "NotCanonical"),
        (seal(b'{"b":1,"a":1}', RECORD_DOMAIN, signer(GATEWAY.key)), "NotCanonical"),
        (seal(b"[" * 1_900 + b"}", RECORD_DOMAIN, signer(GATEWAY.key)), "NotCanonical"),
        (seal(b'{"a":' + b"9" * 1_500 + b"}", RECORD_DOMAIN, signer(GATEWAY.key)), "NotCanonical"),
    ],
)
def test_a_line_outside_the_contract_has_its_code(line: bytes, code: str) -> None:
    assert code_of(opened(line)) == code


@given(st.data())
def test_no_damaged_line_is_ever_read_or_ends_in_an_error(data: st.DataObject) -> None:
    line = bytearray(GATEWAY.line(build.slot(7, 700)))
    cut = data.draw(st.integers(0, len(line)), label="cut")
    noise = data.draw(st.binary(max_size=60), label="noise")
    damaged = bytes(line[:cut]) + noise + bytes(line[cut + data.draw(st.integers(0, 60)) :])

    found = opened(damaged)

    assert isinstance(found, Fault) or damaged == line


@given(st.text(max_size=400))
def test_the_sentence_of_a_fault_fits_any_store_and_any_terminal(text: str) -> None:
    reason = fault("NotCanonical", text).reason

    assert reason.isascii()
    assert "\x00" not in reason
    assert len(reason) <= 300


def test_the_registry_refuses_foreign_gateways_meters_and_tokens() -> None:
    slot, gateway_id = build.slot(), GATEWAY.gateway_id
    foreign_token = build.slot(token=build.wallet(9))

    assert code_of(check_gateway(gateway_id, None)) == "UnknownGateway"
    assert code_of(check_gateway(gateway_id, "revoked")) == "GatewayRevoked"
    assert check_gateway(gateway_id, "active") is None
    assert code_of(check_key_end(gateway_id, 1_000, 1_000)) == "GatewayRevoked"
    assert check_key_end(gateway_id, 1_000, 999) is None
    assert check_key_end(gateway_id, None, 1_000) is None
    assert code_of(enrolled(slot, None)) == "UnknownMeter"
    assert code_of(enrolled(slot, build.meter(), may_send=False)) == "MeterNotOfGateway"
    assert code_of(enrolled(foreign_token, build.meter())) == "WrongToken"
    assert enrolled(slot, build.meter()) is None


@pytest.mark.parametrize(
    ("policy", "status", "has_epochs", "code"),
    [
        ("first", None, False, None),
        ("first", None, True, "UnknownEpoch"),
        ("first", "held", True, "UnknownEpoch"),
        ("first", "accepted", True, None),
        ("any", None, True, None),
        ("any", "held", True, "UnknownEpoch"),
        ("none", None, False, "UnknownEpoch"),
        ("none", "accepted", True, None),
    ],
)
def test_a_new_count_waits_for_an_operator_unless_the_policy_takes_it(
    policy: str, status: str | None, has_epochs: bool, code: str | None
) -> None:
    meter = replace(build.meter(), epoch_policy=policy)  # type: ignore[arg-type]

    found = check_epoch(meter, build.EPOCH, status, has_epochs=has_epochs)

    assert code_of(found) == code


def test_a_first_reading_is_the_baseline_whatever_its_register_says() -> None:
    verdict = judged(build.slot(100, 53_700_000), None)

    assert (verdict.status, verdict.credit_wh) == ("accepted", 0)


def test_a_zero_that_arrives_late_does_not_credit_the_whole_register() -> None:
    verdict = judged(build.slot(99, 0), based_on(build.slot(100, 53_700_000)))

    assert (verdict.status, verdict.credit_wh, verdict.span) == ("held", 0, None)
    assert code_of(verdict.fault) == "AmountTooHigh"


def test_the_highest_credit_counts_per_slot_since_the_last_accepted_reading() -> None:
    meter = replace(build.meter(), rated_power_w=10_000_000)
    span = based_on(build.slot(100 - DAY_SLOTS, 0))

    assert judged(build.slot(100, DAY_SLOTS * 100_000), span, meter=meter).status == "accepted"
    too_high = judged(build.slot(100, DAY_SLOTS * 100_000 + 1), span, meter=meter)
    assert code_of(too_high.fault) == "AmountTooHigh"
    assert too_high.claim_wh == DAY_SLOTS * 100_000 + 1


def test_more_than_the_rated_power_can_give_is_held_to_the_watt_hour() -> None:
    span = based_on(build.slot(99, 0))

    assert judged(build.slot(100, 3_002), span).status == "accepted"
    assert code_of(judged(build.slot(100, 3_003), span).fault) == "PowerExceeded"


def test_over_an_undated_boot_no_time_is_taken_for_granted() -> None:
    span = based_on(build.slot(99, 0))
    at = build.stamp(100, boot_id="f" * 32, wall_ms=0, clock=ClockQuality.UNSYNCHRONISED)

    verdict = judged(build.slot(export_wh=1_000, at=at), span, undated=True)

    assert code_of(verdict.fault) == "PowerExceeded"


@pytest.mark.parametrize(
    ("wall_ms", "code"),
    [
        (build.NOON_MS - 7 * 86_400_000, None),
        (build.NOON_MS - 7 * 86_400_000 - 1, "ReadingTooOld"),
        (build.NOON_MS + 300_000, None),
        (build.NOON_MS + 300_001, "ReadingInFuture"),
    ],
)
def test_a_reading_from_another_time_is_held(wall_ms: int, code: str | None) -> None:
    slot = build.slot(at=build.stamp(100, wall_ms=wall_ms))

    assert code_of(judged(slot, None).fault) == code
    assert judged(slot, None, undated=True).status == "accepted"


def every_fault() -> list[Fault]:
    slot, gateway_id = build.slot(), GATEWAY.gateway_id
    base = based_on(build.slot(99, 1_000))
    old = build.slot(at=build.stamp(100, wall_ms=0))
    future = build.slot(at=build.stamp(100, wall_ms=build.NOON_MS * 2))
    found = [
        opened(OTHER_GATEWAY.line(slot)),
        opened(b"{}"),
        opened(sealed(v=2)),
        opened(sealed(export_wh=-1)),
        check_gateway(gateway_id, None),
        check_gateway(gateway_id, "revoked"),
        enrolled(slot, None),
        enrolled(slot, build.meter(), may_send=False),
        enrolled(build.slot(token=build.wallet(9)), build.meter()),
        check_key_end(gateway_id, 1_000, 1_000),
        judged(build.slot(100, 1_001), base, others=[(0, 2 * build.NOON_MS)]).fault,
        conflict(slot),
        check_epoch(build.meter(), build.EPOCH, "held", has_epochs=True),
        judged(build.slot(100, 0), base).fault,
        judged(build.slot(100, 900_000), base).fault,
        judged(build.slot(100, 50_000), base).fault,
        judged(old, None).fault,
        judged(future, None).fault,
        *(judged(build.slot(100, 1_001), base, rules=ALL_HOLD, odd=odd).fault for odd in Remark),
    ]
    return [one for one in found if isinstance(one, Fault)]


def test_every_rule_names_the_thing_and_the_way_out_in_one_sentence() -> None:
    faults = every_fault()

    made_by_the_service = {"BadTopic", "StoreRefused"}
    assert {one.code for one in faults} == set(get_args(Code)) - made_by_the_service
    for one in faults:
        assert one.reason.endswith(".")
        assert ";" in one.reason
        assert len(one.reason) < 300, one
    assert METER_ID in faults[-1].reason
