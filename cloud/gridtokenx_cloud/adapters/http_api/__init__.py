"""The HTTP API and the page, as one FastAPI application; somebody else runs it."""

from collections.abc import Mapping
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

from gridtokenx_cloud.adapters.http_api import (
    auth_routes,
    connection_routes,
    control_routes,
    data_routes,
    minting_routes,
    problems,
    proof_routes,
    reading_routes,
    registry_routes,
)
from gridtokenx_cloud.adapters.http_api.guard import Guard, security_headers
from gridtokenx_cloud.adapters.http_api.identity import (
    ApiParts,
    Proofs,
    ReadyCheck,
    Submit,
    parts_of,
)
from gridtokenx_cloud.adapters.limits import AccessLimits
from gridtokenx_cloud.ports.admin import Administration
from gridtokenx_cloud.ports.api import Sessions, Views
from gridtokenx_cloud.ports.common import Clock

__all__ = ["Proofs", "ReadyCheck", "Submit", "build_api"]

_REQUESTS_PER_MINUTE = 1_000
_WEB = Path(__file__).parents[2] / "web"


def build_api(
    *,
    sessions: Sessions,
    views: Views,
    clock: Clock,
    submit: Submit,
    proofs: Proofs,
    ready_checks: Mapping[str, ReadyCheck],
    ws_url: str,
    allowed_origins: tuple[str, ...],
    secure_cookies: bool,
    mint_address: str,
    decimals: int,
    administration: Administration | None = None,
    limits: AccessLimits | None = None,
) -> FastAPI:
    """Return the application.

    Args:
        sessions: Tokens, sessions and tickets.
        views: What may be looked at.
        clock: The wall clock.
        proofs: What proves a minted reading.
        submit: Takes gateway id and payload of signed lines; returns the signed receipt.
        ready_checks: Name -> check that returns None, or what is not ready in words.
        ws_url: Where browsers find the events server, such as `wss://host/ws`.
        allowed_origins: Exact origins (scheme, host, port) under which the page is served.
        secure_cookies: False only where the page is served over plain HTTP.
        mint_address: The token's address.
        decimals: The token's decimals.
        administration: What the admin routes work with; None leaves them out.
        limits: How often a token may ask, and an address may be wrong.
    """
    # The framework's own documentation pages load scripts from elsewhere: left out.
    app = FastAPI(
        title="GridTokenX",
        version="1",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.parts = ApiParts(
        sessions=sessions,
        views=views,
        clock=clock,
        submit=submit,
        proofs=proofs,
        ready_checks=ready_checks,
        ws_url=ws_url,
        allowed_origins=allowed_origins,
        secure_cookies=secure_cookies,
        mint_address=mint_address,
        decimals=decimals,
        limits=limits or AccessLimits(clock, _REQUESTS_PER_MINUTE),
        administration=administration,
    )
    problems.install(app)
    app.add_middleware(Guard, headers=security_headers(ws_url))
    routers = [auth_routes.router, data_routes.router, reading_routes.router, proof_routes.router]
    if administration is not None:
        routers += [
            control_routes.router,
            minting_routes.router,
            connection_routes.router,
            registry_routes.router,
        ]
    for router in routers:
        app.include_router(router, prefix="/api/v1", responses=problems.DOCUMENTED)
    app.add_api_route("/healthz", _healthz, include_in_schema=False)
    app.add_api_route("/readyz", _readyz, include_in_schema=False)
    app.add_api_route("/", _page, include_in_schema=False)
    app.add_api_route("/proof", proof_routes.proof_page, include_in_schema=False)
    app.mount("/web", StaticFiles(directory=_WEB))
    return app


async def _healthz() -> dict[str, str]:
    return {"status": "ok"}


def _readyz(request: Request) -> JSONResponse:
    checks = parts_of(request).ready_checks
    faults = {name: fault for name, check in checks.items() if (fault := check()) is not None}
    if faults:
        return JSONResponse({"status": "not_ready", "faults": faults}, 503)
    return JSONResponse({"status": "ready"})


async def _page() -> FileResponse:
    return FileResponse(_WEB / "index.html", headers={"Cache-Control": "no-cache"})
