"""The whole cloud as an operator starts it: localnet, mosquitto and `gtx-cloud run`."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from solders.keypair import Keypair

from gridtokenx_cloud.adapters.keystore import LocalSigner, write_keypair
from gridtokenx_cloud.adapters.solana_rpc.mint_creation import MintCreation, MintSpec
from gridtokenx_cloud.adapters.solana_rpc.rpc import connect
from gridtokenx_cloud.adapters.solana_rpc.setup import airdrop
from gridtokenx_cloud.adapters.solana_rpc.transactions import TOKEN
from gridtokenx_cloud.adapters.store.database import Database, open_database
from gridtokenx_cloud.adapters.store.registry import SqlRegistry
from gridtokenx_cloud.adapters.system import SystemClock
from gridtokenx_wire.receipt import Receipt, decode_receipt
from gridtokenx_wire.record import Record, Stamp
from gridtokenx_wire.signing import verify_ed25519
from gridtokenx_wire.topics import Channel, topic
from tests.support.build_cloud import GATEWAY, METER_ID, SLOT_MS, enrol, stamp
from tests.support.mosquitto import shipped_mosquitto, wait_for_port
from tests.support.ports import free_port

GTX_CLOUD = (sys.executable, "-m", "gridtokenx_cloud")
MQTT_PASSWORD = "the-cloud-s-own-word"
MARKER_SECRET = "marker-secret-of-thirty-two-bytes!"
_LAMPORTS = 10_000_000_000


def gtx_cloud(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [*GTX_CLOUD, *arguments],
        env=environment(env),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def environment(env: dict[str, str]) -> dict[str, str]:
    ours = ("TOKENIZATION_", "BLOCKCHAIN_", "WEBSOCKET_", "GTX_CLOUD_")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    return kept | env


def wait_until(what: Callable[[], bool], why: str, timeout_s: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {why}"
        # A question of the HTTP API as well: a token may ask a thousand a minute.
        time.sleep(0.1)


@dataclass
class Installation:
    """What is needed to run a cloud, and a gateway to talk to it."""

    folder: Path
    env: dict[str, str]
    http_port: int
    mqtt_port: int
    mint: str
    cloud_key: bytes
    receipts: list[Receipt] = field(default_factory=list)
    day_began_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000 - 86_400_000)

    @property
    def log(self) -> str:
        path = self.folder / "cloud.log"
        return path.read_text() if path.exists() else ""

    @contextmanager
    def running(self, **env: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run `gtx-cloud run` until the end, from when it takes messages.

        What is published before goes to nobody: a gateway would send it again, a test does not.
        """
        connected = self.log.count('"mqtt_connected"')
        with (self.folder / "cloud.log").open("ab") as log:
            process = subprocess.Popen(
                [*GTX_CLOUD, "run"], env=environment(self.env | env), stderr=log, cwd=self.folder
            )
        try:
            wait_for_port(self.http_port, process)
            wait_until(lambda: self.log.count('"mqtt_connected"') > connected, "it takes messages")
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(timeout=90)

    @contextmanager
    def gateway(self) -> Iterator[Callable[..., None]]:
        """Connect the gateway; gives a function that publishes signed records."""
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        subscribed = threading.Event()
        client.on_subscribe = lambda *_: subscribed.set()
        client.username_pw_set(GATEWAY.gateway_id, "gateway-word")
        client.on_message = lambda _c, _u, message: self.receipts.append(
            decode_receipt(bytes(message.payload), self.cloud_key, verify_ed25519)
        )
        client.connect("127.0.0.1", self.mqtt_port)
        client.loop_start()
        client.subscribe(topic(GATEWAY.gateway_id, Channel.RECEIPTS), qos=1)
        assert subscribed.wait(90)

        def publish(*records: Record) -> None:
            message = GATEWAY.sends(*records)
            sent = client.publish(message.topic, message.payload, qos=1)
            sent.wait_for_publish(90)
            assert sent.is_published()

        try:
            yield publish
        finally:
            client.disconnect()
            client.loop_stop()

    def stamp(self, seq: int) -> Stamp:
        """Return the stamp of the seq-th quarter of an hour of the last day."""
        after_ms = seq * SLOT_MS
        return stamp(seq, mono_ms=after_ms, wall_ms=self.day_began_ms + after_ms)

    def durable_seqs(self) -> set[int]:
        """Return what receipts have said is stored of the meter."""
        ranges = [
            span
            for receipt in self.receipts
            for spans in receipt.durable.get(METER_ID, {}).values()
            for span in spans
        ]
        return {seq for first, last in ranges for seq in range(first, last + 1)}

    @contextmanager
    def store(self) -> Iterator[Database]:
        database = open_database(self.env["GTX_CLOUD_DATABASE_URL"])
        try:
            yield database
        finally:
            database.close()

    def number(self, sql: str) -> int:
        """Return the one number of a query."""
        with self.store() as database:
            return int(database.connection.execute(sql).fetchone()[0] or 0)

    def minted_wh(self) -> int:
        return self.number("SELECT sum(credit_wh) FROM meter_readings WHERE minted = 1")


