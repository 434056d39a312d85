"""Settings changed while the cloud runs: in force from the next cycle, and after a restart."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from gridtokenx_wire.record import SlotRecord
from tests.support.build_cloud import slot
from tests.support.cloud_process import Installation, gtx_cloud, installation, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("cloud-process")]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Installation]:
    with installation(tmp_path) as made:
        yield made


def reading(place: Installation, seq: int, export_wh: int) -> SlotRecord:
    return slot(seq, export_wh, at=place.stamp(seq), token=place.mint)


def ask(
    place: Installation, token: str, method: str, path: str, body: object = None
) -> dict[str, object]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{place.http_port}/api/v1/admin/{path}",
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, object] = json.load(answer)
        return found


def test_a_limit_and_a_pause_act_at_once_survive_a_restart_and_are_taken_back(
    place: Installation,
) -> None:
    token = gtx_cloud(place.env, "api-token", "create", "desk", "--role", "admin").stdout.strip()
    changed = {"max_reading_kwh": "0.1", "auto_mint_enabled": False}

    with place.running(), place.gateway() as publish:
        ask(place, token, "PATCH", "tokenization/config", changed)
        publish(reading(place, 1, 1_000), reading(place, 2, 1_900))
        wait_until(lambda: bool(ask(place, token, "GET", "held-readings")["items"]), "it is held")

    with place.running():
        before = ask(place, token, "GET", "tokenization/status")
        (waiting,) = json.loads(gtx_cloud(place.env, "held", "list", "--json").stdout)
        gtx_cloud(place.env, "held", "release", str(waiting["reading_id"]))
        gtx_cloud(place.env, "config", "unset", "max_reading_kwh", "auto_mint_enabled")
        wait_until(
            lambda: ask(place, token, "GET", "tokenization/status")["unminted_wh"] == 0,
            "minting goes on by itself",
        )
        after = ask(place, token, "GET", "tokenization/status")

    assert before["auto_mint_enabled"] == "false"
    assert before["held_readings"] == {"AmountTooHigh": 1}
    assert after["auto_mint_enabled"] == "true"
    assert len(after["last_batches"]) == 1  # type: ignore[arg-type]
