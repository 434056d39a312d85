"""Who asks: a browser session in a cookie, or an API token in the Authorization header."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request, Response

from gridtokenx_cloud.adapters.http_api.problems import ProblemError, too_often
from gridtokenx_cloud.adapters.limits import AccessLimits
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
        limits: How often a token may ask, and an address may be wrong.
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
    limits: AccessLimits
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


def address_of(request: Request, parts: Parts) -> str:
    """Return by what a client without a token is counted."""
    peer = "" if request.client is None else request.client.host
    return parts.limits.address_of(peer, request.headers.get("x-forwarded-for"))


Address = Annotated[str, Depends(address_of)]


def identify(request: Request, parts: Parts, address: Address) -> Principal:
    """Return who asks, or refuse with 401; with 429 who asks or guesses too often."""
    principal = None
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        principal = parts.sessions.authenticate(token.strip())
    elif session := request.cookies.get(parts.cookie_name):
        principal = parts.sessions.session(session)
    else:
        raise _not_signed_in()
    if principal is None:
        if wait_s := parts.limits.failed(address):
            raise too_often("too many wrong tokens from your address", wait_s)
        raise _not_signed_in()
    if wait_s := parts.limits.request_wait_s(principal.token_hash):
        raise too_often(f"token {principal.label!r} is used too often", wait_s)
    return principal


def _not_signed_in() -> ProblemError:
    return ProblemError(401, "not_signed_in", "sign in with an API token")


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
