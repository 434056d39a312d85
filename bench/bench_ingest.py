"""Readings per second from the broker to a committed store, receipts sent, every line verified.

Real mosquitto, real worker processes, SQLite and PostgreSQL (fsync on); 100 gateways of one meter
each, one line per message and fifteen. `of_bare_verification` compares with a loop that only
checks the signatures of the same lines, on one core. Publisher, broker, database and workers share
this machine's cores, so two workers show what is left of them. Prints one JSON line.
Run: `python -m bench.bench_ingest`.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import paho.mqtt.client as mqtt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paho.mqtt.enums import CallbackAPIVersion

from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.verifier import verify
from gridtokenx_cloud.ingest import Message
from gridtokenx_wire import base58
from gridtokenx_wire.signing import open_sealed
from tests.support import build_cloud as build
from tests.support.mosquitto import find_mosquitto, free_port, wait_for_port
from tests.support.postgres import running_postgres
from tests.support.stores import migrated

GATEWAYS = 100
SLOTS = {1: 120, 15: 300}
LINE_DOMAIN_SAMPLE = 2_000
LONGEST_S = 240.0
GATEWAY_KEYS = [
    build.Gateway(Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big")))
    for number in range(1, GATEWAYS + 1)
]


def messages(lines_per_message: int) -> Iterator[Message]:
    """Yield every gateway's slots, the gateways in turn."""
    slots = SLOTS[lines_per_message]
    for first in range(1, slots + 1, lines_per_message):
        for number, gateway in enumerate(GATEWAY_KEYS):
            yield gateway.sends(
                *(
                    build.slot(at=build.stamp(seq, meter_id=f"M-{number}"), export_wh=seq * 100)
                    for seq in range(first, first + lines_per_message)
                )
            )


def publish(port: int, lines_per_message: int) -> None:
    """Sign, wait for a line on stdin, and send as fast as the broker takes it."""
    ready = list(messages(lines_per_message))
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.max_inflight_messages_set(1_000)
    client.connect("127.0.0.1", port)
    client.loop_start()
    print("ready", flush=True)
    sys.stdin.readline()
    sent = [client.publish(message.topic, message.payload, qos=1) for message in ready]
    sent[-1].wait_for_publish(LONGEST_S)
    client.disconnect()


def bare_verifications_per_s() -> float:
    """Return how many lines a second one core checks that does nothing else."""
    lines = [message.payload for message in messages(1)][:LINE_DOMAIN_SAMPLE]
    keys = [base58.decode_key(gateway.gateway_id) for gateway in GATEWAY_KEYS]
    started = time.perf_counter()
    for number, line in enumerate(lines):
        key = keys[number % GATEWAYS]
        open_sealed(line, b"gridtokenx/v1\n", key, verify)
    return len(lines) / (time.perf_counter() - started)


def enrol(database: Database) -> None:
    """Enrol the gateways, a meter and an owner each."""
    with database.transaction() as tx:
        for number, gateway in enumerate(GATEWAY_KEYS):
            owner, meter = f"user-{number}", f"M-{number}"
            tx.execute("INSERT INTO users VALUES (?, ?, 0)", (owner, f"wallet-{number}"))
            tx.execute(
                "INSERT INTO gateways VALUES (?, 'bench', 'active', 0)", (gateway.gateway_id,)
            )
            tx.execute(
                "INSERT INTO meters VALUES (?, ?, ?, 10000, 1, 'first', 0)",
                (meter, gateway.gateway_id, owner),
            )


@contextmanager
def broker(folder: Path) -> Iterator[int]:
    """Run a mosquitto that lets everybody in."""
    port = free_port()
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n"
        "max_queued_messages 0\nmax_inflight_messages 1000\npersistence false\nuser root\n"
    )
    with subprocess.Popen(
        [find_mosquitto() or "mosquitto", "-c", str(config)], stderr=subprocess.DEVNULL
    ) as process:
        wait_for_port(port, process)
        try:
            yield port
        finally:
            process.terminate()


@contextmanager
def child(*arguments: str, **pipes: int) -> Iterator[subprocess.Popen[str]]:
    """Run a module of ours until the end."""
    with subprocess.Popen([sys.executable, "-m", *arguments], text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.terminate()


def pipe(stream: IO[str] | None) -> IO[str]:
    """Return a stream that is there."""
    assert stream is not None
    return stream


def measure(url: str, workers: int, lines_per_message: int) -> float:
    """Return lines per second from the first message to the last commit."""
    database = migrated(url)
    enrol(database)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gtx-bench-")))
        port = stack.enter_context(broker(folder))
        place = (url, f"mqtt://127.0.0.1:{port}", "cloud", "word", "none")
        for _ in range(workers):
            stack.enter_context(child("tests.support.ingest_worker", *place))
        publisher = stack.enter_context(
            child(
                "bench.bench_ingest",
                *("publish", str(port), str(lines_per_message)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )
        pipe(publisher.stdout).readline()
        time.sleep(3)  # the workers have subscribed
        started = time.perf_counter()
        pipe(publisher.stdin).write("go\n")
        pipe(publisher.stdin).flush()
        wait_until_stored(database, GATEWAYS * SLOTS[lines_per_message])
        seconds = time.perf_counter() - started
    database.close()
    return GATEWAYS * SLOTS[lines_per_message] / seconds


def wait_until_stored(database: Database, lines: int) -> None:
    """Return once the sequence ledger holds that many."""
    deadline = time.monotonic() + LONGEST_S
    asked = "SELECT coalesce(sum(last_seq - first_seq + 1), 0) FROM seq_ranges"
    while (stored := database.connection.execute(asked).fetchone()[0]) < lines:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{stored} of {lines} lines after {LONGEST_S:g} s")
        time.sleep(0.05)


def main() -> None:
    """Measure every combination and print one JSON line."""
    bare = bare_verifications_per_s()
    result: dict[str, object] = {"bench": "ingest", "bare_verifications_per_s": round(bare)}
    with running_postgres(fsync=True) as server, tempfile.TemporaryDirectory() as folder:
        for lines_per_message in SLOTS:
            for name, workers in (("sqlite", 1), ("postgresql", 1), ("postgresql", 2)):
                url = f"sqlite:///{folder}/{lines_per_message}.db"
                if name == "postgresql":
                    url = server.new_database()
                rate = measure(url, workers, lines_per_message)
                label = f"{name}, {workers} worker, {lines_per_message} lines a message"
                share = round(rate / bare, 2)
                result[label] = {"lines_per_s": round(rate), "of_bare_verification": share}
    print(json.dumps(result))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        publish(int(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
