"""A client of the HTTP API over a store, with a clock that stands still."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx

from gridtokenx_cloud.adapters.http_api import build_api
from gridtokenx_cloud.adapters.limits import AccessLimits
from gridtokenx_cloud.adapters.store.database import Database
from gridtokenx_cloud.adapters.store.mint_audit import SqlAuditStore
from gridtokenx_cloud.adapters.store.views import SqlViews
from tests.support.store_rows import StoreRows

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@dataclass
class Api:
    """A client of the application, and what the application works with."""

    client: httpx.AsyncClient
    rows: StoreRows
    submitted: list[tuple[str, bytes]] = field(default_factory=list)
    fault: Exception | None = None
    not_ready: str | None = None

    def submit(self, gateway_id: str, payload: bytes) -> bytes:
        if self.fault is not None:
            raise self.fault
        self.submitted.append((gateway_id, payload))
        return b'{"v":1}'

    async def get(self, path: str, token: str | None = None) -> httpx.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return await self.client.get(f"/api/v1/{path}", headers=headers)


@asynccontextmanager
async def http_api(database: Database, origin: str, requests_per_minute: int) -> AsyncIterator[Api]:
    """Give a client of the application at *origin*, at noon of some day."""
    rows = StoreRows(database)
    # Noon, so that the day of the tests has a morning.
    rows.clock.at_ms = rows.clock.at_ms // DAY_MS * DAY_MS + 12 * HOUR_MS
    parts: list[Api] = []
    app = build_api(
        sessions=rows.access,
        views=SqlViews(rows.database, rows.clock),
        clock=rows.clock,
        submit=lambda gateway_id, payload: parts[0].submit(gateway_id, payload),
        proofs=SqlAuditStore(rows.database).proof_source,
        ready_checks={"store": lambda: parts[0].not_ready},
        ws_url="wss://grid.example/ws",
        allowed_origins=(origin,),
        secure_cookies=True,
        mint_address="Mint111",
        decimals=9,
        limits=AccessLimits(rows.clock, requests_per_minute),
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url=origin) as client:
        parts.append(Api(client, rows))
        yield parts[0]
    rows.database.close()
