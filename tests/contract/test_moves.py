"""Keys that are replaced, meters that move: dated, and never credited twice."""

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.enrolment import SqlEnrolment
from gridtokenx_cloud.adapters.store.held import SqlHeldReadings
from gridtokenx_cloud.adapters.store.views import SqlViews
from gridtokenx_cloud.errors import NotFoundError, ValidationError
from gridtokenx_cloud.verify import ReadingRules
from gridtokenx_wire.record import ClockQuality, EventRecord, LiveValues, SlotRecord
from tests.support import build_cloud as build
from tests.support.build_cloud import (
    GATEWAY,
    METER_ID,
    NOON_MS,
    OTHER_GATEWAY,
    SLOT_MS,
    Cloud,
    Gateway,
)
from tests.support.store_rows import told

NEW_KEY = Gateway(Ed25519PrivateKey.from_private_bytes(b"n" * 32))
NEXT_EPOCH = "00000000000000e2"
DAY_MS = 86_400_000


@pytest.fixture
def cloud(new_store: Callable[[], Database]) -> Iterator[Cloud]:
    with build.cloud(new_store()) as made:
        yield made


def moves(cloud: Cloud) -> SqlEnrolment:
    return SqlEnrolment(cloud.database, cloud.clock, actor="test")


def credits_of(cloud: Cloud) -> list[tuple[object, ...]]:
    return cloud.rows(
        "SELECT user_id, sum(credit_wh) FROM meter_readings GROUP BY user_id ORDER BY user_id"
    )


def code_of_first_refusal(cloud: Cloud, gateway: Gateway, *slots: tuple[int, int]) -> str | None:
    outcome = cloud.take(gateway.sends(*(build.slot(seq, wh) for seq, wh in slots)))
    rejected = build.receipt(outcome, gateway).rejected
    return rejected[0].code if rejected else None


def test_after_a_rotation_both_keys_count_and_no_energy_counts_twice(cloud: Cloud) -> None:
    cloud.take(GATEWAY.sends(build.slot(96, 1_000), build.slot(97, 1_400)))

    meters = moves(cloud).rotate(GATEWAY.gateway_id, NEW_KEY.gateway_id, NOON_MS + DAY_MS)
    cloud.take(NEW_KEY.sends(build.slot(99, 2_000)))
    cloud.take(GATEWAY.sends(build.slot(98, 1_700)))

    assert meters == 1
    assert cloud.readings() == [
        (96, "accepted", 0, None),
        (97, "accepted", 400, None),
        (98, "late", 0, None),
        (99, "accepted", 600, None),
    ]


def test_a_gateway_with_a_new_key_sends_what_it_had_signed_with_the_former_one(
    cloud: Cloud,
) -> None:
    cloud.take(GATEWAY.sends(build.slot(96, 1_000)))
    moves(cloud).rotate(GATEWAY.gateway_id, NEW_KEY.gateway_id, NOON_MS + DAY_MS)
    old_line, new_line = GATEWAY.line(build.slot(97, 1_400)), NEW_KEY.line(build.slot(98, 1_500))
    event = GATEWAY.line(EventRecord(stamp=build.stamp(1, meter_id="_gateway"), event="Started"))

    outcome = cloud.take(NEW_KEY.message(old_line, new_line, event))

    receipt = build.receipt(outcome, NEW_KEY)
    assert receipt.rejected == ()
    assert receipt.durable == {
        METER_ID: {build.EPOCH: ((96, 98),)},
        "_gateway": {build.EPOCH: ((1, 1),)},
    }
    # A proof needs the key that signed.
    assert cloud.rows("SELECT seq, gateway_id FROM meter_readings ORDER BY seq") == [
        (96, GATEWAY.gateway_id),
        (97, GATEWAY.gateway_id),
        (98, NEW_KEY.gateway_id),
    ]


def test_a_replaced_key_counts_no_more_once_its_time_is_over(cloud: Cloud) -> None:
    moves(cloud).rotate(GATEWAY.gateway_id, NEW_KEY.gateway_id, NOON_MS + 1_000)
    cloud.clock.at_ms = NOON_MS + 1_000

    own_topic = code_of_first_refusal(cloud, GATEWAY, (96, 1_000))
    through_the_new = cloud.take(NEW_KEY.message(GATEWAY.line(build.slot(96, 1_000))))

    assert own_topic == "GatewayRevoked"
    assert build.receipt(through_the_new, NEW_KEY).rejected[0].code == "BadSignature"
    assert code_of_first_refusal(cloud, NEW_KEY, (97, 1_000)) is None


