"""What went wrong elsewhere, in public reports, must go right here; each test names its report."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from gridtokenx_cloud.errors import ValidationError
from gridtokenx_cloud.ingest import Message
from gridtokenx_wire import base58
from gridtokenx_wire.record import ClockQuality
from gridtokenx_wire.signing import RECORD_DOMAIN, seal, signer
from gridtokenx_wire.topics import Channel, topic
from tests.support import build_cloud as build
from tests.support.build_cloud import GATEWAY, NOON_MS, OTHER_GATEWAY, SLOT_MS, Cloud

HOUR_MS = 3_600_000


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with build.cloud(tmp_path) as made:
        yield made


def credited_wh(cloud: Cloud) -> object:
    return cloud.rows("SELECT sum(credit_wh) FROM meter_readings")[0][0]


def test_a_reading_sent_hours_later_keeps_its_own_time(cloud: Cloud) -> None:
    """See thingsboard-gateway #2119: a resend overwrote the reading's time with now."""
    message = GATEWAY.sends(build.slot(96, 1_000))
    cloud.clock.at_ms = NOON_MS + 3 * HOUR_MS

    cloud.take(message)
    cloud.clock.at_ms += HOUR_MS
    cloud.take(message)

    assert cloud.rows("SELECT reading_timestamp_ms, submitted_at_ms FROM meter_readings") == [
        (NOON_MS - 4 * SLOT_MS, NOON_MS + 3 * HOUR_MS)
    ]


def test_bytes_that_are_no_text_are_set_aside_and_the_next_line_is_stored(cloud: Cloud) -> None:
    """See mosquitto #2168, paho #75, rumqtt #958: ill-formed UTF-8, endless reconnects."""
    odd = Message("gridtokenx/v1/\udcff\udcfe/readings", b"\xff\xfe\x00")

    cloud.take(odd, GATEWAY.message(b"\xff\xfe"), GATEWAY.sends(build.slot(96, 1_000)))

    assert cloud.readings() == [(96, "accepted", 0, None)]
    assert cloud.rows("SELECT code FROM rejections ORDER BY code") == [
        ("BadTopic",),
        ("NotCanonical",),
    ]


@pytest.mark.parametrize(
    "value",
    [
        b"NaN",
        b"Infinity",
        b"1e999",
        b"-0.0",
        b"-0",
        b"1.0",
        b"true",
        b"null",
        b'"12"',
        b"18446744073709551616",
        b"01",
        b'1,"export_wh":2',
        b'"\\ud800"',
        b'"\\u0000"',
    ],
)
def test_a_value_that_is_no_plain_number_is_refused_and_its_neighbours_are_stored(
    cloud: Cloud, value: bytes
) -> None:
    """See ori-runtime #354, openbridgeserver #1153, Tasmota #4147, rtl_433 #558: NaN in JSON."""
    good = GATEWAY.line(build.slot(97, 1_234_567))
    body = good[:-96] + b"}"
    forged = body.replace(b'"export_wh":1234567', b'"export_wh":' + value)
    assert forged != body
    odd = seal(forged, RECORD_DOMAIN, signer(GATEWAY.key))

    outcome = cloud.take(GATEWAY.message(GATEWAY.line(build.slot(96, 1_234_000)), odd, good))

    assert [row[0] for row in cloud.readings()] == [96, 97]
    assert [one.code for one in build.receipt(outcome).rejected] == ["NotCanonical"]


def test_a_register_that_dips_and_returns_is_credited_what_it_moved(cloud: Cloud) -> None:
    """See noah-mqtt #19: 200,000 -> 150 -> 200,010 Wh paid 199,860."""
    cloud.take(*(GATEWAY.sends(build.slot(*one)) for one in ((96, 200_000), (97, 150))))

    cloud.take(GATEWAY.sends(build.slot(98, 200_010)))

    assert credited_wh(cloud) == 10


