"""Who asks: a browser session in a cookie, or an API token in the Authorization header."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Response

from gridtokenx_cloud.adapters.http_api.problems import ProblemError
from gridtokenx_cloud.ports.admin import Administration
from gridtokenx_cloud.ports.api import Sessions, Views
from gridtokenx_cloud.ports.common import Clock
from gridtokenx_cloud.ports.events import Principal
from gridtokenx_cloud.proof import ProofSource

Submit = Callable[[str, bytes], bytes]
"""Takes gateway id and payload; returns the signed receipt once the lines are durable."""
Proofs = Callable[[int], ProofSource]
"""Takes a reading's id; raises `NotFoundError` when it is not minted."""
ReadyCheck = Callable[[], str | None]
"""Returns what is not ready, in words; None = ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiParts:
    """What the routes work with.

    Attributes:
        ws_url: Where browsers find the events, such as `wss://host/ws`.
        allowed_origins: Exact origins (scheme, host, port) of our own pages.
        secure_cookies: False only where the page is served over plain HTTP.
        mint_address: The token's address, for the page.
        decimals: The token's decimals.
        administration: What the admin routes work with; None = there are none.
    """

    sessions: Sessions
    views: Views
    clock: Clock
    submit: Submit
    proofs: Proofs
    ready_checks: Mapping[str, ReadyCheck]
    ws_url: str
    allowed_origins: tuple[str, ...]
    secure_cookies: bool
    mint_address: str
    decimals: int
    administration: Administration | None = None

    @property
    def cookie_name(self) -> str:
        """Name of the session cookie; the prefix pins it to this host and to TLS."""
        return "__Host-gtx_session" if self.secure_cookies else "gtx_session"


def parts_of(request: Request) -> ApiParts:
    """Return the parts this application was built with."""
    parts: ApiParts = request.app.state.parts
    return parts


Parts = Annotated[ApiParts, Depends(parts_of)]


def check_origin(request: Request, parts: Parts) -> None:
    """Refuse a browser that acts for another site; programs send no Origin but a bearer token."""
    origin = request.headers.get("origin")
    if origin is None:
        if "authorization" in request.headers or "cookie" not in request.headers:
            return
    elif origin in parts.allowed_origins:
        return
    raise ProblemError(403, "foreign_origin", "this site may not act for the signed-in user")


def identify(request: Request, parts: Parts) -> Principal:
    """Return who asks, or refuse with 401."""
    principal = None
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        principal = parts.sessions.authenticate(token.strip())
    elif session := request.cookies.get(parts.cookie_name):
        principal = parts.sessions.session(session)
    if principal is None:
        raise ProblemError(401, "not_signed_in", "sign in with an API token")
    return principal


OwnOrigin = Depends(check_origin)
Caller = Annotated[Principal, Depends(identify)]


def set_session_cookie(response: Response, parts: ApiParts, session: str, max_age_s: int) -> None:
    """Give the browser its session; no script and no other site can use it."""
    response.set_cookie(
        parts.cookie_name,
        session,
        max_age=max_age_s,
        path="/",
        httponly=True,
        secure=parts.secure_cookies,
        samesite="strict",
    )


def clear_session_cookie(response: Response, parts: ApiParts) -> None:
    """Take the session from the browser."""
    response.delete_cookie(
        parts.cookie_name,
        path="/",
        httponly=True,
        secure=parts.secure_cookies,
        samesite="strict",
    )
