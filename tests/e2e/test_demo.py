"""The main job: `python -m demo`, twice in the same place."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from playwright.sync_api import expect

from gridtokenx_wire.encoding import parse_line
from gridtokenx_wire.topics import parse_topic
from tests.support.browser import chromium
from tests.support.demo import demo

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


@pytest.mark.xdist_group("demo")
def test_meters_become_tokens_and_a_second_run_goes_on_where_the_first_ended(
    tmp_path: Path,
) -> None:
    with demo(tmp_path) as running:
        running.wait_until_alive()
        watch_page(tmp_path)
        running.wait_until(lambda: running.books().transactions >= 2, "two transactions")
        first = running.stop().check_sums()
    mint = json.loads((tmp_path / "installation.json").read_text())["mint_address"]

    with demo(tmp_path) as running:
        # The town may be asleep: then nothing is exported before its dawn.
        running.wait_until(
            lambda: running.books().transactions > first["transactions"], "a transaction more"
        )
        second = running.stop().check_sums()

    assert first["transactions"] >= 2
    assert second["transactions"] > first["transactions"]
    assert second["exported_wh"] > first["exported_wh"]
    assert second["readings_accepted"] > first["readings_accepted"]
    assert json.loads((tmp_path / "installation.json").read_text())["mint_address"] == mint


def watch_page(folder: Path) -> None:
    """Fail unless an owner sees power, a reading and a mint with its signature arrive."""
    link = json.loads((folder / "links.json").read_text())["ada"]
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 390, "height": 844})
        page.goto(link)

        expect(page.locator("#state")).to_have_text("Live")
        expect(page.get_by_text("oak-street-1-barn", exact=True).first).to_be_visible()
        expect(page.locator("#feed")).to_contain_text("kWh credited", timeout=120_000)
        expect(page.locator("#feed")).to_contain_text("tokens minted", timeout=120_000)
        expect(page.locator("#feed")).to_contain_text("Transaction")
        expect(page.locator("body")).not_to_contain_text("mill-lane-8")
        assert "token" not in page.url


@pytest.mark.xdist_group("demo")
def test_a_gateway_sees_its_own_lines_on_the_broker_and_nothing_of_another(tmp_path: Path) -> None:
    with demo(tmp_path, seconds=25) as running:
        running.wait_until_alive()
        gateway_id = json.loads((tmp_path / "agent-ada" / "gateway.json").read_text())["gateway_id"]
        password = (tmp_path / "secrets" / f"mqtt-{gateway_id}").read_text()

        with listening(running.port("mqtt"), gateway_id, password) as seen:
            running.end().check_sums()

    meters = {parse_line(line).stamp.meter_id for _, line in seen}
    assert {parse_topic(topic)[0] for topic, _ in seen} == {gateway_id}
    assert {"oak-street-1", "oak-street-1-barn"} <= meters
    assert not any(meter.startswith("mill-lane") for meter in meters)


@contextmanager
def listening(port: int, user: str, password: str) -> Iterator[list[tuple[str, bytes]]]:
    """Subscribe to everything under the contract's root; gives what the broker lets through."""
    seen: list[tuple[str, bytes]] = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.username_pw_set(user, password)

    def on_message(_: object, __: object, message: mqtt.MQTTMessage) -> None:
        if message.topic.endswith("/readings"):
            seen.extend((message.topic, line) for line in bytes(message.payload).split(b"\n"))

    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.subscribe("gridtokenx/v1/+/readings", qos=1)
    client.loop_start()
    try:
        yield seen
    finally:
        client.disconnect()
        client.loop_stop()