@contextmanager
def installation(folder: Path, database_url: str | None = None) -> Iterator[Installation]:
    """Give a store, a broker and a chain with a token; the cloud itself is not started."""
    rpc_port, mqtt_port, http_port, ws_port, metrics_port = (free_port() for _ in range(5))
    users = {"cloud": MQTT_PASSWORD, GATEWAY.gateway_id: "gateway-word"}
    broker_folder = folder / "broker"
    broker_folder.mkdir()
    with _localnet(folder, rpc_port) as url, shipped_mosquitto(broker_folder, users, mqtt_port):
        authority, payer, cloud = Keypair(), Keypair(), Keypair()
        mint, genesis = asyncio.run(_make_token(url, payer, authority))
        secrets = {"mqtt-password": MQTT_PASSWORD, "marker-secret": MARKER_SECRET}
        for name, text in secrets.items():
            (folder / name).touch(mode=0o600)
            (folder / name).write_text(text)
        keys = {"mint-authority": authority, "fee-payer": payer, "cloud": cloud}
        for name, pair in keys.items():
            write_keypair(folder / name, pair)
        env = {
            "GTX_CLOUD_ENVIRONMENT": "development",
            "GTX_CLOUD_DATABASE_URL": database_url or f"sqlite:///{folder / 'cloud.db'}",
            "GTX_CLOUD_MQTT_URL": f"mqtt://127.0.0.1:{mqtt_port}",
            "GTX_CLOUD_MQTT_USERNAME": "cloud",
            "GTX_CLOUD_MQTT_PASSWORD": f"file:{folder / 'mqtt-password'}",
            "GTX_CLOUD_CLOUD_KEY": f"file:{folder / 'cloud'}",
            "GTX_CLOUD_SOLANA_RPC_URLS": url,
            "GTX_CLOUD_HTTP_BIND": f"127.0.0.1:{http_port}",
            "GTX_CLOUD_METRICS_BIND": f"127.0.0.1:{metrics_port}",
            "GTX_CLOUD_LOG_LEVEL": "debug",
            "WEBSOCKET_BIND": f"127.0.0.1:{ws_port}",
            "BLOCKCHAIN_MINT_ADDRESS": mint,
            "BLOCKCHAIN_GENESIS_HASH": genesis,
            "BLOCKCHAIN_MINT_AUTHORITY_KEY": f"file:{folder / 'mint-authority'}",
            "BLOCKCHAIN_FEE_PAYER_KEY": f"file:{folder / 'fee-payer'}",
            "BLOCKCHAIN_MARKER_SECRET": f"file:{folder / 'marker-secret'}",
            "TOKENIZATION_AUTO_TRIGGER_ON_SUBMIT": "true",
            "TOKENIZATION_POLLING_INTERVAL_SECS": "10",
        }
        made = gtx_cloud(env, "migrate")
        assert made.returncode == 0, made.stderr
        place = Installation(folder, env, http_port, mqtt_port, mint, bytes(cloud.pubkey()))
        with place.store() as database:
            enrol(SqlRegistry(database, SystemClock(), actor="test"))
        yield place


@contextmanager
def _localnet(folder: Path, port: int) -> Iterator[str]:
    state = ("--state-file", str(folder / "chain.db"))
    process = subprocess.Popen(
        [*GTX_CLOUD, "localnet", "--port", str(port), "--block-ms", "20", *state],
        env=environment({}),
        stdout=subprocess.DEVNULL,
        cwd=folder,
    )
    try:
        wait_for_port(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=90) == 0


async def _make_token(url: str, payer: Keypair, authority: Keypair) -> tuple[str, str]:
    rpc, endpoints = connect([url], 60)
    try:
        await airdrop(rpc, payer.pubkey(), _LAMPORTS)
        spec = MintSpec(TOKEN, 9, authority.pubkey())
        mint = await MintCreation(rpc, spec, LocalSigner(payer), LocalSigner(authority)).make()
        return str(mint), str(await rpc.call("getGenesisHash"))
    finally:
        for endpoint in endpoints:
            await endpoint.close()


def log_events(log: str) -> list[dict[str, object]]:
    """Return the JSON lines of a log."""
    return [json.loads(line) for line in log.splitlines() if line.startswith("{")]
