"""All roles in this very process, as `gtx-cloud run` has them, from a first reading to the end."""

import json
import os
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gridtokenx_cloud.adapters.system import SystemClock
from gridtokenx_cloud.app import build, serve
from gridtokenx_cloud.settings import load_settings
from gridtokenx_wire.record import Record
from tests.support.build_cloud import sample, slot
from tests.support.cloud_process import Installation, gtx_cloud, installation, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("cloud-process")]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Installation]:
    with installation(tmp_path) as made:
        yield made


def run_while(place: Installation, visit: Callable[[], None], **env: str) -> bool:
    """Serve in this thread while *visit* works in another one, then end as on SIGTERM."""
    app = build(load_settings(environ=place.env | env), SystemClock())
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    failures: list[BaseException] = []

    def work() -> None:
        try:
            wait_until(lambda: ready(place), "every role can work")
            visit()
        except BaseException as exc:  # noqa: BLE001 - raised again in the thread of the test
            failures.append(exc)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    visitor = threading.Thread(target=work)
    try:
        visitor.start()
        in_time = serve(app)
    finally:
        visitor.join()
        for number, handler in before.items():
            signal.signal(number, handler)
    for failure in failures:
        raise failure
    return in_time


def ready(place: Installation) -> bool:
    try:
        return bool(fetch(f"http://127.0.0.1:{place.http_port}/readyz"))
    except OSError:
        return False


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        text: str = answer.read().decode()
        return text


def admin(place: Installation, token: str, method: str, path: str) -> dict[str, object]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{place.http_port}/api/v1/admin/{path}",
        headers={"Authorization": f"Bearer {token}"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, object] = json.load(answer)
        return found


def day(place: Installation) -> list[Record]:
    """Return a baseline, one kWh in two slots, and a live value."""
    slots: list[Record] = [
        slot(seq, export_wh, at=place.stamp(seq), token=place.mint)
        for seq, export_wh in ((1, 1_000), (2, 1_400), (3, 2_000))
    ]
    return [*slots, sample(4, -2_000, at=place.stamp(4))]


def test_a_pass_that_is_asked_for_mints_while_automatic_minting_is_off_and_the_end_is_in_order(
    place: Installation,
) -> None:
    token = gtx_cloud(place.env, "api-token", "create", "desk", "--role", "admin").stdout.strip()
    metrics = place.env["GTX_CLOUD_METRICS_BIND"]
    seen: dict[str, object] = {}

    def visit() -> None:
        with place.gateway() as publish:
            publish(*day(place))
            wait_until(lambda: place.durable_seqs() >= {1, 2, 3}, "the receipt names the slots")
        seen["waiting"] = admin(place, token, "GET", "meters/unminted")["items"]
        seen["asked"] = admin(place, token, "POST", "tokenization/trigger-batch")
        wait_until(lambda: place.minted_wh() == 1_000, "the pass mints what is due")
        wait_until(lambda: status()["pass"] == {"asked_for": 1, "done": 1}, "the pass is done")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            admin(place, "gtx_guess", "GET", "tokenization/status")
        seen["figures"] = fetch(f"http://{metrics}/metrics")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetch(f"http://{metrics}/else")

    def status() -> dict[str, object]:
        return admin(place, token, "GET", "tokenization/status")

    in_time = run_while(place, visit, TOKENIZATION_AUTO_MINT_ENABLED="false")

    assert in_time
    [waiting] = seen["waiting"]  # type: ignore[misc]
    assert waiting["reasons"] == {"auto_mint_off": 2}  # type: ignore[has-type]
    assert seen["asked"] == {"pass_id": 1}
    figures = str(seen["figures"])
    assert "gridtokenx_energy_minted_wh_total 1000" in figures
    assert 'gridtokenx_auth_failures_total{surface="http"} 1' in figures
    assert 'gridtokenx_rate_limited_total{surface="websocket",reason="guesses"} 0' in figures
    for role in ("ingest", "settle", "events", "upkeep", "api"):
        assert f'gridtokenx_service_up{{service="{role}"}} 1' in figures
