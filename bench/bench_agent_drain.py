"""A week without internet ends: how long the backlog takes, and what a live slot waits.

Ten meters, a sample every 10 s and a slot every 15 min for seven days wait in the buffer's file,
none of them thinned. The publisher sends them through a real mosquitto to a stub of the cloud in
another process, which signs receipts; meanwhile a live slot is committed every second. Floors:
under ten minutes, no live slot more than a second late. `--days 1` is quicker.

Prints one JSON line. Run: `python -m bench.bench_agent_drain`.
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from bench.agent_rig import pin, resident_mb
from demo.processes import free_port
from gridtokenx_agent.adapters.mqtt import MqttAddress, MqttLink
from gridtokenx_agent.adapters.sqlite_buffer import SqliteBuffer, open_buffer
from gridtokenx_agent.adapters.system import SystemClock
from gridtokenx_agent.ports import NewRow
from gridtokenx_agent.publish import Publisher, PublisherParts
from gridtokenx_wire.encoding import encode_line, line_hash, parse_line, split_lines
from gridtokenx_wire.receipt import Receipt
from gridtokenx_wire.record import (
    FIRST_PREV,
    ClockQuality,
    LiveValues,
    SampleRecord,
    SlotRecord,
    Stamp,
)
from gridtokenx_wire.topics import Channel, parse_topic, topic
from tests.support import build
from tests.support.mosquitto import shipped_mosquitto

METERS = 10
SAMPLE_S = 10
SLOT_S = 900
DAY_S = 86_400
LIVE_EVERY_S = 1.0
LIVE_METER = "LIVE"
ROWS_PER_COMMIT = 2000
BUFFER_MB = 1024
FLOOR_DRAIN_S = 600
FLOOR_LATE_S = 1.0
GIVE_UP_S = 900
LIVE = LiveValues(
    active_power_w=-1234, voltage_mv=230_100, current_ma=5_250, frequency_mhz=49_980,
    power_factor_milli=985,
)  # fmt: skip


def week(meter_id: str, days: int) -> Iterator[NewRow]:
    """Yield what one meter recorded, oldest first."""
    prev = FIRST_PREV
    seq = 0
    for at_s in range(0, days * DAY_S, SAMPLE_S):
        due = [False] if at_s % SLOT_S else [True, False]
        for is_slot in due:
            seq += 1
            stamp = stamp_of(meter_id, seq, build.NOON_MS + at_s * 1000)
            if is_slot:
                row = slot_row(stamp, prev, opens=prev == FIRST_PREV)
                prev = line_hash(row.line)
                yield row
            else:
                line = encode_line(SampleRecord(stamp=stamp, live=LIVE), build.SIGNER.sign)
                yield NewRow(
                    epoch=build.EPOCH, seq=seq, kind="sample", wall_ms=stamp.wall_ms, line=line
                )


def stamp_of(meter_id: str, seq: int, wall_ms: int) -> Stamp:
    """Return the stamp of one line."""
    return Stamp(
        meter_id=meter_id,
        epoch=build.EPOCH,
        seq=seq,
        boot_id="0123456789abcdef" * 2,
        mono_ms=wall_ms - build.NOON_MS,
        wall_ms=wall_ms,
        clock=ClockQuality.SYNCHRONISED,
    )


def slot_row(stamp: Stamp, prev: str, *, opens: bool) -> NewRow:
    """Return a signed slot."""
    record = SlotRecord(
        stamp=stamp, interval_s=SLOT_S, import_wh=stamp.seq, export_wh=0, token=build.TOKEN,
        prev=prev, live=LIVE,
    )  # fmt: skip
    line = encode_line(record, build.SIGNER.sign)
    return NewRow(
        epoch=build.EPOCH, seq=stamp.seq, kind="slot", wall_ms=stamp.wall_ms, line=line, opens=opens
    )


async def fill(buffer: SqliteBuffer, days: int) -> int:
    """Put a week of every meter into the buffer."""
    total = 0
    for number in range(METERS):
        meter_id = f"M{number}"
        rows: list[NewRow] = []
        for row in week(meter_id, days):
            rows.append(row)
            if len(rows) == ROWS_PER_COMMIT:
                await buffer.commit(build.state(meter_id, row.seq), rows, {})
                total, rows = total + len(rows), []
        if rows:
            await buffer.commit(build.state(meter_id, rows[-1].seq), rows, {})
            total += len(rows)
    return total


def cloud(port: int, pipe: Connection) -> None:
    """Take lines, sign receipts for them, and note when live slots came."""
    pin(last=True)
    seen: dict[str, Any] = {"lines": 0, "live_s": {}}

    def on_message(client: Client, _data: Any, message: MQTTMessage) -> None:
        now_s = time.monotonic()
        gateway_id, _ = parse_topic(message.topic)
        durable: dict[str, dict[str, tuple[tuple[int, int], ...]]] = {}
        for line in split_lines(bytes(message.payload)):
            stamp = parse_line(line).stamp
            seen["lines"] += 1
            if stamp.meter_id == LIVE_METER:
                seen["live_s"].setdefault(stamp.seq, now_s)
            epochs = durable.setdefault(stamp.meter_id, {})
            epochs[stamp.epoch] = (*epochs.get(stamp.epoch, ()), (stamp.seq, stamp.seq))
        receipt = Receipt(gateway_id=gateway_id, issued_ms=1, durable=durable)
        client.publish(topic(gateway_id, Channel.RECEIPTS), build.sealed(receipt), qos=1)

    def on_connect(client: Client, *_: Any) -> None:
        client.subscribe("gridtokenx/v1/+/readings", 1)

    client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.username_pw_set("cloud", "cloud-word")
    client.on_message = on_message
    client.on_connect = on_connect
    client.on_subscribe = lambda *_: pipe.send("ready")
    client.connect("127.0.0.1", port)
    client.loop_start()
    while pipe.recv() == "seen":
        pipe.send(seen)
    client.disconnect()


async def drain(buffer: SqliteBuffer, port: int, pipe: Connection, total: int) -> dict[str, Any]:
    """Send everything while live slots come; return the figures."""
    clock = SystemClock()
    wake = asyncio.Event()
    gateway_id = build.SIGNER.gateway_id
    address = MqttAddress(
        url=f"mqtt://127.0.0.1:{port}",
        client_id=gateway_id,
        username=gateway_id,
        password="gateway-word",  # noqa: S106 - a broker of this run alone
    )
    publisher = Publisher(
        PublisherParts(
            link=MqttLink(address, wake.set),
            outbox=buffer,
            signer=build.SIGNER,
            cloud_key=build.CLOUD_KEY,
            clock=clock,
            jitter=lambda _: 0.0,
            software="bench",
            beat=lambda *_: None,
            wake=wake,
        )
    )
    committed_s: dict[int, float] = {}
    began_s, cpu_s = time.monotonic(), time.process_time()
    task = asyncio.create_task(publisher.run())
    prev = FIRST_PREV
    seq = 0
    while True:
        seq += 1
        row = slot_row(
            stamp_of(LIVE_METER, seq, clock.now().wall_ms), prev, opens=prev == FIRST_PREV
        )
        prev = line_hash(row.line)
        asked_s = time.monotonic()
        await buffer.commit(build.state(LIVE_METER, seq), [row], {})
        committed_s[seq] = asked_s
        wake.set()
        await asyncio.sleep(LIVE_EVERY_S)
        pipe.send("seen")
        seen = await asyncio.to_thread(pipe.recv)
        elapsed_s = time.monotonic() - began_s
        if seen["lines"] >= total + len(committed_s) or elapsed_s > GIVE_UP_S:
            break
    cpu_s = time.process_time() - cpu_s
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    late_s = [seen["live_s"].get(seq, time.monotonic()) - at for seq, at in committed_s.items()]
    return {
        "lines": seen["lines"],
        "drain_s": round(elapsed_s, 1),
        "lines_per_s": round(seen["lines"] / elapsed_s),
        "live_slots": len(late_s),
        "live_delay_s": {
            "median": round(statistics.median(late_s), 3),
            "max": round(max(late_s), 3),
        },
        "cpu_percent": round(100 * cpu_s / elapsed_s, 1),
        "resident_mb": round(resident_mb(), 1),
    }


def main() -> int:
    """Measure, print one line, and return 1 when a floor is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--days", type=int, default=7)
    days = parser.parse_args().days
    context = multiprocessing.get_context("spawn")
    pin()
    with tempfile.TemporaryDirectory(prefix="gtx-bench-") as place:
        folder = Path(place)
        path = folder / "buffer.db"
        buffer = open_buffer(path, build.SIGNER.gateway_id, BUFFER_MB, 900, build.NOON_MS)
        total = asyncio.run(fill(buffer, days))
        file_mb = path.stat().st_size / 1e6
        port = free_port()
        users = {build.SIGNER.gateway_id: "gateway-word", "cloud": "cloud-word"}
        with shipped_mosquitto(folder, users, port):
            ours, theirs = context.Pipe()
            stub = context.Process(target=cloud, args=(port, theirs))
            stub.start()
            ours.recv()
            found = asyncio.run(drain(buffer, port, ours, total))
            ours.send("end")
            stub.join(10)
            stub.kill()
        buffer.close()
    ok = found["drain_s"] < FLOOR_DRAIN_S and found["live_delay_s"]["max"] <= FLOOR_LATE_S
    found = {"bench": "agent_drain", "days": days, "backlog": total, **found}
    print(json.dumps({**found, "buffer_mb": round(file_mb, 1), "ok": ok}))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