def test_a_revoked_former_key_counts_nowhere_while_its_successor_does(cloud: Cloud) -> None:
    moves(cloud).rotate(GATEWAY.gateway_id, NEW_KEY.gateway_id, NOON_MS + DAY_MS)
    cloud.registry.revoke_gateway(GATEWAY.gateway_id)

    through_the_new = cloud.take(NEW_KEY.message(GATEWAY.line(build.slot(96, 1_000))))

    assert build.receipt(through_the_new, NEW_KEY).rejected[0].code == "GatewayRevoked"
    assert code_of_first_refusal(cloud, NEW_KEY, (97, 1_000)) is None


def test_a_stranger_cannot_send_lines_of_a_key_it_did_not_replace(cloud: Cloud) -> None:
    outcome = cloud.take(OTHER_GATEWAY.message(GATEWAY.line(build.slot(96, 1_000))))

    assert build.receipt(outcome, OTHER_GATEWAY).rejected[0].code == "BadSignature"


def test_a_moved_meter_begins_a_new_count_and_the_old_gateways_backlog_still_counts(
    cloud: Cloud,
) -> None:
    cloud.take(GATEWAY.sends(build.slot(90, 1_000)))
    moved_at_ms = build.stamp(95).wall_ms
    moves(cloud).move_to_gateway(METER_ID, OTHER_GATEWAY.gateway_id, moved_at_ms)

    fresh = [
        build.slot(at=build.stamp(seq, epoch=NEXT_EPOCH), export_wh=wh)
        for seq, wh in ((96, 5_000), (97, 5_300))
    ]
    cloud.take(OTHER_GATEWAY.sends(*fresh))
    backlog = code_of_first_refusal(cloud, GATEWAY, (94, 1_200))
    beyond = code_of_first_refusal(cloud, GATEWAY, (98, 5_500))

    assert (backlog, beyond) == (None, "MeterNotOfGateway")
    assert cloud.readings() == [
        (90, "accepted", 0, None),
        (94, "accepted", 200, None),
        (96, "accepted", 0, None),
        (97, "accepted", 300, None),
    ]


def test_a_new_gateway_cannot_claim_the_time_before_the_move(cloud: Cloud) -> None:
    moves(cloud).move_to_gateway(METER_ID, OTHER_GATEWAY.gateway_id, build.stamp(95).wall_ms)

    assert code_of_first_refusal(cloud, OTHER_GATEWAY, (94, 1_200)) == "MeterNotOfGateway"
    assert code_of_first_refusal(cloud, OTHER_GATEWAY, (95, 1_200)) is None


def test_a_gateway_that_gets_its_meter_back_cannot_go_on_with_its_former_count(
    cloud: Cloud,
) -> None:
    cloud.take(GATEWAY.sends(build.slot(80, 1_000), build.slot(81, 1_500)))
    moves(cloud).move_to_gateway(METER_ID, OTHER_GATEWAY.gateway_id, build.stamp(82).wall_ms)
    between = [
        build.slot(at=build.stamp(seq, epoch=NEXT_EPOCH), export_wh=wh)
        for seq, wh in ((82, 2_000), (85, 4_000))
    ]
    cloud.take(OTHER_GATEWAY.sends(*between))
    moves(cloud).move_to_gateway(METER_ID, GATEWAY.gateway_id, build.stamp(86).wall_ms)

    cloud.take(GATEWAY.sends(build.slot(90, 5_000)))

    # 1,500 to 5,000 would pay the 2,000 Wh of the other gateway a second time.
    assert cloud.readings()[-1] == (90, "held", 0, "EpochOverlap")
    ((reading_id,),) = cloud.rows("SELECT reading_id FROM meter_readings WHERE status = 'held'")
    assert isinstance(reading_id, int)
    with pytest.raises(ValidationError) as refused:
        SqlHeldReadings(cloud.database, cloud.clock, actor="test").release(reading_id)
    assert refused.value.code == "EpochOverlap"
    assert credits_of(cloud) == [("ann", 2_500)]