def test_two_devices_with_one_key_raise_an_alarm_and_pay_nothing_twice(
    cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    """See emqx #151, #935, MQTT.js #684: a copied SD card, two clients of one name."""
    cloud.take(GATEWAY.sends(build.slot(96, 1_000), build.slot(97, 1_400)))

    with caplog.at_level(logging.ERROR):
        outcome = cloud.take(GATEWAY.sends(build.slot(97, 1_900), build.slot(98, 1_800)))

    assert [one.code for one in build.receipt(outcome).rejected] == ["ConflictingReading"]
    assert credited_wh(cloud) == 800
    assert [record.message for record in caplog.records] == ["conflicting_reading"]


@pytest.mark.parametrize(
    "name", ["+", "#", "a/b", "..", "", "x" * 65, "\u0397ouse", "$share/x", "a b", "a\x00b"]
)
def test_no_name_can_widen_a_topic_pattern(cloud: Cloud, name: str) -> None:
    """See CVE-2017-7650, mosquitto #462, nanomq #2344: wildcards in names widened the ACL."""
    with pytest.raises(ValidationError):
        cloud.registry.add_gateway(name, "gateway")
    if name != "..":
        with pytest.raises(ValidationError):
            cloud.registry.add_meter(
                name,
                gateway_id=GATEWAY.gateway_id,
                user_id="ann",
                rated_power_w=1,
                resolution_wh=1,
                epoch_policy="first",
            )


def test_lines_below_another_gateways_topic_are_refused(cloud: Cloud) -> None:
    """See mosquitto PR #3729: one client published as another."""
    line = GATEWAY.line(build.slot(96, 1_000))
    foreign = Message(topic(OTHER_GATEWAY.gateway_id, Channel.READINGS), line)

    outcome = cloud.take(foreign)

    assert cloud.readings() == []
    assert build.receipt(outcome, OTHER_GATEWAY).rejected[0].code == "BadSignature"


def test_a_boot_in_1970_is_dated_once_the_clock_is_right_and_seq_goes_on(cloud: Cloud) -> None:
    """See OctoPrint #3266, tuptime #33: no real-time clock, boot at the epoch or the last stop."""
    boot = [
        build.stamp(seq, wall_ms=seq * SLOT_MS, clock=ClockQuality.UNSYNCHRONISED)
        for seq in (96, 97)
    ]
    cloud.take(*(GATEWAY.sends(build.slot(at=at, export_wh=at.seq * 10)) for at in boot))
    undated = cloud.rows("SELECT count(*) FROM meter_readings WHERE reading_timestamp_ms IS NULL")

    cloud.take(GATEWAY.sends(build.clock_record(1, mono_ms=100 * SLOT_MS, wall_ms=NOON_MS)))
    cloud.take(GATEWAY.sends(build.slot(98, 980)))

    assert undated == [(2,)]
    assert cloud.rows("SELECT seq, reading_timestamp_ms FROM meter_readings ORDER BY seq") == [
        (seq, NOON_MS + (seq - 100) * SLOT_MS) for seq in (96, 97, 98)
    ]
    assert credited_wh(cloud) == 20


def test_a_day_offline_arrives_whole_and_exact(cloud: Cloud) -> None:
    """See OpenEMS PR #3798: history that was sent again was ignored without a word."""
    day = [build.slot(seq, 1_000_000_007 + 313 * seq) for seq in range(4, 100)]
    cloud.take(GATEWAY.sends(day[0]))

    cloud.take(GATEWAY.sends(day[-1]))
    cloud.take(GATEWAY.sends(*day))

    stored = cloud.rows("SELECT seq, export_wh FROM meter_readings ORDER BY seq")
    assert stored == [(one.stamp.seq, one.export_wh) for one in day]
    assert credited_wh(cloud) == day[-1].export_wh - day[0].export_wh


def test_a_key_of_small_order_is_not_enrolled(cloud: Cloud) -> None:
    """Found by us: OpenSSL takes any signature by such a key for any message."""
    with pytest.raises(ValidationError) as refused:
        cloud.registry.add_gateway(base58.encode_key(b"\x01" + bytes(31)), "gateway")

    assert refused.value.code == "InvalidGatewayKey"
