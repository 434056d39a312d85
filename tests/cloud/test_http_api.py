"""The HTTP API: who gets in, what each may see, how a refusal looks."""

from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.errors import StoreBusyError, ValidationError
from tests.support.http_api import DAY_MS, HOUR_MS, Api, http_api
from tests.support.store_rows import GATEWAY, signature_of, wallet_of

ORIGIN = "https://grid.example"
REQUESTS_PER_MINUTE = 40


@pytest.fixture
async def api(new_store: Callable[[], Database]) -> AsyncIterator[Api]:
    async with http_api(new_store(), ORIGIN, REQUESTS_PER_MINUTE) as made:
        yield made


async def sign_in(api: Api, token: str, origin: str | None = ORIGIN) -> httpx.Response:
    headers = {} if origin is None else {"Origin": origin}
    return await api.client.post("/api/v1/auth/session", json={"token": token}, headers=headers)


def assert_problem(answer: httpx.Response, status: int, code: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["type"] == f"urn:gridtokenx:problem:{code}"
    assert body["correlation_id"] == answer.headers["x-request-id"]


async def test_a_token_becomes_a_cookie_no_script_and_no_other_site_can_use(api: Api) -> None:
    answer = await sign_in(api, api.rows.user("anna"))

    assert answer.status_code == 201
    assert answer.json()["user_id"] == "anna"
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("__Host-gtx_session=")
    for part in ("HttpOnly", "SameSite=strict", "Secure", "Path=/", "Max-Age=43200"):
        assert part in cookie
    assert (await api.get("me")).json()["role"] == "owner"


async def test_a_wrong_token_is_refused_and_never_echoed(api: Api) -> None:
    answers = [await sign_in(api, token) for token in ("gtx_secret-typo", "s" * 300)]

    assert_problem(answers[0], 401, "invalid_token")
    assert_problem(answers[1], 422, "invalid")
    assert "secret-typo" not in answers[0].text
    assert "sss" not in answers[1].text


async def test_the_eleventh_wrong_token_of_a_minute_is_turned_away_with_a_time_to_come_back(
    api: Api,
) -> None:
    good = api.rows.user("anna")
    wrong = [await sign_in(api, "gtx_guess") for _ in range(10)]

    refused = await sign_in(api, good)
    api.rows.clock.at_ms += 1000 * int(refused.headers["Retry-After"])
    later = await sign_in(api, good)

    assert {answer.status_code for answer in wrong} == {401}
    assert_problem(refused, 429, "too_many_requests")
    assert refused.headers["Retry-After"] == "6"
    assert later.status_code == 201


async def test_who_guesses_is_turned_away_while_a_good_token_from_there_goes_on(api: Api) -> None:
    good = api.rows.user("anna")
    wrong = [await api.get("me", "gtx_guess") for _ in range(11)]

    answer = await api.get("me", good)

    assert [one.status_code for one in wrong] == [401] * 10 + [429]
    assert answer.status_code == 200


async def test_a_token_above_its_rate_waits_and_another_one_does_not(api: Api) -> None:
    busy, calm = api.rows.user("anna"), api.rows.user("ben")
    answers = [await api.get("me", busy) for _ in range(REQUESTS_PER_MINUTE + 1)]

    other = await api.get("me", calm)
    api.rows.clock.at_ms += 1000 * int(answers[-1].headers["Retry-After"])
    again = await api.get("me", busy)

    assert {answer.status_code for answer in answers[:-1]} == {200}
    assert_problem(answers[-1], 429, "too_many_requests")
    assert (other.status_code, again.status_code) == (200, 200)


async def test_signing_in_and_out_is_audited_with_the_address_and_without_the_token(
    api: Api,
) -> None:
    await sign_in(api, "gtx_wrong-one")
    await sign_in(api, api.rows.user("anna"))
    await api.client.delete("/api/v1/auth/session", headers={"Origin": ORIGIN})

    entries = api.rows.database.connection.execute(
        "SELECT actor, action, detail FROM audit_log WHERE subject = 'session' ORDER BY entry"
    ).fetchall()

    assert [tuple(entry) for entry in entries] == [
        ("anybody", "sign_in_failed", '{"address":"127.0.0.1"}'),
        ("token:anna's page", "sign_in", '{"address":"127.0.0.1"}'),
        ("token:anna's page", "sign_out", "{}"),
    ]


async def test_signing_out_ends_the_session_on_the_server(api: Api) -> None:
    await sign_in(api, api.rows.user("anna"))
    cookies = dict(api.client.cookies)

    answer = await api.client.delete("/api/v1/auth/session", headers={"Origin": ORIGIN})
    api.client.cookies.update(cookies)

    assert answer.status_code == 204
    assert_problem(await api.get("me"), 401, "not_signed_in")


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://grid.example",
        "https://grid.example:8443",
        "https://grid.example.evil.example",
        "https://GRID.example",
        "null",
        None,
    ],
)
async def test_another_site_gets_neither_session_nor_ticket(api: Api, origin: str | None) -> None:
    token = api.rows.user("anna")
    await sign_in(api, token)
    headers = {} if origin is None else {"Origin": origin}

    ticket = await api.client.post("/api/v1/ws-tickets", headers=headers)
    out = await api.client.delete("/api/v1/auth/session", headers=headers)

    assert_problem(ticket, 403, "foreign_origin")
    assert_problem(out, 403, "foreign_origin")
    assert (await api.get("me")).status_code == 200


