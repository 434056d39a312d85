"""The live page in a real browser."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from gridtokenx_cloud.adapters.system import SystemClock
from gridtokenx_cloud.events import user_stream
from tests.support import build_events as build
from tests.support.browser import chromium
from tests.support.build_cloud import FakeClock
from tests.support.live_site import Site, live_site
from tests.support.store_rows import StoreRows, signature_of

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[StoreRows]:
    # The browser's clock is the machine's, so the store's must be near it.
    rows = StoreRows(tmp_path / "cloud.db", FakeClock(SystemClock().now_ms()))
    yield rows
    rows.database.close()


@pytest.fixture
def site(rows: StoreRows) -> Iterator[Site]:
    with live_site(rows) as site:
        yield site


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 390, "height": 844}, locale="en-GB")
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "console",
        lambda message: faults.append(message.text) if "Security Policy" in message.text else None,
    )
    yield page
    context.close()
    assert faults == []


def open_live(page: Page, site: Site, token: str) -> None:
    page.goto(f"{site.url}/#token={token}")
    expect(page.locator("#state")).to_have_text("Live")


def house(rows: StoreRows, meter_id: str = "HOUSE-17") -> str:
    """Enrol anna with one meter that has a first total; return her token."""
    token = rows.user("anna")
    rows.meter(meter_id, "anna")
    rows.reading(meter_id, import_wh=1_000, export_wh=5_000)
    return token


def test_a_reading_and_its_mint_arrive_while_one_looks(
    rows: StoreRows, site: Site, page: Page
) -> None:
    open_live(page, site, house(rows))
    expect(page.locator("#feed-empty")).to_be_visible()

    rows.reading("HOUSE-17", import_wh=1_000, export_wh=17_345, power_w=-2_400)
    expect(page.locator(".entry")).to_contain_text("12.345 kWh credited")
    expect(page.locator("#waiting")).to_have_text("12.345kWh")
    expect(page.locator("#tokens")).to_have_text("0.000tokens")
    expect(page.locator("#power-now")).to_have_text("−2.40kW")  # noqa: RUF001 - a real minus
    expect(page.locator("#power-words")).to_contain_text("exporting to the grid")
    batch_id = rows.seal("anna")
    rows.finish(batch_id, slot=312_456_789)

    mint = page.locator(".entry[data-kind=mint]")
    signature = signature_of(batch_id)
    expect(mint).to_contain_text("12.345 tokens minted")
    expect(mint).to_contain_text(f"batch {batch_id} · slot 312,456,789")
    expect(mint.locator("code")).to_have_text(f"{signature[:8]}…{signature[-8:]}")
    expect(mint.locator("button")).to_have_attribute("data-signature", signature)
    expect(page.locator("#tokens")).to_have_text("12.345tokens")
    expect(page.locator("#waiting")).to_have_text("0.000kWh")


def test_live_values_move_the_power_and_the_chart(rows: StoreRows, site: Site, page: Page) -> None:
    token = house(rows)
    for ago_s in (30, 20, 10):
        rows.sample("HOUSE-17", 500, rows.clock.at_ms - ago_s * 1_000)
    open_live(page, site, token)
    expect(page.locator(".meter .power")).to_have_text("+500\u00a0W")
    expect(page.locator(".chart svg")).to_have_attribute("aria-label", re.compile("newest .500 W"))

    rows.clock.at_ms = SystemClock().now_ms()
    site.events.publish_sample("anna", build.sample(active_power_w=-3_210))

    expect(page.locator(".meter .power")).to_have_text("−3.21\u00a0kW")  # noqa: RUF001 - a real minus
    expect(page.locator(".meter .direction")).to_have_text("exporting to the grid")
    expect(page.locator(".chart path.line.export")).to_have_count(1)


def test_the_token_leaves_the_address_bar_and_the_session_outlives_a_reload(
    rows: StoreRows, site: Site, page: Page
) -> None:
    open_live(page, site, house(rows))
    address = page.url

    page.reload()

    expect(page.locator("#state")).to_have_text("Live")
    assert address == f"{site.url}/"
    assert "gtx_" not in page.evaluate("JSON.stringify([localStorage, sessionStorage, name])")
    assert page.evaluate("document.cookie") == ""


def test_one_signs_in_by_form_and_out_again(rows: StoreRows, site: Site, page: Page) -> None:
    token = house(rows)
    page.goto(site.url)
    field = page.get_by_label("Access token")

    field.fill("gtx_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("unknown, expired or revoked")
    field.fill(token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#state")).to_have_text("Live")
    page.get_by_role("button", name="Sign out").click()

    expect(field).to_be_visible()
    expect(page.locator(".meter")).to_have_count(0)
    page.reload()
    expect(field).to_be_visible()


def test_a_revoked_token_brings_the_sign_in_back(rows: StoreRows, site: Site, page: Page) -> None:
    open_live(page, site, house(rows))

    rows.access.revoke_token("anna's page", "test")

    expect(page.get_by_role("alert")).to_contain_text("Your session has ended")


def test_the_page_resumes_after_the_events_server_restarts(
    rows: StoreRows, site: Site, page: Page
) -> None:
    open_live(page, site, house(rows))
    rows.event((user_stream("anna"),), build.slot(meter_id="before"))
    expect(page.locator(".entry")).to_have_count(1)

    site.events.stop()
    expect(page.locator("#state")).to_have_text("Reconnecting")
    rows.event((user_stream("anna"),), build.slot(meter_id="during"))
    site.events = site.restart_events()
    rows.event((user_stream("anna"),), build.slot(meter_id="after"))

    expect(page.locator("#state")).to_have_text("Live", timeout=120_000)
    expect(page.locator(".entry")).to_have_count(3)
    texts = page.locator(".entry").all_inner_texts()
    assert [re.search("before|during|after", text)[0] for text in texts] == [  # type: ignore[index]
        "after",
        "during",
        "before",
    ]


def test_names_that_are_markup_stay_text(rows: StoreRows, site: Site, page: Page) -> None:
    evil = "<img src=x onerror=\"document.title='owned'\">"
    token = house(rows, evil)
    open_live(page, site, token)

    rows.event(
        (user_stream("anna"),),
        build.minted(transaction_signature="javascript:document.title='owned'//" + "x" * 9_000),
    )
    rows.event((user_stream("anna"),), build.slot(meter_id=evil))

    expect(page.locator(".entry")).to_have_count(2)
    expect(page.locator(".meter h4")).to_have_text(evil)
    assert page.locator("main img").count() == 0
    assert page.title() == "GridTokenX"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_staff_see_every_owner_with_totals(rows: StoreRows, site: Site, page: Page) -> None:
    house(rows)
    rows.user("ben")
    rows.meter("OTHER", "ben")

    open_live(page, site, rows.staff())

    expect(page.locator(".owner-head h3")).to_have_text(["anna", "ben"])
    expect(page.locator(".owner-head").first).to_contain_text("0.000 tokens minted")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 390, 768, 1280])
def test_the_page_fits_its_window_and_its_targets_a_thumb(
    rows: StoreRows, site: Site, page: Page, width: int, scheme: str
) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    token = house(rows)
    rows.reading("HOUSE-17", import_wh=1_000, export_wh=17_345, power_w=-2_400)
    rows.finish(rows.seal("anna"))

    open_live(page, site, token)
    expect(page.locator(".entry[data-kind=mint]")).to_be_visible()

    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    small = page.evaluate(
        "[...document.querySelectorAll('button, input, summary')]"
        ".filter((node) => node.checkVisibility())"
        ".map((node) => node.getBoundingClientRect().height).filter((height) => height < 44)"
    )
    assert small == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(245, 247, 245)" if scheme == "light" else "rgb(15, 20, 17)"
    )
