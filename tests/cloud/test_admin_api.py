"""The admin routes: what each role may do, and that a deed is the same as by a command."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gridtokenx_cloud.adapters.http_api import build_api
from gridtokenx_cloud.adapters.store.access import SqlAccess
from gridtokenx_cloud.adapters.store.mint_audit import SqlAuditStore
from gridtokenx_cloud.adapters.store.overrides import SqlOverrides
from gridtokenx_cloud.adapters.store.views import SqlViews
from gridtokenx_cloud.desk import administration
from gridtokenx_cloud.settings import load_settings
from gridtokenx_cloud.settings.live import LiveTokenization
from gridtokenx_wire.claim import Claim, ClaimedMeter, encode_claim
from gridtokenx_wire.signing import signer
from tests.support import build_cloud as build
from tests.support.build_cloud import GATEWAY, METER_ID, NOON_MS, OTHER_GATEWAY, TOKEN, Cloud

ORIGIN = "https://grid.example"
NEW_GATEWAY = build.Gateway(Ed25519PrivateKey.from_private_bytes(b"n" * 32))
ROLES = ("owner", "viewer", "operator", "admin")
NOBODY = 9_999


class FakeLiveEvents:
    """An events server with one connection."""

    def __init__(self) -> None:
        self.open = ["c1"]

    def connections(self) -> list[dict[str, object]]:
        return [{"conn": conn, "role": "owner"} for conn in self.open]

    def close_connection(self, conn: str) -> bool:
        if conn in self.open:
            self.open.remove(conn)
            return True
        return False


@dataclass
class Office:
    """A client of the admin routes, over a store with a little in it."""

    client: httpx.AsyncClient
    cloud: Cloud
    live: LiveTokenization
    tokens: dict[str, str]
    told: list[str]
    live_events: "FakeLiveEvents"

    async def ask(
        self, method: str, path: str, role: str | None = "admin", body: object = None
    ) -> httpx.Response:
        headers = {} if role is None else {"Authorization": f"Bearer {self.tokens[role]}"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        return await self.client.request(
            method,
            f"/api/v1/admin/{path}",
            headers=headers,
            content=None if body is None else json.dumps(body),
        )

    def audited(self) -> list[tuple[object, ...]]:
        return self.cloud.rows("SELECT actor, action, subject FROM audit_log ORDER BY entry")


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    with build.cloud(tmp_path) as cloud:
        settings = load_settings(environ={}, complete=False)
        overrides = SqlOverrides(cloud.database, cloud.clock, actor="test")
        live = LiveTokenization(settings, overrides.values, cloud.clock.now_ms)
        access = SqlAccess(cloud.database, cloud.clock)
        told: list[str] = []
        live_events = FakeLiveEvents()
        app = build_api(
            sessions=access,
            views=SqlViews(cloud.database, cloud.clock),
            clock=cloud.clock,
            submit=lambda gateway_id, payload: b"",
            proofs=SqlAuditStore(cloud.database).proof_source,
            ready_checks={},
            ws_url="wss://grid.example/ws",
            allowed_origins=(ORIGIN,),
            secure_cookies=True,
            mint_address=TOKEN,
            decimals=9,
            administration=administration(
                settings,
                cloud.database,
                cloud.clock,
                live,
                lambda: live.current().reading_rules,
                lambda: told.append("pass"),
                lambda: live_events,
            ),
        )
        tokens = {
            role: access.create_token(role, role, "ann" if role == "owner" else None, None, "test")
            for role in ROLES
        }
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
            yield Office(client, cloud, live, tokens, told, live_events)


def hold_one(cloud: Cloud) -> int:
    """Let one reading be held for its power; return its id."""
    cloud.take(GATEWAY.sends(build.slot(98, 1_000)), GATEWAY.sends(build.slot(99, 50_000)))
    ((reading_id,),) = cloud.rows("SELECT reading_id FROM meter_readings WHERE status = 'held'")
    assert isinstance(reading_id, int)
    return reading_id


def claim_of(gateway: build.Gateway, *meter_ids: str, token: str = TOKEN) -> str:
    meters = tuple(
        ClaimedMeter(meter_id=meter_id, profile="eastron-sdm630", resolution_wh=10)
        for meter_id in meter_ids
    )
    claim = Claim(gateway_id=gateway.gateway_id, token=token, meters=meters)
    return encode_claim(claim, signer(gateway.key)).decode()


ROUTES: tuple[tuple[str, str, object, str, int], ...] = (
    ("GET", "tokenization/status", None, "viewer", 200),
    ("POST", "tokenization/toggle-auto-mint", {"enabled": False}, "operator", 200),
    ("POST", "tokenization/trigger-batch", None, "operator", 202),
    ("GET", "meters/unminted", None, "operator", 200),
    ("GET", "tokenization/config", None, "admin", 200),
    ("PATCH", "tokenization/config", {"batch_size": 60}, "admin", 200),
    ("DELETE", "tokenization/config", None, "admin", 200),
    ("GET", "held-readings", None, "operator", 200),
    ("POST", f"held-readings/{NOBODY}/release", None, "operator", 404),
    ("POST", f"held-readings/{NOBODY}/reject", {"reason": "wrong"}, "operator", 404),
    ("GET", "retry-queue", None, "operator", 200),
    ("POST", f"retry-queue/{NOBODY}/requeue", None, "operator", 404),
    ("POST", f"retry-queue/{NOBODY}/give-up", None, "operator", 404),
    ("GET", "connections", None, "admin", 200),
    ("DELETE", "connections/nobody", None, "admin", 404),
    ("GET", "audit-log", None, "admin", 200),
    ("GET", "users", None, "admin", 200),
    ("POST", "users", {"user_id": "cyd", "wallet": build.wallet(7)}, "admin", 201),
    ("POST", "users/nobody/wallet", {"wallet": build.wallet(8)}, "admin", 404),
    ("GET", "gateways", None, "admin", 200),
    ("POST", "gateways", {"gateway_id": NEW_GATEWAY.gateway_id}, "admin", 201),
    ("POST", "gateways/claims", {"claim": "{}", "user_id": "ann"}, "admin", 422),
    ("POST", "gateways/nobody/revoke", None, "admin", 404),
    ("POST", "gateways/nobody/rotate", {"successor_id": build.wallet(5)}, "admin", 404),
    ("GET", "meters", None, "admin", 200),
    (
        "POST",
        "meters",
        {
            "meter_id": "HOUSE-19",
            "gateway_id": GATEWAY.gateway_id,
            "user_id": "ann",
            "rated_power_w": 5_000,
        },
        "admin",
        201,
    ),
    ("POST", "meters/nobody/move", {"user_id": "bob"}, "admin", 404),
    ("POST", f"meters/{METER_ID}/rated-power", {"rated_power_w": 9_000}, "admin", 204),
    ("POST", "meters/nobody/accept-epoch", {"epoch": "0" * 16}, "operator", 404),
    ("GET", "api-tokens", None, "admin", 200),
    ("POST", "api-tokens", {"label": "new", "role": "viewer"}, "admin", 201),
    ("DELETE", "api-tokens/nobody", None, "admin", 404),
)


@pytest.mark.parametrize(("method", "path", "body", "least", "status"), ROUTES)
async def test_a_route_serves_its_role_and_those_above_and_refuses_the_others(
    office: Office, method: str, path: str, body: object, least: str, status: int
) -> None:
    below = ROLES[: ROLES.index(least)]

    nobody = await office.ask(method, path, None, body)
    refused = {role: (await office.ask(method, path, role, body)).status_code for role in below}
    before = office.audited()
    allowed = await office.ask(method, path, least, body)

    assert nobody.status_code == 401
    assert refused == dict.fromkeys(below, 403)
    assert allowed.status_code == status, allowed.text
    new = office.audited()[len(before) :]
    assert bool(new) == (method != "GET" and status < 300 and method != "DELETE")
    assert {actor for actor, _, _ in new} <= {f"token:{least}"}


async def test_every_admin_route_is_in_the_table_of_roles(office: Office) -> None:
    document = (await office.client.get("/api/v1/openapi.json")).json()
    served = {
        (method.upper(), path.removeprefix("/api/v1/admin/"))
        for path, methods in document["paths"].items()
        for method in methods
        if path.startswith("/api/v1/admin/")
    }

    def fits(template: str, path: str) -> bool:
        parts, wanted = template.split("/"), path.split("/")
        return len(parts) == len(wanted) and all(
            one.startswith("{") or one == other for one, other in zip(parts, wanted, strict=True)
        )

    untested = {
        (method, template)
        for method, template in served
        if not any(method == one and fits(template, path) for one, path, *_ in ROUTES)
    }
    assert untested == set()


async def test_another_site_cannot_act_by_the_cookie_of_an_admin(office: Office) -> None:
    signed_in = await office.client.post(
        "/api/v1/auth/session", json={"token": office.tokens["admin"]}, headers={"Origin": ORIGIN}
    )
    assert signed_in.status_code == 201

    answer = await office.client.post(
        "/api/v1/admin/tokenization/toggle-auto-mint",
        json={"enabled": False},
        headers={"Origin": "https://evil.example"},
    )

    assert answer.status_code == 403
    assert office.live.current().auto_mint_enabled


async def test_a_changed_setting_is_in_force_at_once_audited_and_survives_a_restart(
    office: Office,
) -> None:
    body = {"max_reading_kwh": "1.5", "auto_mint_enabled": False, "polling_interval_secs": 30}

    answer = await office.ask("PATCH", "tokenization/config", body=body)

    assert answer.json()["values"]["max_reading_kwh"] == "1.5"
    assert office.live.current().reading_rules.max_reading_wh == 1_500
    overrides = SqlOverrides(office.cloud.database, office.cloud.clock, actor="test")
    started_again = LiveTokenization(
        load_settings(environ={}, complete=False), overrides.values, office.cloud.clock.now_ms
    )
    assert started_again.current().polling_interval_secs == 30
    details = office.cloud.rows("SELECT detail FROM audit_log WHERE action = 'config_changed'")
    assert [json.loads(str(text)) for (text,) in details] == [
        {"new": "false", "old": None},
        {"new": "1.5", "old": None},
        {"new": "30", "old": None},
    ]
    back = await office.ask("DELETE", "tokenization/config?name=max_reading_kwh")
    assert back.json()["values"]["max_reading_kwh"] == "100"
    assert [row["name"] for row in back.json()["overrides"]] == [
        "auto_mint_enabled",
        "polling_interval_secs",
    ]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"polling_interval_secs": 5}, 422, "InsufficientPollingInterval"),
        ({"batch_size": "1e3", "auto_mint_percentage": 101}, 422, "ValidationFailed"),
        ({"max_retry_delay_secs": 10}, 422, "IncompatibleValues"),
        ({"spike_action": "drop"}, 422, "hold or remark"),
        ({"no_such_setting": 1}, 422, "UnknownVariable"),
        ({"decimals": 6}, 409, "fixed"),
        ({}, 422, "at least one"),
        ({"batch_size": 1.5}, 422, "invalid"),
    ],
)
async def test_settings_that_break_a_rule_change_nothing(
    office: Office, body: object, status: int, said: str
) -> None:
    answer = await office.ask("PATCH", "tokenization/config", body=body)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert said in answer.text
    assert office.cloud.rows("SELECT * FROM settings_overrides") == []


async def test_an_owners_wallet_comes_back_with_what_the_chain_knows_of_it(office: Office) -> None:
    first, other = build.wallet(7), build.wallet(8)

    added = await office.ask("POST", "users", body={"user_id": "cyd", "wallet": first})
    changed = await office.ask("POST", "users/cyd/wallet", body={"wallet": other})
    refused = await office.ask("POST", "users/cyd/wallet", body={"wallet": "short"})

    said = {"user_id": "cyd", "on_chain": "not_asked", "warning": None}
    assert (added.status_code, added.json()) == (201, said | {"wallet": first})
    assert (changed.status_code, changed.json()) == (200, said | {"wallet": other})
    assert refused.status_code == 422


async def test_a_held_reading_is_seen_and_released_by_an_operator(office: Office) -> None:
    reading_id = hold_one(office.cloud)

    listed = (await office.ask("GET", "held-readings", "operator")).json()["items"]
    state = (await office.ask("GET", "tokenization/status", "viewer")).json()
    answer = await office.ask("POST", f"held-readings/{reading_id}/release", "operator")

    assert [(row["reading_id"], row["reason"]) for row in listed] == [(reading_id, "PowerExceeded")]
    assert state["held_readings"] == {"PowerExceeded": 1}
    assert answer.json() == {"reading_id": reading_id, "credit_wh": 49_000}


async def test_a_claim_enrols_a_gateway_with_its_meters_and_its_broker_password(
    office: Office,
) -> None:
    body = {
        "claim": claim_of(NEW_GATEWAY, "HOUSE-20", "HOUSE-21"),
        "user_id": "bob",
        "rated_power_w": 8_000,
    }

    answer = await office.ask("POST", "gateways/claims", body=body)
    again = await office.ask("POST", "gateways/claims", body=body)

    enrolled = answer.json()
    assert enrolled["meters"] == ["HOUSE-20", "HOUSE-21"]
    assert enrolled["broker"]["username"] == NEW_GATEWAY.gateway_id
    assert enrolled["broker"]["password_line"].startswith(f"{NEW_GATEWAY.gateway_id}:$7$")
    assert again.json()["meters"] == []
    stored = office.cloud.rows(
        "SELECT meter_id, user_id, rated_power_w, resolution_wh FROM meters"
        " WHERE gateway_id = ? ORDER BY meter_id",
        NEW_GATEWAY.gateway_id,
    )
    assert stored == [("HOUSE-20", "bob", 8_000, 10), ("HOUSE-21", "bob", 8_000, 10)]
    assert enrolled["broker"]["password"] not in str(office.cloud.rows("SELECT * FROM audit_log"))


@pytest.mark.parametrize(
    ("claim", "code"),
    [
        (claim_of(NEW_GATEWAY, "HOUSE-22", token=build.wallet(9)), "WrongToken"),
        (claim_of(NEW_GATEWAY, "HOUSE-22", METER_ID), "MeterNotOfGateway"),
        (claim_of(NEW_GATEWAY, "HOUSE-22").replace("HOUSE-22", "HOUSE-23"), "InvalidClaim"),
    ],
)
async def test_a_claim_that_is_not_right_enrols_nothing(
    office: Office, claim: str, code: str
) -> None:
    body = {"claim": claim, "user_id": "bob", "rated_power_w": 8_000}

    answer = await office.ask("POST", "gateways/claims", body=body)

    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert office.cloud.rows("SELECT count(*) FROM gateways") == [(2,)]
    assert office.cloud.rows("SELECT count(*) FROM meters") == [(2,)]


async def test_a_meter_moves_to_an_owner_or_to_a_gateway_but_not_to_both(office: Office) -> None:
    office.cloud.clock.at_ms = NOON_MS

    both = await office.ask(
        "POST", f"meters/{METER_ID}/move", body={"user_id": "bob", "gateway_id": "x"}
    )
    owner = await office.ask("POST", f"meters/{METER_ID}/move", body={"user_id": "bob"})
    gateway = await office.ask(
        "POST",
        f"meters/{METER_ID}/move",
        body={"gateway_id": OTHER_GATEWAY.gateway_id, "from_ms": NOON_MS - 5},
    )

    assert [both.status_code, owner.status_code, gateway.status_code] == [422, 204, 204]
    assert office.cloud.rows(
        "SELECT user_id, gateway_id FROM meters WHERE meter_id = ?", METER_ID
    ) == [("bob", OTHER_GATEWAY.gateway_id)]


async def test_the_audit_log_is_read_page_by_page_newest_first(office: Office) -> None:
    first = (await office.ask("GET", "audit-log?limit=6")).json()
    second = (await office.ask("GET", f"audit-log?limit=6&cursor={first['next_cursor']}")).json()

    entries = [row["entry"] for row in first["items"] + second["items"]]
    assert entries == sorted(entries, reverse=True)
    assert second["next_cursor"] is None
    assert entries[-1] == 1


async def test_a_token_is_shown_once_and_ends_when_it_is_revoked(office: Office) -> None:
    made = await office.ask("POST", "api-tokens", body={"label": "ops", "role": "operator"})
    office.tokens["ops"] = made.json()["token"]

    before = await office.ask("GET", "held-readings", "ops")
    listed = await office.ask("GET", "api-tokens")
    await office.ask("DELETE", "api-tokens/ops")
    after = await office.ask("GET", "held-readings", "ops")

    assert (before.status_code, after.status_code) == (200, 401)
    assert made.json()["token"] not in listed.text


async def test_a_pass_is_asked_for_once_a_minute_whoever_asks(office: Office) -> None:
    first = await office.ask("POST", "tokenization/trigger-batch", "operator")
    hasty = await office.ask("POST", "tokenization/trigger-batch", "admin")
    office.cloud.clock.at_ms += 1000 * int(hasty.headers["Retry-After"])
    second = await office.ask("POST", "tokenization/trigger-batch", "admin")
    state = (await office.ask("GET", "tokenization/status", "viewer")).json()

    assert (first.status_code, first.json()) == (202, {"pass_id": 1})
    assert (hasty.status_code, hasty.headers["Retry-After"]) == (429, "60")
    assert second.json() == {"pass_id": 2}
    assert state["pass"] == {"asked_for": 2, "done": 0}
    assert office.told == ["pass", "pass"]
    assert [row for row in office.audited() if row[1] == "batch_triggered"] == [
        ("token:operator", "batch_triggered", "pass:1"),
        ("token:admin", "batch_triggered", "pass:2"),
    ]


async def credit(office: Office, *kwh: int) -> None:
    """Let HOUSE-17 export so many kWh, one slot each."""
    registers = [1_000 + 1_000 * sum(kwh[:count]) for count in range(len(kwh) + 1)]
    office.cloud.take(GATEWAY.sends(*(build.slot(90 + n, wh) for n, wh in enumerate(registers))))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, "due"),
        ({"auto_mint_enabled": False}, "auto_mint_off"),
        ({"auto_mint_percentage": 0}, "owner_outside_share"),
        ({"mint_threshold": "3"}, "below_threshold"),
        ({"mint_threshold": "2"}, "due"),
    ],
)
async def test_unminted_energy_is_listed_with_the_reason_why_it_waits(
    office: Office, changed: dict[str, object], reason: str
) -> None:
    await credit(office, 1, 1)
    if changed:
        await office.ask("PATCH", "tokenization/config", body=changed)

    page = (await office.ask("GET", "meters/unminted", "operator")).json()

    [row] = page["items"]
    assert (row["meter_id"], row["user_id"], row["credit_wh"]) == (METER_ID, "ann", 2_000)
    assert (row["reasons"], row["errors"]) == ({reason: 2}, [])
    assert page["next_cursor"] is None


async def test_dust_waits_a_day_at_most(office: Office) -> None:
    await credit(office, 1)
    await office.ask("PATCH", "tokenization/config", body={"mint_threshold": "3"})
    office.cloud.clock.at_ms += 24 * 3_600_000

    [row] = (await office.ask("GET", "meters/unminted", "operator")).json()["items"]

    assert row["reasons"] == {"due": 1}


async def test_refused_credits_and_sealed_ones_show_as_such(office: Office) -> None:
    await credit(office, 1, 1, 1)
    ids = [row[0] for row in office.cloud.rows("SELECT reading_id FROM mint_queue ORDER BY 1")]
    with office.cloud.database.transaction() as tx:
        for reading_id, parked_at_ms in ((ids[0], None), (ids[1], 7)):
            tx.execute(
                "INSERT INTO minting_retry_queue (reading_id, error_code, error_message,"
                " next_retry_at_ms, parked_at_ms, created_at_ms, updated_at_ms)"
                " VALUES (?, 'RecipientRefused', 'frozen', 1, ?, 1, 1)",
                (reading_id, parked_at_ms),
            )
        tx.execute(
            "INSERT INTO mint_batches (batch_id, state, memo, merkle_root, leaf_count, marker,"
            " total_wh, total_base_units, sealed_at_ms, oldest_credit_at_ms)"
            " VALUES (1, 'sealed', '', ?, 1, 'm', 1, 1, 1, 1)",
            (b"",),
        )
        tx.execute("UPDATE meter_readings SET batch_id = 1 WHERE reading_id = ?", (ids[2],))

    [row] = (await office.ask("GET", "meters/unminted", "operator")).json()["items"]

    assert row["reasons"] == {"in_batch": 1, "retrying": 1, "parked": 1}
    assert row["errors"] == ["RecipientRefused"]


async def test_unminted_energy_is_read_page_by_page(office: Office) -> None:
    await credit(office, 1)
    office.cloud.take(
        OTHER_GATEWAY.sends(
            *(
                build.slot(0, wh, at=build.stamp(n, meter_id="HOUSE-18"))
                for n, wh in ((90, 0), (91, 500))
            )
        )
    )

    first = (await office.ask("GET", "meters/unminted?limit=1")).json()
    second = (
        await office.ask("GET", f"meters/unminted?limit=1&cursor={first['next_cursor']}")
    ).json()

    assert [row["meter_id"] for row in first["items"] + second["items"]] == [METER_ID, "HOUSE-18"]
    assert second["next_cursor"] is None


async def test_an_admin_sees_who_is_connected_and_ends_a_connection_which_is_audited(
    office: Office,
) -> None:
    before = (await office.ask("GET", "connections")).json()["items"]
    closed = await office.ask("DELETE", "connections/c1")
    again = await office.ask("DELETE", "connections/c1")

    assert [row["conn"] for row in before] == ["c1"]
    assert (closed.status_code, again.status_code) == (204, 404)
    assert office.live_events.open == []
    assert office.audited()[-1] == ("token:admin", "connection_closed", "connection:c1")
