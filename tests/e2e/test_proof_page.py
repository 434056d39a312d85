"""Anybody checks a proof in a browser, without an account and without another server."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from gridtokenx_cloud.adapters.system import SystemClock
from gridtokenx_cloud.proof import make_proof, proof_to_json
from tests.support.browser import chromium
from tests.support.build_cloud import FakeClock
from tests.support.live_site import live_site
from tests.support.proofs import GATEWAY, TRANSACTION, source
from tests.support.store_rows import StoreRows

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    rows = StoreRows(tmp_path / "cloud.db", FakeClock(SystemClock().now_ms()))
    with live_site(rows) as site:
        context = browser.new_context(viewport={"width": 390, "height": 844})
        page = context.new_page()
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda one: faults.append(one.text) if one.type == "error" else None)
        page.goto(f"{site.url}/proof")
        yield page
        context.close()
    rows.database.close()
    assert faults == []


def check(page: Page, text: str, gateway: str = "") -> list[str | None]:
    """Return the state of each step."""
    page.fill("#proof", text)
    page.fill("#gateway", gateway)
    page.click("button[type=submit]")
    expect(page.locator("#result")).to_be_visible()
    return [one.get_attribute("data-state") for one in page.locator("#steps li").all()]


def verdict(page: Page) -> str:
    return page.locator("#result-title").inner_text()


@pytest.mark.parametrize(("leaves", "index"), [(1, 0), (2, 1), (7, 6), (7, 3), (750, 749), (64, 0)])
def test_a_true_proof_holds_for_every_place_in_the_tree(
    page: Page, leaves: int, index: int
) -> None:
    states = check(page, proof_to_json(make_proof(source(leaves, index))), GATEWAY)

    assert states == ["ok"] * 4
    assert verdict(page) == "The proof holds"
    href = page.locator("#transaction").get_attribute("href") or ""
    assert href.endswith(f"/tx/{TRANSACTION}")
    expect(page.locator("#memo")).to_have_text(source(leaves, index).memo)


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], list[str]]] = {
    "another value": (
        lambda proof: proof | {"line": proof["line"].replace("1003", "9003")},
        ["ok", "bad", "ok", "bad"],
    ),
    "another place": (lambda proof: proof | {"index": 2}, ["ok", "ok", "ok", "bad"]),
    "a longer path": (
        lambda proof: proof | {"path": [*proof["path"], proof["path"][0]]},
        ["ok", "ok", "bad", "bad"],
    ),
    "another batch": (lambda proof: proof | {"batch_id": 8}, ["ok", "ok", "ok", "bad"]),
    "no memo": (lambda proof: proof | {"memo": ""}, ["ok", "ok", "ok", "open"]),
    "no gateway": (lambda proof: proof | {"gateway": ""}, ["ok", "open", "ok", "ok"]),
    "no proof": (lambda proof: {"v": 1}, ["bad"]),
    "no object": (lambda proof: [1], ["bad"]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_proof_that_was_changed_shows_the_step_that_breaks(page: Page, name: str) -> None:
    change, expected = CHANGES[name]
    proof = json.loads(proof_to_json(make_proof(source(7, 3))))

    states = check(page, json.dumps(change(proof)))

    assert states == expected
    bad = "bad" in expected
    assert verdict(page) == (
        "The proof does not hold" if bad else "Not everything could be checked here"
    )


def test_a_line_of_another_gateway_than_the_trusted_one_does_not_hold(page: Page) -> None:
    other = "11111111111111111111111111111112"

    states = check(page, proof_to_json(make_proof(source(7, 3))), other)

    assert states == ["ok", "bad", "ok", "ok"]