def test_a_restored_image_that_goes_on_with_an_old_epoch_is_held(cloud: Cloud) -> None:
    cloud.take(GATEWAY.sends(build.slot(80, 1_000), build.slot(81, 1_500)))
    later = [
        build.slot(at=build.stamp(seq, epoch=NEXT_EPOCH), export_wh=wh)
        for seq, wh in ((90, 3_000), (91, 3_400))
    ]
    cloud.take(GATEWAY.sends(*later))
    held = SqlHeldReadings(cloud.database, cloud.clock, actor="test")
    held.accept_epoch(METER_ID, NEXT_EPOCH, ReadingRules())

    cloud.take(GATEWAY.sends(build.slot(92, 3_600)))

    assert cloud.readings()[-1] == (92, "held", 0, "EpochOverlap")
    assert credits_of(cloud) == [("ann", 900)]


def test_a_reading_is_its_owners_of_its_own_time(cloud: Cloud) -> None:
    cloud.take(GATEWAY.sends(build.slot(90, 1_000)))
    moves(cloud).change_owner(METER_ID, "bob", build.stamp(95).wall_ms)

    cloud.take(GATEWAY.sends(build.slot(94, 1_200), build.slot(95, 1_500)))
    undated = build.stamp(96, wall_ms=1_000, clock=ClockQuality.UNSYNCHRONISED)
    cloud.take(GATEWAY.sends(build.slot(at=undated, export_wh=1_700)))

    assert credits_of(cloud) == [("ann", 200), ("bob", 500)]
    heard = Counter(stream for stream, _, _ in told(cloud.database))
    assert heard == {"admin": 4, "user:ann": 2, "user:bob": 2}


def test_a_held_reading_is_credited_to_the_owner_it_came_for(cloud: Cloud) -> None:
    cloud.take(GATEWAY.sends(build.slot(96, 0)), GATEWAY.sends(build.slot(97, 20_000)))
    moves(cloud).change_owner(METER_ID, "bob", NOON_MS)

    held = SqlHeldReadings(cloud.database, cloud.clock, actor="test")
    held.release(int(str(held.list_held()[0]["reading_id"])))

    assert credits_of(cloud) == [("ann", 20_000)]
    assert "user:bob" not in {stream for stream, _, _ in told(cloud.database)}


def test_a_new_owner_sees_nothing_of_the_former_one(cloud: Cloud) -> None:
    def powered(seq: int, export_wh: int) -> SlotRecord:
        return build.slot(seq, export_wh, live=LiveValues(active_power_w=-seq))

    cloud.take(GATEWAY.sends(powered(90, 1_000), powered(91, 1_700)))
    moves(cloud).change_owner(METER_ID, "bob", build.stamp(95).wall_ms)
    views = SqlViews(cloud.database, cloud.clock)
    at_first = next(one for one in views.meters("bob") if one.meter_id == METER_ID)
    cloud.take(GATEWAY.sends(powered(96, 2_000)))

    (meter,) = [one for one in views.meters("bob") if one.meter_id == METER_ID]
    page = views.readings(METER_ID, "bob", None, 50)
    points = views.power(METER_ID, "bob", 0)

    assert (at_first.credited_wh, at_first.last_reading) == (0, None)
    assert (meter.credited_wh, meter.waiting_wh, meter.minted_wh) == (300, 300, 0)
    assert page is not None
    assert [reading.seq for reading in page[0]] == [96]
    assert points is not None
    assert [point.power_w for point in points] == [-96]
    assert views.readings(METER_ID, "ann", None, 50) is None
    staff = views.power(METER_ID, None, 0)
    assert staff is not None
    assert len(staff) == 3


