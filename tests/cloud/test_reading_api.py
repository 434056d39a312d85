"""One reading, one batch, and a meter's energy over time, as owner and staff may see them."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gridtokenx_cloud.adapters.store.database import Database
from tests.support.http_api import DAY_MS, HOUR_MS, Api, http_api
from tests.support.store_rows import signature_of, wallet_of

ORIGIN = "https://grid.example"


@pytest.fixture
async def api(new_store: Callable[[], Database]) -> AsyncIterator[Api]:
    async with http_api(new_store(), ORIGIN, 1_000) as made:
        yield made


def house(api: Api, owner: str = "anna", meter_id: str = "HOUSE-17") -> tuple[str, list[int]]:
    """Enrol an owner with a meter, a baseline and two credits; return token and reading ids."""
    token = api.rows.user(owner)
    api.rows.meter(meter_id, owner)
    ids = [
        api.rows.reading(meter_id, import_wh=0, export_wh=export_wh)
        for export_wh in (1_000, 1_500, 2_500)
    ]
    return token, ids


async def body_of(api: Api, path: str, token: str) -> dict[str, Any]:
    answer = await api.get(path, token)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def status_of(api: Api, reading_id: int, token: str) -> dict[str, Any]:
    return await body_of(api, f"readings/{reading_id}/minting-status", token)


async def test_the_energy_of_a_reading_is_followed_from_its_credit_to_its_tokens(api: Api) -> None:
    token, (baseline, first, _) = house(api)

    before = await status_of(api, first, token)
    nothing = await status_of(api, baseline, token)
    batch_id = api.rows.seal("anna")
    on_its_way = await status_of(api, first, token)
    api.rows.finish(batch_id)
    after = await status_of(api, first, token)

    states = [one["status"] for one in (nothing, before, on_its_way, after)]
    assert states == ["nothing_to_mint", "pending", "processing", "minted"]
    assert (on_its_way["batch_id"], on_its_way["batch_state"]) == (batch_id, "sealed")
    assert after["transaction_signature"] == signature_of(batch_id)
    assert (await body_of(api, f"readings/{first}", token))["minted"] is True


@pytest.mark.parametrize("parked", [False, True])
async def test_a_refused_credit_says_why_and_when_it_is_tried_again(api: Api, parked: bool) -> None:
    token, (_, reading_id, _) = house(api)
    with api.rows.database.transaction() as tx:
        tx.execute(
            "INSERT INTO minting_retry_queue (reading_id, error_code, error_message, attempts,"
            " next_retry_at_ms, parked_at_ms, created_at_ms, updated_at_ms)"
            " VALUES (?, 'RecipientRefused', 'the account is frozen', 2, 3600000, ?, 1, 1)",
            (reading_id, 7 if parked else None),
        )

    found = await status_of(api, reading_id, token)

    assert (found["status"], found["attempts"]) == ("failed", 2)
    assert (found["error_code"], found["error_reason"]) == (
        "RecipientRefused",
        "the account is frozen",
    )
    assert found["next_retry_at"] == (None if parked else "1970-01-01T01:00:00.000Z")


async def test_a_held_reading_says_by_which_rule(api: Api) -> None:
    token, (reading_id, *_) = house(api)
    with api.rows.database.transaction() as tx:
        tx.execute(
            "UPDATE meter_readings SET status = 'held', reason = 'PowerExceeded'"
            " WHERE reading_id = ?",
            (reading_id,),
        )

    found = await status_of(api, reading_id, token)

    assert (found["status"], found["error_code"]) == ("held", "PowerExceeded")


async def test_an_owner_sees_the_own_part_of_a_batch_and_staff_all_of_it(api: Api) -> None:
    anna, _ = house(api)
    batch_id = api.rows.seal("anna")
    api.rows.user("ben")
    with api.rows.database.transaction() as tx:
        tx.execute(
            "INSERT INTO mint_items VALUES (?, ?, 'ben', 'account', 5, 5000000, NULL)",
            (batch_id, wallet_of("ben")),
        )
    staff, viewer = api.rows.staff("operator"), api.rows.staff("viewer")

    own = await body_of(api, f"batches/{batch_id}", anna)
    whole = await body_of(api, f"batches/{batch_id}", staff)
    shortened = await body_of(api, f"batches/{batch_id}", viewer)

    assert [item["user_id"] for item in own["recipients"]] == ["anna"]
    assert own["recipients"][0]["amount_base_units"] == "1500000000"
    assert {item["wallet"] for item in whole["recipients"]} == {
        wallet_of("anna"),
        wallet_of("ben"),
    }
    assert all(len(item["wallet"]) == 11 for item in shortened["recipients"])


async def test_a_viewer_sees_no_wallet_in_full_anywhere(api: Api) -> None:
    house(api)
    api.rows.finish(api.rows.seal("anna"))
    viewer = api.rows.staff("viewer")

    answers = [
        (await api.get(path, viewer)).text
        for path in ("meters", "meters/HOUSE-17", "mints", "summary", "batches/1")
    ]

    wallet = wallet_of("anna")
    assert all(wallet not in text for text in answers)
    assert all(f"{wallet[:4]}...{wallet[-4:]}" in text for text in answers)


@pytest.mark.parametrize(
    "path",
    [
        "meters/HOUSE-17",
        "meters/HOUSE-17/energy",
        "readings/{id}",
        "readings/{id}/minting-status",
        "batches/1",
    ],
)
async def test_what_belongs_to_others_is_not_even_there(api: Api, path: str) -> None:
    anna, (_, reading_id, _) = house(api)
    api.rows.seal("anna")
    ben = api.rows.user("ben")
    there = path.format(id=reading_id)
    nowhere = path.format(id=999).replace("HOUSE-17", "HOUSE-99").replace("batches/1", "batches/9")

    own, foreign, missing = [
        await api.get(one, token) for one, token in ((there, anna), (there, ben), (nowhere, ben))
    ]

    assert (own.status_code, foreign.status_code, missing.status_code) == (200, 404, 404)
    assert foreign.json()["detail"] == missing.json()["detail"]


async def test_energy_is_what_the_registers_rose_in_each_period_and_none_is_lost(
    api: Api,
) -> None:
    token = api.rows.user("anna")
    api.rows.meter("HOUSE-17", "anna")
    noon_ms = api.rows.clock.at_ms
    for hours, import_wh, export_wh in ((-50, 0, 0), (-26, 10, 100), (-1, 40, 400), (0, 50, 450)):
        api.rows.reading(
            "HOUSE-17",
            import_wh=import_wh,
            export_wh=export_wh,
            at_ms=noon_ms + hours * HOUR_MS,
        )

    days = (await body_of(api, "meters/HOUSE-17/energy", token))["items"]
    hours = (
        await body_of(api, f"meters/HOUSE-17/energy?by=hour&from_ms={noon_ms - 2 * HOUR_MS}", token)
    )["items"]
    months = (await body_of(api, "meters/HOUSE-17/energy?by=month", token))["items"]

    def sums(items: list[dict[str, Any]]) -> list[tuple[int, int, int]]:
        return [(one["import_wh"], one["export_wh"], one["credit_wh"]) for one in items]

    assert sums(days) == [(0, 0, 0), (10, 100, 100), (40, 350, 350)]
    # The first hour asked for begins where the register stood before it.
    assert sums(hours) == [(30, 300, 300), (10, 50, 50)]
    assert tuple(map(sum, zip(*sums(months), strict=True))) == (50, 450, 450)
    assert all(one["start"].endswith("-01T00:00:00.000Z") for one in months)
    assert days[-1]["start"] == days[-1]["start"][:10] + "T00:00:00.000Z"


@pytest.mark.parametrize(
    ("query", "says"),
    [
        (f"by=hour&from_ms=0&to_ms={101 * HOUR_MS}", "at most 100 hours"),
        (f"by=day&from_ms=0&to_ms={101 * DAY_MS}", "at most 100 days"),
        (f"by=month&from_ms=0&to_ms={1_831 * DAY_MS}", "at most 5 years"),
        ("by=day&from_ms=5&to_ms=5", "from_ms before to_ms"),
    ],
)
async def test_more_energy_than_a_page_holds_is_asked_for_in_parts(
    api: Api, query: str, says: str
) -> None:
    token, _ = house(api)

    answer = await api.get(f"meters/HOUSE-17/energy?{query}", token)

    assert answer.status_code == 422
    assert says in answer.json()["detail"]


@pytest.mark.parametrize(
    ("given", "kept"),
    [("order-66_a.B", True), ("", False), ("x" * 65, False), ("a b", False), ("<script>", False)],
)
async def test_a_request_keeps_its_id_if_that_is_one(api: Api, given: str, kept: bool) -> None:
    answer = await api.client.get("/api/v1/me", headers={"X-Request-ID": given})

    said = answer.headers["X-Request-ID"]
    assert (said == given) is kept
    assert answer.json()["correlation_id"] == said
