"""From a commit to 100 browser-like connections: how long an event takes.

The store and the events server run in this process, the clients in another one, as browsers do;
both read the machine's monotonic clock. Prints one JSON line. Run: `python -m bench.bench_events`.
"""

import asyncio
import json
import multiprocessing
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import quantiles

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from gridtokenx_cloud.adapters.limits import AccessLimits
from gridtokenx_cloud.adapters.store.events import SqlEventStore
from gridtokenx_cloud.adapters.websocket_api import EventServer, EventServerLimits
from gridtokenx_cloud.broadcast import Broadcast, BroadcastLimits
from gridtokenx_cloud.events import ADMIN_STREAM
from tests.support import build_events as build
from tests.support.store_rows import StoreRows

CONNECTIONS = 100
EVENTS = 300
EVENTS_PER_S = 20
FLOOR_P99_MS = 100.0


async def _listen(port: int, token: str, pipe: Connection) -> None:
    """Open all connections, say so, then note when each event came."""
    headers = {"Authorization": f"Bearer {token}"}
    sockets = [
        await connect(
            f"ws://127.0.0.1:{port}/ws",
            subprotocols=[Subprotocol("gridtokenx.v1")],
            additional_headers=headers,
            compression=None,
            proxy=None,
        )
        for _ in range(CONNECTIONS)
    ]
    for ws in sockets:
        await ws.send('{"op":"connect"}')
        await ws.recv()
    pipe.send("ready")
    arrivals = await asyncio.gather(*(_note(ws) for ws in sockets))
    pipe.send(arrivals)
    for ws in sockets:
        await ws.close()


async def _note(ws: ClientConnection) -> list[int]:
    arrived_ns: list[int] = []
    while len(arrived_ns) < EVENTS:
        frame = await ws.recv()
        now_ns = time.monotonic_ns()
        if json.loads(frame)["op"] == "ev":
            arrived_ns.append(now_ns)
    return arrived_ns


def _clients(port: int, token: str, pipe: Connection) -> None:
    asyncio.run(_listen(port, token, pipe))


def _commit_all(rows: StoreRows, server: EventServer) -> list[int]:
    """Commit at a steady rate; return when each commit was done."""
    committed_ns = []
    began = time.monotonic()
    for number in range(EVENTS):
        time.sleep(max(0.0, began + number / EVENTS_PER_S - time.monotonic()))
        rows.event((ADMIN_STREAM,), build.slot(reading_id=number))
        committed_ns.append(time.monotonic_ns())
        server.wake()
    return committed_ns


def main() -> int:
    """Measure, print one line, and return 1 when the floor is missed."""
    with tempfile.TemporaryDirectory() as folder:
        rows = StoreRows(Path(folder) / "cloud.db")
        limits = BroadcastLimits(per_user=CONNECTIONS)
        hub = Broadcast(SqlEventStore(rows.database), rows.clock, limits)
        tuned = EventServerLimits(tune_gc=True)
        server = EventServer(
            "127.0.0.1", 0, hub, rows.access, (), AccessLimits(rows.clock, 100_000), tuned
        )
        server.start()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        clients = context.Process(target=_clients, args=(server.port, rows.staff(), theirs))
        clients.start()
        ours.recv()
        committed_ns = _commit_all(rows, server)
        arrivals: list[list[int]] = ours.recv()
        clients.join()
        server.stop()
        rows.database.close()
    latencies_ms = [
        (arrived - committed) / 1e6
        for connection in arrivals
        for committed, arrived in zip(committed_ns, connection, strict=True)
    ]
    cuts = quantiles(latencies_ms, n=100)
    result = {
        "bench": "events",
        "connections": CONNECTIONS,
        "events": EVENTS,
        "events_per_s": EVENTS_PER_S,
        "p50_ms": round(cuts[49], 2),
        "p99_ms": round(cuts[98], 2),
        "max_ms": round(max(latencies_ms), 2),
        "floor_p99_ms": FLOOR_P99_MS,
        "ok": cuts[98] < FLOOR_P99_MS,
    }
    print(json.dumps(result))
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