@pytest.mark.parametrize("from_ms", [NOON_MS + 1, build.stamp(90).wall_ms, 0])
def test_a_move_is_dated_between_the_last_one_and_now(cloud: Cloud, from_ms: int) -> None:
    deeds = moves(cloud)
    deeds.change_owner(METER_ID, "bob", build.stamp(91).wall_ms)
    deeds.move_to_gateway(METER_ID, OTHER_GATEWAY.gateway_id, build.stamp(91).wall_ms)

    with pytest.raises(ValidationError) as owner:
        deeds.change_owner(METER_ID, "ann", from_ms)
    with pytest.raises(ValidationError) as gateway:
        deeds.move_to_gateway(METER_ID, GATEWAY.gateway_id, from_ms)

    assert (owner.value.code, gateway.value.code) == ("InvalidDate", "InvalidDate")


def test_what_cannot_be_moved_or_rotated_is_refused_by_its_code(cloud: Cloud) -> None:
    deeds = moves(cloud)
    day_away = NOON_MS + DAY_MS

    for wrong, code in (
        (lambda: deeds.change_owner(METER_ID, "ann", NOON_MS), "NothingToMove"),
        (
            lambda: deeds.move_to_gateway(METER_ID, GATEWAY.gateway_id, NOON_MS),
            "NothingToMove",
        ),
        (
            lambda: deeds.rotate(GATEWAY.gateway_id, OTHER_GATEWAY.gateway_id, day_away),
            "AlreadyEnrolled",
        ),
        (lambda: deeds.rotate(GATEWAY.gateway_id, "x", day_away), "InvalidGatewayKey"),
        (
            lambda: deeds.rotate(GATEWAY.gateway_id, NEW_KEY.gateway_id, NOON_MS + 91 * DAY_MS),
            "InvalidDate",
        ),
        (lambda: deeds.set_wallet("ann", build.wallet(2)), "AlreadyEnrolled"),
        (lambda: deeds.set_wallet("ann", "x"), "InvalidWalletAddress"),
        (lambda: deeds.set_rated_power(METER_ID, 0), "InvalidRatedPower"),
    ):
        with pytest.raises(ValidationError) as refused:
            wrong()
        assert refused.value.code == code
    for missing in (
        lambda: deeds.change_owner("nobody", "bob", NOON_MS),
        lambda: deeds.change_owner(METER_ID, "nobody", NOON_MS),
        lambda: deeds.move_to_gateway(METER_ID, NEW_KEY.gateway_id, NOON_MS),
        lambda: deeds.rotate(NEW_KEY.gateway_id, GATEWAY.gateway_id, day_away),
        lambda: deeds.set_wallet("nobody", build.wallet(9)),
    ):
        with pytest.raises(NotFoundError):
            missing()
    assert cloud.rows("SELECT count(*) FROM audit_log WHERE action LIKE '%rotate%'") == [(0,)]


def test_a_key_is_replaced_twice_and_the_first_one_still_counts_in_its_time(cloud: Cloud) -> None:
    third = Gateway(Ed25519PrivateKey.from_private_bytes(b"3" * 32))
    deeds = moves(cloud)
    deeds.rotate(GATEWAY.gateway_id, NEW_KEY.gateway_id, NOON_MS + DAY_MS)
    deeds.rotate(NEW_KEY.gateway_id, third.gateway_id, NOON_MS + DAY_MS)

    outcome = cloud.take(
        third.message(
            GATEWAY.line(build.slot(96, 1_000)),
            NEW_KEY.line(build.slot(97, 1_200)),
            third.line(build.slot(98, 1_300)),
        )
    )

    assert build.receipt(outcome, third).rejected == ()
    assert credits_of(cloud) == [("ann", 300)]
    with pytest.raises(ValidationError):
        deeds.rotate(GATEWAY.gateway_id, OTHER_GATEWAY.gateway_id, NOON_MS)


def test_a_rotated_gateways_meter_can_be_moved_and_neither_key_counts_after_it(
    cloud: Cloud,
) -> None:
    deeds = moves(cloud)
    deeds.rotate(GATEWAY.gateway_id, NEW_KEY.gateway_id, NOON_MS + DAY_MS)

    deeds.move_to_gateway(METER_ID, OTHER_GATEWAY.gateway_id, NOON_MS - SLOT_MS)

    assert code_of_first_refusal(cloud, GATEWAY, (99, 10)) == "MeterNotOfGateway"
    assert code_of_first_refusal(cloud, NEW_KEY, (99, 10)) == "MeterNotOfGateway"
    assert code_of_first_refusal(cloud, NEW_KEY, (98, 10)) is None
