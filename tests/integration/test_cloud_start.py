"""The cloud as one process: it starts, mints what a gateway sends, and ends in order."""

import json
import re
import signal
import socket
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from gridtokenx_wire import base58
from gridtokenx_wire.record import SlotRecord
from tests.support.build_cloud import slot
from tests.support.cloud_process import (
    MARKER_SECRET,
    MQTT_PASSWORD,
    Installation,
    gtx_cloud,
    installation,
    log_events,
    wait_until,
)

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("cloud-process")]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Installation]:
    with installation(tmp_path) as made:
        yield made


def reading(place: Installation, seq: int, export_wh: int) -> SlotRecord:
    return slot(seq, export_wh, at=place.stamp(seq), token=place.mint)


def ready(place: Installation) -> tuple[int, dict[str, object]]:
    url = f"http://127.0.0.1:{place.http_port}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.load(refused)


def metrics(place: Installation) -> dict[str, str]:
    url = f"http://{place.env['GTX_CLOUD_METRICS_BIND']}/metrics"
    with urllib.request.urlopen(url, timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def test_signed_readings_become_tokens_and_the_books_agree(place: Installation) -> None:
    with place.running() as process, place.gateway() as publish:
        wait_until(lambda: ready(place)[0] == 200, "the cloud is ready")
        publish(reading(place, 1, 1_000), reading(place, 2, 1_250))
        publish(reading(place, 3, 2_500))
        wait_until(lambda: place.durable_seqs() == {1, 2, 3}, "receipts for all three")
        wait_until(lambda: place.minted_wh() == 1_500, "1,500 Wh minted")
        figures = metrics(place)
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=90)

    assert code == 0
    assert figures["gridtokenx_energy_minted_wh_total"] == "1500"
    assert figures["gridtokenx_unminted_readings"] == "0"
    assert figures['gridtokenx_service_up{service="settle"}'] == "1"
    events = [entry["event"] for entry in log_events(place.log)]
    assert events[0] == "config_loaded"
    assert events[-1] == "stopped"
    assert "role_failed" not in events
    for secret in (MQTT_PASSWORD, MARKER_SECRET):
        assert secret not in place.log
    audit = gtx_cloud(place.env, "audit")
    assert audit.returncode == 0, audit.stdout + audit.stderr


def test_killed_in_the_middle_and_started_again_nothing_is_lost_or_doubled(
    place: Installation,
) -> None:
    sent = [reading(place, 1, 1_000), reading(place, 2, 2_000), reading(place, 3, 2_500)]
    with place.gateway() as publish:
        with place.running() as process:
            wait_until(lambda: ready(place)[0] == 200, "the cloud is ready")
            publish(*sent[:2])
            wait_until(lambda: 2 in place.durable_seqs(), "the receipt")
            process.kill()
            process.wait(timeout=90)
        with place.running():
            publish(*sent)
            wait_until(lambda: place.minted_wh() == 1_500, "1,500 Wh minted")

    assert place.number("SELECT count(*) FROM meter_readings") == 3
    audit = gtx_cloud(place.env, "audit")
    assert audit.returncode == 0, audit.stdout + audit.stderr


def test_a_stop_sends_browsers_away_to_come_back(place: Installation) -> None:
    made = gtx_cloud(place.env, "api-token", "create", "me", "--role", "admin", "--json")
    token = re.findall(r"gtx_[A-Za-z0-9_-]+", made.stdout)[0]
    with (
        place.running() as process,
        connect(
            f"ws://{place.env['WEBSOCKET_BIND']}/ws",
            subprotocols=[Subprotocol("gridtokenx.v1")],
            additional_headers={"Authorization": f"Bearer {token}"},
            open_timeout=60,
        ) as browser,
    ):
        browser.send(json.dumps({"op": "connect"}))
        welcome = json.loads(browser.recv(60))
        process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            deque(iter(lambda: browser.recv(60), None))
        code = process.wait(timeout=90)

    assert welcome["op"] == "welcome"
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == CloseCode.SERVICE_RESTART
    assert code == 0
    assert token not in place.log


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation whose cloud is only tried to be started."""
    with installation(tmp_path_factory.mktemp("still")) as made:
        yield made


def start(place: Installation, **env: str) -> tuple[int, str]:
    done = gtx_cloud(place.env | {"GTX_CLOUD_LOG_LEVEL": "error"} | env, "run")
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    "setting", ["GTX_CLOUD_HTTP_BIND", "GTX_CLOUD_METRICS_BIND", "WEBSOCKET_BIND"]
)
def test_a_port_in_use_is_one_line_that_names_it(still: Installation, setting: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        code, said = start(still, **{setting: f"127.0.0.1:{port}"})

    assert code == 2
    assert said.count("\n") == 1
    assert str(port) in said
    assert setting in said


def test_a_store_without_schema_names_the_command_that_makes_it(
    still: Installation, tmp_path: Path
) -> None:
    code, said = start(still, GTX_CLOUD_DATABASE_URL=f"sqlite:///{tmp_path / 'new.db'}")

    assert code == 1
    assert "run `gtx-cloud migrate` first" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "content", "mode", "says"),
    [
        ("wrong", "[1, 2, 3]", 0o600, "no Solana key"),
        ("open", "[1, 2, 3]", 0o644, "chmod 600"),
        ("absent", None, 0o600, "cannot be read"),
    ],
)
@pytest.mark.parametrize(
    "setting",
    ["GTX_CLOUD_CLOUD_KEY", "BLOCKCHAIN_MINT_AUTHORITY_KEY", "BLOCKCHAIN_FEE_PAYER_KEY"],
)
def test_a_key_file_that_cannot_be_used_stops_the_start(
    still: Installation,
    tmp_path: Path,
    setting: str,
    name: str,
    content: str | None,
    mode: int,
    says: str,
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
        path.chmod(mode)

    code, said = start(still, **{setting: f"file:{path}"})

    assert code == 1
    assert says in said
    assert str(path) in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("BLOCKCHAIN_GENESIS_HASH", base58.encode_key(b"\x05" * 32), "genesis"),
        ("BLOCKCHAIN_TOKEN_PROGRAM", "token-2022", "token program"),
        ("TOKENIZATION_DECIMALS", "6", "decimals"),
        ("BLOCKCHAIN_MINT_ADDRESS", base58.encode_key(b"\x06" * 32), "does not exist"),
    ],
)
def test_another_chain_or_token_than_configured_stops_the_start(
    still: Installation, tmp_path: Path, setting: str, value: str, says: str
) -> None:
    store = {"GTX_CLOUD_DATABASE_URL": f"sqlite:///{tmp_path / 'new.db'}"}
    gtx_cloud(still.env | store, "migrate")

    code, said = start(still, **store, **{setting: value})

    assert code == 1
    assert says in said
    assert said.count("\n") == 1


def test_a_store_never_changes_its_token(still: Installation) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        # The first start fixes the token, and then meets a port in use.
        start(still, GTX_CLOUD_HTTP_BIND=f"127.0.0.1:{other.getsockname()[1]}")

    code, said = start(still, BLOCKCHAIN_MINT_ADDRESS=base58.encode_key(b"\x06" * 32))

    assert code == 2
    assert "this store was started with" in said


def test_every_fault_is_on_a_line_of_its_own(still: Installation) -> None:
    code, said = start(
        still, TOKENIZATION_BATCH_SIZE="0", TOKENIZATION_BATCHSIZE="5", WEBSOCKET_BIND="x"
    )

    assert code == 2
    assert said.count("\n") == 3
