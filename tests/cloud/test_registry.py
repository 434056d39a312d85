"""Enrolment, confirmed epochs and held readings, through the commands an operator types."""

import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import click
import pytest
from click.testing import CliRunner

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.verifier import is_signing_key, verify
from gridtokenx_cloud.commands.context import Row, emit
from gridtokenx_cloud.commands.registry import GROUPS
from gridtokenx_cloud.errors import CloudError, NotFoundError, ValidationError
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.settings import Settings, load_settings
from gridtokenx_wire import base58
from tests.support import build_cloud as build
from tests.support.build_cloud import GATEWAY, METER_ID, Cloud

NEW_EPOCH = "00000000000000e2"


@dataclass
class FakeContext:
    """`CommandContext` over the test's own store."""

    cloud: Cloud

    @property
    def clock(self) -> Clock:
        return self.cloud.clock

    @property
    def actor(self) -> str:
        return "cli:test"

    @property
    def settings(self) -> Settings:
        return load_settings(environ={}, complete=False)

    def database(self) -> Database:
        return self.cloud.database

    def emit(self, rows: Sequence[Row], as_json: bool) -> None:
        out = io.StringIO()
        emit(rows, as_json, out)
        click.echo(out.getvalue(), nl=False)


@pytest.fixture
def cloud(new_store: Callable[[], Database]) -> Iterator[Cloud]:
    with build.cloud(new_store()) as made:
        yield made


