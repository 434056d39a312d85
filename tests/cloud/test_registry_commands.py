"""Claims, keys, moves and the audit log, through the commands an operator types."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gridtokenx_cloud.__main__ import cli
from gridtokenx_cloud.__main__ import run as run_command
from gridtokenx_wire.claim import Claim, ClaimedMeter, encode_claim
from gridtokenx_wire.signing import signer
from tests.support import build_cloud as build
from tests.support.build_cloud import GATEWAY, METER_ID, OTHER_GATEWAY, TOKEN, Cloud, Gateway

NEW = Gateway(Ed25519PrivateKey.from_private_bytes(b"n" * 32))


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with build.cloud(tmp_path) as made:
        yield made


def invoke(cloud: Cloud, *words: str, text: str | None = None) -> Result:
    base = ["--database-url", f"sqlite:///{cloud.database.name}"]
    return CliRunner().invoke(cli, [*base, *words], input=text, catch_exceptions=False)


def rows(cloud: Cloud, *words: str, text: str | None = None) -> list[dict[str, object]]:
    done = invoke(cloud, *words, "--json", text=text)
    assert done.exit_code == 0, done.output
    found: list[dict[str, object]] = json.loads(done.output)
    return found


def claim_line(rated_power_w: int | None = 9_000) -> str:
    meter = ClaimedMeter(
        meter_id="HOUSE-30",
        profile="eastron-sdm630",
        resolution_wh=10,
        rated_power_w=rated_power_w,
    )
    claim = Claim(gateway_id=NEW.gateway_id, token=TOKEN, meters=(meter,))
    return encode_claim(claim, signer(NEW.key)).decode()


def test_a_claim_is_taken_as_typed_from_a_file_and_from_standard_input(
    cloud: Cloud, tmp_path: Path
) -> None:
    file = tmp_path / "claim.txt"
    file.write_text(claim_line() + "\n")

    typed = rows(cloud, "gateway", "accept", claim_line(), "--user", "ann")
    from_file = rows(cloud, "gateway", "accept", str(file), "--user", "ann")
    piped = rows(cloud, "gateway", "accept", "-", "--user", "ann", text=claim_line())

    assert [found[0]["meters"] for found in (typed, from_file, piped)] == ["HOUSE-30", None, None]
    assert typed[0]["rated_power_w"] == "9000"
    assert cloud.rows("SELECT rated_power_w FROM meters WHERE meter_id = 'HOUSE-30'") == [(9_000,)]


def test_the_password_is_shown_with_its_line_and_stored_nowhere(cloud: Cloud) -> None:
    shown = invoke(cloud, "gateway", "accept", claim_line(), "--user", "ann").output
    (again,) = rows(cloud, "gateway", "password", NEW.gateway_id)

    password = shown.split("(shown once): ")[1].split()[0]
    assert f"{NEW.gateway_id}:$7$101$" in shown
    assert again["broker_password"] != password
    assert password not in cloud.database.name
    assert password.encode() not in Path(cloud.database.name).read_bytes()


def test_a_claim_without_rated_power_names_the_option(
    cloud: Cloud, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--database-url", f"sqlite:///{cloud.database.name}"]

    codes = [
        run_command([*base, "gateway", "accept", claim_line(None), "--user", "ann"]),
        run_command([*base, "gateway", "accept", "no-such-file", "--user", "ann"]),
        run_command([*base, "gateway", "accept", claim_line(), "--user", "nobody"]),
    ]

    assert codes == [1, 2, 1]
    assert "--rated-power-w" in capsys.readouterr().err


def test_a_rotation_is_shown_in_the_list_of_gateways(cloud: Cloud) -> None:
    (done,) = rows(cloud, "gateway", "rotate", GATEWAY.gateway_id, NEW.gateway_id)

    listed = {row["gateway_id"]: row for row in rows(cloud, "gateway", "list")}
    assert done["meters"] == 1
    assert listed[GATEWAY.gateway_id]["successor_id"] == NEW.gateway_id
    assert listed[GATEWAY.gateway_id]["valid_until"] == done["former_until"]


def test_a_meter_is_moved_from_a_date_on(cloud: Cloud) -> None:
    owner = rows(cloud, "meter", "move", METER_ID, "--user", "bob", "--from", "2026-01-01")
    gateway = rows(cloud, "meter", "move", METER_ID, "--gateway", OTHER_GATEWAY.gateway_id)

    assert owner[0]["from"] == "2026-01-01T00:00:00.000Z"
    assert gateway[0]["gateway_id"] == OTHER_GATEWAY.gateway_id
    (meter,) = [row for row in rows(cloud, "meter", "list") if row["meter_id"] == METER_ID]
    assert (meter["user_id"], meter["gateway_id"]) == ("bob", OTHER_GATEWAY.gateway_id)
    base = ["--database-url", f"sqlite:///{cloud.database.name}"]
    assert run_command([*base, "meter", "move", METER_ID]) == 2


def test_wallet_and_rated_power_are_corrected(cloud: Cloud) -> None:
    rows(cloud, "user", "wallet", "ann", build.wallet(9))
    rows(cloud, "meter", "rated-power", METER_ID, "12000")

    assert cloud.rows("SELECT wallet FROM users WHERE user_id = 'ann'") == [(build.wallet(9),)]
    details = cloud.rows("SELECT detail FROM audit_log ORDER BY entry DESC LIMIT 2")
    assert [json.loads(str(text))["before"] for (text,) in details] == [10_000, build.wallet(1)]


def test_a_changed_or_cut_audit_entry_is_found(cloud: Cloud) -> None:
    whole = invoke(cloud, "audit-log", "verify")
    listed = rows(cloud, "audit-log", "list", "--limit", "3")

    cloud.database.connection.execute("UPDATE audit_log SET actor = 'eve' WHERE entry = 4")
    changed = run_command(
        ["--database-url", f"sqlite:///{cloud.database.name}", "audit-log", "verify"]
    )
    cloud.database.connection.execute("DELETE FROM audit_log WHERE entry = 4")
    cut = run_command(["--database-url", f"sqlite:///{cloud.database.name}", "audit-log", "verify"])

    assert whole.output == f"ok {listed[0]['hash']}\n"
    assert [row["entry"] for row in listed] == [6, 5, 4]
    assert (changed, cut) == (1, 1)