async def test_a_ticket_is_given_to_a_cookie_or_a_bearer_and_is_good_for_one(api: Api) -> None:
    token = api.rows.user("anna")
    bearer = await api.client.post(
        "/api/v1/ws-tickets", headers={"Authorization": f"Bearer {token}"}
    )
    await sign_in(api, token)
    cookie = await api.client.post("/api/v1/ws-tickets", headers={"Origin": ORIGIN})

    for answer in (bearer, cookie):
        assert answer.status_code == 201
        assert answer.json()["url"] == "wss://grid.example/ws"
        assert answer.json()["expires_in"] == 30
        assert answer.headers["cache-control"] == "no-store"
        principal = api.rows.access.redeem_ticket(answer.json()["ticket"])
        assert principal is not None
        assert principal.user_id == "anna"


@pytest.mark.parametrize(
    "path", ["me", "meters", "meters/A/readings", "meters/A/power", "mints", "summary"]
)
async def test_nothing_is_shown_to_nobody(api: Api, path: str) -> None:
    answer = await api.get(path)

    assert_problem(answer, 401, "not_signed_in")
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_energy_today_counts_from_the_last_total_of_yesterday(api: Api) -> None:
    rows, now = api.rows, api.rows.clock.at_ms
    token = rows.user("anna")
    rows.meter("HOUSE-17", "anna")
    midnight = now // DAY_MS * DAY_MS
    rows.reading("HOUSE-17", import_wh=100, export_wh=1_000, at_ms=midnight - 2 * HOUR_MS)
    rows.reading("HOUSE-17", import_wh=110, export_wh=1_300, at_ms=midnight - HOUR_MS)
    rows.reading("HOUSE-17", import_wh=150, export_wh=1_700, at_ms=midnight + HOUR_MS)
    rows.reading(
        "HOUSE-17", import_wh=175, export_wh=2_500, at_ms=midnight + 2 * HOUR_MS, power_w=-900
    )

    [meter] = (await api.get("meters", token)).json()["items"]

    assert (meter["import_today_wh"], meter["export_today_wh"]) == (65, 1_200)
    assert (meter["credited_wh"], meter["minted_wh"], meter["waiting_wh"]) == (1_500, 0, 1_500)
    assert meter["power_w"] == -900
    assert meter["last_reading"]["export_wh"] == 2_500
    assert meter["wallet"] == wallet_of("anna")


async def test_a_meter_that_began_today_counts_from_its_first_total(api: Api) -> None:
    rows, now = api.rows, api.rows.clock.at_ms
    token = rows.user("anna")
    rows.meter("NEW", "anna")
    rows.meter("SILENT", "anna")
    rows.reading("NEW", import_wh=500, export_wh=9_000, at_ms=now - HOUR_MS)
    rows.reading("NEW", import_wh=520, export_wh=9_100, at_ms=now)

    new, silent = (await api.get("meters", token)).json()["items"]

    assert (new["import_today_wh"], new["export_today_wh"]) == (20, 100)
    assert (silent["import_today_wh"], silent["power_w"], silent["last_reading"]) == (
        None,
        None,
        None,
    )