def run(cloud: Cloud, *arguments: str) -> list[dict[str, object]]:
    """Run one command with --json; an error of ours comes out as it was raised."""
    group = click.Group(commands={one.name or "": one for one in GROUPS})
    result = CliRunner().invoke(
        group, [*arguments, "--json"], obj=FakeContext(cloud), catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    rows: list[dict[str, object]] = json.loads(result.output)
    return rows


def refused(cloud: Cloud, *arguments: str) -> str:
    with pytest.raises(CloudError) as raised:
        run(cloud, *arguments)
    error = raised.value
    return error.code if isinstance(error, ValidationError) else type(error).__name__


def second_epoch(cloud: Cloud) -> None:
    """Let the meter send a whole epoch, then two readings of one that nobody confirmed."""
    cloud.take(GATEWAY.sends(build.slot(90, 1_000), build.slot(91, 1_400)))
    first = build.stamp(95, epoch=NEW_EPOCH)
    second = build.stamp(96, epoch=NEW_EPOCH)
    cloud.take(
        GATEWAY.sends(build.slot(at=second, export_wh=700), build.slot(at=first, export_wh=200))
    )


def test_a_meter_enrolled_by_command_counts_from_the_next_line_on(cloud: Cloud) -> None:
    run(cloud, "user", "add", "eve", "--wallet", build.wallet(5))
    run(
        cloud,
        *("meter", "add", "HOUSE-19", "--gateway", GATEWAY.gateway_id),
        *("--user", "eve", "--rated-power-w", "5000"),
    )

    cloud.take(GATEWAY.sends(build.slot(at=build.stamp(96, meter_id="HOUSE-19"))))

    assert cloud.rows("SELECT meter_id, user_id, status FROM meter_readings") == [
        ("HOUSE-19", "eve", "accepted")
    ]


def test_a_revoked_gateway_is_told_so_and_stores_nothing_more(cloud: Cloud) -> None:
    run(cloud, "gateway", "revoke", GATEWAY.gateway_id)

    outcome = cloud.take(GATEWAY.sends(build.slot(96, 1_000)))

    assert cloud.readings() == []
    assert build.receipt(outcome).rejected[0].code == "GatewayRevoked"
    assert ("revoked",) in [
        (row["status"],)
        for row in run(cloud, "gateway", "list")
        if row["gateway_id"] == GATEWAY.gateway_id
    ]


def test_lists_show_what_is_enrolled(cloud: Cloud) -> None:
    cloud.take(GATEWAY.sends(build.slot(96, 1_000)))

    assert [row["user_id"] for row in run(cloud, "user", "list")] == ["ann", "bob"]
    meters = run(cloud, "meter", "list")
    assert [(row["meter_id"], row["epoch"]) for row in meters] == [
        (METER_ID, build.EPOCH),
        ("HOUSE-18", None),
    ]


@pytest.mark.parametrize(
    "key",
    [
        bytes(32),
        b"\x01" + bytes(31),
        b"\x01" + bytes(30) + b"\x80",
        (2**255 - 20).to_bytes(32, "little"),
        bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
        bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
    ],
)
def test_a_key_that_anyone_can_sign_for_is_neither_enrolled_nor_verified(
    cloud: Cloud, key: bytes
) -> None:
    assert refused(cloud, "gateway", "add", base58.encode_key(key)) == "InvalidGatewayKey"
    assert not is_signing_key(key)
    assert not verify(key, b"any message", key + bytes(32))
    assert not verify(key, b"any message", bytes(64))


def test_what_breaks_a_rule_is_refused_by_its_code(cloud: Cloud) -> None:
    program = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"
    off_curve = next(
        text
        for n in range(99)
        if not is_signing_key(key := bytes([n]) * 32) and (text := base58.encode_key(key))
    )
    behind = ("--gateway", GATEWAY.gateway_id, "--user", "ann")

    assert refused(cloud, "user", "add", "eve", "--wallet", "junk") == "InvalidWalletAddress"
    assert refused(cloud, "user", "add", "eve", "--wallet", program[:31]) == "InvalidWalletAddress"
    assert refused(cloud, "user", "add", "e/v", "--wallet", build.wallet(5)) == "InvalidUserId"
    assert refused(cloud, "user", "add", "eve", "--wallet", build.wallet(1)) == "AlreadyEnrolled"
    assert refused(cloud, "gateway", "add", "#") == "InvalidGatewayKey"
    assert refused(cloud, "gateway", "add", off_curve) == "InvalidGatewayKey"
    assert refused(cloud, "gateway", "add", build.wallet(7), "--name", "\x1b") == "InvalidName"
    assert refused(cloud, "gateway", "revoke", "unknown") == "NotFoundError"
    for meter_id, power, code in (
        ("a/b", "5", "InvalidMeterId"),
        ("M", "0", "InvalidRatedPower"),
        (METER_ID, "5", "AlreadyEnrolled"),
    ):
        arguments = ("meter", "add", meter_id, *behind, "--rated-power-w", power)
        assert refused(cloud, *arguments) == code
    foreign = ("--gateway", GATEWAY.gateway_id, "--user", "nobody", "--rated-power-w", "5")
    assert refused(cloud, "meter", "add", "M", *foreign) == "NotFoundError"


def test_an_unconfirmed_epoch_is_held_and_credited_once_it_is_accepted(cloud: Cloud) -> None:
    second_epoch(cloud)
    waiting = run(cloud, "held", "list")

    done = run(cloud, "meter", "accept-epoch", METER_ID, NEW_EPOCH)

    assert [row["reason"] for row in waiting] == ["UnknownEpoch", "UnknownEpoch"]
    assert done == [{"meter_id": METER_ID, "epoch": NEW_EPOCH, "readings": 2}]
    assert cloud.readings() == [
        (90, "accepted", 0, None),
        (91, "accepted", 400, None),
        (95, "accepted", 0, None),
        (96, "accepted", 500, None),
    ]
    cloud.take(GATEWAY.sends(build.slot(at=build.stamp(97, epoch=NEW_EPOCH), export_wh=900)))
    assert cloud.readings()[-1] == (97, "accepted", 200, None)


def test_a_released_reading_is_credited_what_the_register_moved(cloud: Cloud) -> None:
    cloud.take(GATEWAY.sends(build.slot(96, 0)))
    cloud.take(GATEWAY.sends(build.slot(97, 20_000)))
    (waiting,) = run(cloud, "held", "list")

    done = run(cloud, "held", "release", str(waiting["reading_id"]))
    cloud.take(GATEWAY.sends(build.slot(98, 20_500)))

    assert waiting["reason"] == "PowerExceeded"
    assert done[0]["credit_wh"] == 20_000
    assert cloud.readings()[1:] == [
        (97, "accepted", 20_000, None),
        (98, "accepted", 500, None),
    ]


def test_a_rejected_reading_stays_refused_and_the_next_good_one_credits_all(cloud: Cloud) -> None:
    cloud.take(GATEWAY.sends(build.slot(96, 0), build.slot(97, 20_000)))
    [held] = [str(row["reading_id"]) for row in run(cloud, "held", "list")]

    run(cloud, "held", "reject", held, "--reason", "meter was on the bench")
    cloud.take(GATEWAY.sends(build.slot(98, 1_000)))

    assert cloud.readings()[1:] == [
        (97, "rejected", 0, "PowerExceeded"),
        (98, "accepted", 1_000, None),
    ]
    told = cloud.rows(
        "SELECT body FROM events WHERE stream = 'user:ann' AND body LIKE '%on the bench%'"
    )
    assert len(told) == 1
    assert refused(cloud, "held", "release", held) == "NotFoundError"


def test_no_word_of_an_operator_credits_a_register_that_ran_backwards(cloud: Cloud) -> None:
    second_epoch(cloud)
    cloud.take(GATEWAY.sends(build.slot(92, 100)))
    held = {row["seq"]: str(row["reading_id"]) for row in run(cloud, "held", "list")}

    assert refused(cloud, "held", "release", held[92]) == "CounterBackwards"
    assert refused(cloud, "held", "release", held[95]) == "UnknownEpoch"
    assert refused(cloud, "held", "reject", held[92], "--reason", " ") == "MissingReason"
    assert refused(cloud, "meter", "accept-epoch", METER_ID, "f" * 16) == "NotFoundError"
    assert refused(cloud, "meter", "accept-epoch", METER_ID, "x") == "InvalidEpoch"


def test_every_change_has_its_audit_entry(cloud: Cloud) -> None:
    second_epoch(cloud)
    run(cloud, "meter", "accept-epoch", METER_ID, NEW_EPOCH)
    run(cloud, "gateway", "revoke", GATEWAY.gateway_id)
    with pytest.raises(NotFoundError):
        run(cloud, "gateway", "revoke", "unknown")

    assert cloud.rows("SELECT action, subject FROM audit_log WHERE actor = 'cli:test'") == [
        ("epoch_accepted", METER_ID),
        ("gateway_revoked", GATEWAY.gateway_id),
    ]
