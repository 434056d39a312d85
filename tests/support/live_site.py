"""The page, the HTTP API and the events server on loopback, over one store."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from gridtokenx_cloud.adapters.http_api import build_api
from gridtokenx_cloud.adapters.limits import AccessLimits
from gridtokenx_cloud.adapters.store.events import SqlEventStore
from gridtokenx_cloud.adapters.store.mint_audit import SqlAuditStore
from gridtokenx_cloud.adapters.store.views import SqlViews
from gridtokenx_cloud.adapters.websocket_api import EventServer, EventServerLimits
from gridtokenx_cloud.broadcast import Broadcast, BroadcastLimits
from tests.support.ports import free_port
from tests.support.store_rows import StoreRows


def refuse_readings(gateway_id: str, payload: bytes) -> bytes:
    raise AssertionError(f"{gateway_id} sent {payload!r} to a site without ingest")


def event_server(
    rows: StoreRows,
    *,
    origins: tuple[str, ...] = ("http://page.test",),
    port: int = 0,
    limits: BroadcastLimits | None = None,
    server_limits: EventServerLimits | None = None,
    access_limits: AccessLimits | None = None,
) -> EventServer:
    """Return a started events server over the store of *rows*."""
    hub = Broadcast(SqlEventStore(rows.database), rows.clock, limits)
    server = EventServer(
        "127.0.0.1",
        port,
        hub,
        rows.access,
        origins,
        access_limits or AccessLimits(rows.clock, 100_000),
        server_limits or EventServerLimits(poll_interval_s=0.05),
    )
    server.start()
    return server


@dataclass
class Site:
    """Where a browser finds the page; `events` may be replaced to play a restart."""

    url: str
    events: EventServer
    restart_events: Callable[[], EventServer]


@contextmanager
def live_site(rows: StoreRows) -> Iterator[Site]:
    """Serve everything until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
    # A port of its own, so that nobody has it while the server is away.
    events = event_server(rows, origins=(origin,), port=free_port())
    app = build_api(
        sessions=rows.access,
        views=SqlViews(rows.database, rows.clock),
        clock=rows.clock,
        submit=refuse_readings,
        proofs=SqlAuditStore(rows.database).proof_source,
        ready_checks={},
        ws_url=f"ws://127.0.0.1:{events.port}/ws",
        allowed_origins=(origin,),
        secure_cookies=False,
        mint_address="mint",
        decimals=9,
    )
    http = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none"))
    thread = threading.Thread(target=http.run, kwargs={"sockets": [listener]})
    thread.start()
    port = events.port
    site = Site(origin, events, lambda: event_server(rows, origins=(origin,), port=port))
    try:
        yield site
    finally:
        site.events.stop()
        http.should_exit = True
        thread.join()
        listener.close()