async def test_the_newest_power_wins_whether_sample_or_slot(api: Api) -> None:
    rows, now = api.rows, api.rows.clock.at_ms
    token = rows.user("anna")
    rows.meter("HOUSE-17", "anna")
    rows.reading("HOUSE-17", import_wh=1, export_wh=1, at_ms=now - 2_000, power_w=-100)
    rows.sample("HOUSE-17", -200, now - 1_000)

    [sampled] = (await api.get("meters", token)).json()["items"]
    rows.reading("HOUSE-17", import_wh=1, export_wh=2, at_ms=now, power_w=-300)
    [slotted] = (await api.get("meters", token)).json()["items"]

    assert (sampled["power_w"], slotted["power_w"]) == (-200, -300)


async def test_power_of_the_last_minutes_is_old_to_new(api: Api) -> None:
    rows, now = api.rows, api.rows.clock.at_ms
    token = rows.user("anna")
    rows.meter("HOUSE-17", "anna")
    for ago_ms in (20 * 60_000, 60_000, 30_000):
        rows.sample("HOUSE-17", -ago_ms // 1_000, now - ago_ms)

    answer = await api.get("meters/HOUSE-17/power?minutes=10", token)

    assert answer.json()["items"] == [
        {"at_ms": now - 60_000, "power_w": -60},
        {"at_ms": now - 30_000, "power_w": -30},
    ]


async def test_what_belongs_to_others_is_not_there(api: Api) -> None:
    rows = api.rows
    anna, ben = rows.user("anna"), rows.user("ben")
    rows.meter("HOUSE-17", "anna")
    rows.reading("HOUSE-17", import_wh=0, export_wh=0)
    rows.reading("HOUSE-17", import_wh=0, export_wh=500)
    rows.finish(rows.seal("anna"))

    for path in ("meters/HOUSE-17/readings", "meters/HOUSE-17/power"):
        foreign, missing = await api.get(path, ben), await api.get("meters/NONE/power", ben)
        assert_problem(foreign, 404, "not_found")
        assert foreign.json()["detail"] == missing.json()["detail"]
        assert (await api.get(path, anna)).status_code == 200
    assert (await api.get("meters", ben)).json()["items"] == []
    assert (await api.get("mints", ben)).json()["items"] == []
    assert [o["user_id"] for o in (await api.get("summary", ben)).json()["owners"]] == ["ben"]


async def test_readings_come_in_pages_newest_first_without_gap_or_double(api: Api) -> None:
    rows, now = api.rows, api.rows.clock.at_ms
    token = rows.user("anna")
    rows.meter("HOUSE-17", "anna")
    ids = [
        rows.reading("HOUSE-17", import_wh=n, export_wh=n, at_ms=now - (10 - n // 2) * HOUR_MS)
        for n in range(10)
    ]
    with rows.database.transaction() as tx:
        # Two that nothing dates yet: they stand where they came in.
        tx.execute("UPDATE meter_readings SET reading_timestamp_ms = NULL WHERE seq IN (4, 7)")

    seen: list[int] = []
    cursor = ""
    while cursor is not None:
        path = f"meters/HOUSE-17/readings?limit=3{cursor and '&cursor=' + cursor}"
        page = (await api.get(path, token)).json()
        seen += [item["reading_id"] for item in page["items"]]
        cursor = page["next_cursor"]

    assert seen == ids[::-1]


async def test_energy_of_today_counts_readings_that_nothing_dates_yet(api: Api) -> None:
    rows, now = api.rows, api.rows.clock.at_ms
    token = rows.user("anna")
    rows.meter("HOUSE-17", "anna")
    rows.reading("HOUSE-17", import_wh=10, export_wh=100, at_ms=now - 2_000)
    rows.reading("HOUSE-17", import_wh=15, export_wh=350, at_ms=now - 1_000)
    with rows.database.transaction() as tx:
        tx.execute("UPDATE meter_readings SET reading_timestamp_ms = NULL")

    (meter,) = (await api.get("meters", token)).json()["items"]

    assert (meter["import_today_wh"], meter["export_today_wh"]) == (5, 250)


@pytest.mark.parametrize("cursor", ["x", "bnVsbA", "WzEsMl0x", "WyJhIiwiYiJd", "%00", "e30"])
async def test_a_cursor_that_is_none_of_ours_is_refused(api: Api, cursor: str) -> None:
    token = api.rows.user("anna")
    api.rows.meter("HOUSE-17", "anna")

    answer = await api.get(f"meters/HOUSE-17/readings?cursor={cursor}", token)

    assert_problem(answer, 422, "InvalidCursor")


async def test_a_mint_shows_amount_signature_and_meters(api: Api) -> None:
    rows = api.rows
    token, desk = rows.user("anna"), rows.staff()
    rows.user("ben")
    for meter_id, user_id in (("HOUSE-17", "anna"), ("BARN-2", "anna"), ("OTHER", "ben")):
        rows.meter(meter_id, user_id)
        rows.reading(meter_id, import_wh=0, export_wh=0)
        rows.reading(meter_id, import_wh=0, export_wh=12_345)
    anna_batch, ben_batch = rows.seal("anna"), rows.seal("ben")
    rows.finish(anna_batch, slot=777)

    [mint] = (await api.get("mints", token)).json()["items"]
    all_mints = (await api.get("mints?limit=1", desk)).json()
    rest = (await api.get(f"mints?limit=1&cursor={all_mints['next_cursor']}", desk)).json()

    assert mint["amount_base_units"] == "24690000000"
    assert (mint["transaction_signature"], mint["slot"]) == (signature_of(anna_batch), 777)
    assert mint["meters"] == [
        {"meter_id": "BARN-2", "credit_wh": 12_345, "readings": 1},
        {"meter_id": "HOUSE-17", "credit_wh": 12_345, "readings": 1},
    ]
    assert [m["batch_id"] for m in all_mints["items"]] == [ben_batch]
    assert all_mints["items"][0]["transaction_signature"] is None
    assert [m["batch_id"] for m in rest["items"]] == [anna_batch]
    assert rest["next_cursor"] is None


async def test_waiting_includes_what_is_on_its_way_and_minted_only_what_is_final(
    api: Api,
) -> None:
    rows = api.rows
    token, desk = rows.user("anna"), rows.staff()
    rows.meter("HOUSE-17", "anna")
    rows.reading("HOUSE-17", import_wh=0, export_wh=0)
    rows.reading("HOUSE-17", import_wh=0, export_wh=1_000)
    rows.finish(rows.seal("anna"))
    rows.reading("HOUSE-17", import_wh=0, export_wh=1_200)
    rows.seal("anna")
    rows.reading("HOUSE-17", import_wh=0, export_wh=1_230)

    summary = (await api.get("summary", token)).json()
    [meter] = (await api.get("meters", token)).json()["items"]

    assert summary["minted_base_units"] == "1000000000"
    assert (summary["minted_wh"], summary["waiting_wh"]) == (1_000, 230)
    assert (meter["credited_wh"], meter["minted_wh"], meter["waiting_wh"]) == (1_230, 1_000, 230)
    assert (await api.get("summary", desk)).json()["owners"] == summary["owners"]


async def test_totals_beyond_sixty_three_bits_are_exact(api: Api) -> None:
    rows = api.rows
    token = rows.user("anna")
    rows.meter("HOUSE-17", "anna")
    rows.reading("HOUSE-17", import_wh=0, export_wh=0)
    for export_wh in (10, 20, 30):
        rows.reading("HOUSE-17", import_wh=0, export_wh=export_wh)
        rows.finish(rows.seal("anna"))
    with rows.database.transaction() as tx:
        tx.execute("UPDATE mint_items SET amount_base_units = ?", (2**63 - 1,))

    summary = (await api.get("summary", token)).json()

    assert summary["minted_base_units"] == str(3 * (2**63 - 1))


async def test_readings_by_http_are_answered_with_the_receipt(api: Api) -> None:
    answer = await api.client.post(
        f"/api/v1/gateways/{GATEWAY}/readings",
        content=b"line 1\nline 2",
        headers={"Content-Type": "application/x-ndjson"},
    )

    assert (answer.status_code, answer.content) == (200, b'{"v":1}')
    assert api.submitted == [(GATEWAY, b"line 1\nline 2")]


@pytest.mark.parametrize(
    ("gateway_id", "kind", "body", "status", "code"),
    [
        (GATEWAY, "application/json", b"x", 415, "unsupported_media_type"),
        ("not-a-key", "application/x-ndjson", b"x", 404, "not_found"),
        (GATEWAY, "application/x-ndjson", b"x" * 131_073, 413, "too_large"),
    ],
)
async def test_a_body_that_cannot_be_readings_is_refused(
    api: Api, gateway_id: str, kind: str, body: bytes, status: int, code: str
) -> None:
    answer = await api.client.post(
        f"/api/v1/gateways/{gateway_id}/readings", content=body, headers={"Content-Type": kind}
    )

    assert_problem(answer, status, code)
    assert api.submitted == []


async def test_a_body_without_a_length_is_cut_at_the_same_limit(api: Api) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65_536

    answer = await api.client.post(
        f"/api/v1/gateways/{GATEWAY}/readings",
        content=endless(),
        headers={"Content-Type": "application/x-ndjson"},
    )

    assert_problem(answer, 413, "too_large")


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (StoreBusyError("/secret/path is locked"), 503, "unavailable"),
        (ValidationError("EmptyMessage", "send 1 to 100 lines"), 422, "EmptyMessage"),
        (RuntimeError("key=/secret/path"), 500, "internal"),
    ],
)
async def test_every_error_has_its_answer_and_tells_nothing_inside(
    api: Api, fault: Exception, status: int, code: str
) -> None:
    api.fault = fault

    answer = await api.client.post(
        f"/api/v1/gateways/{GATEWAY}/readings",
        content=b"x",
        headers={"Content-Type": "application/x-ndjson"},
    )

    assert_problem(answer, status, code)
    assert "/secret" not in answer.text
    assert answer.headers["content-security-policy"]
    if status == 503:
        assert answer.headers["retry-after"] == "5"


async def test_unknown_paths_and_methods_are_problems_too(api: Api) -> None:
    missing = await api.client.get("/api/v1/nothing")
    method = await api.client.put("/api/v1/me")

    assert_problem(missing, 404, "not_found")
    assert_problem(method, 405, "method_not_allowed")
    assert method.headers["allow"] == "GET"


@pytest.mark.parametrize("path", ["/", "/web/app.js", "/web/app.css", "/api/v1/me", "/healthz"])
async def test_every_answer_carries_the_security_headers(api: Api, path: str) -> None:
    answer = await api.client.get(path, headers={"Origin": "https://evil.example"})

    policy = answer.headers["content-security-policy"].split("; ")
    assert "default-src 'self'" in policy
    assert "connect-src 'self' wss://grid.example/ws" in policy
    assert "frame-ancestors 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert not any(name.startswith("access-control") for name in answer.headers)


async def test_the_page_needs_nothing_from_elsewhere(api: Api) -> None:
    page = await api.client.get("/")
    texts = [page.text]
    for name in ("app", "api", "chart", "dom", "events", "feed", "format", "meters"):
        script = await api.client.get(f"/web/{name}.js")
        assert "javascript" in script.headers["content-type"]
        texts.append(script.text)

    for text in texts:
        assert "innerHTML" not in text
        assert "//" not in text.replace("http://www.w3.org/2000/svg", "").replace("// ", "")


async def test_ready_means_every_check_is_content(api: Api) -> None:
    ready = await api.client.get("/readyz")
    api.not_ready = "no schema"
    not_ready = await api.client.get("/readyz")

    assert ready.status_code == 200
    assert (not_ready.status_code, not_ready.json()["faults"]) == (503, {"store": "no schema"})
    assert (await api.client.get("/healthz")).status_code == 200


async def test_the_description_names_the_problem_type_for_refusals(api: Api) -> None:
    description = (await api.client.get("/api/v1/openapi.json")).json()

    assert description["openapi"].startswith("3.1")
    assert "HTTPValidationError" not in description["components"]["schemas"]
    problem = description["paths"]["/api/v1/meters"]["get"]["responses"]["4XX"]
    assert "application/problem+json" in problem["content"]


async def test_an_owner_gets_the_proof_of_a_minted_reading_and_nobody_else_does(api: Api) -> None:
    anna, ben = api.rows.user("anna"), api.rows.user("ben")
    api.rows.meter("HOUSE-1", "anna")
    api.rows.reading("HOUSE-1", import_wh=0, export_wh=1000)
    api.rows.reading("HOUSE-1", import_wh=0, export_wh=1500)
    unminted = await api.get("readings/2/proof", anna)
    api.rows.finish(api.rows.seal("anna"))
    read = api.rows.database.connection
    [minted] = read.execute("SELECT reading_id FROM meter_readings WHERE minted = 1").fetchall()

    path = f"readings/{minted['reading_id']}/proof"
    answers = [await api.get(path, token) for token in (anna, ben, None, api.rows.staff())]

    assert_problem(unminted, 404, "not_found")
    assert answers[0].status_code == answers[3].status_code == 200
    assert answers[0].json()["v"] == 1
    assert answers[0].json()["transaction"]
    assert_problem(answers[1], 404, "not_found")
    assert_problem(answers[2], 401, "not_signed_in")
    assert (await api.client.get("/proof")).headers["content-type"].startswith("text/html")
