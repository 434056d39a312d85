"""Signing in and out, and tickets for the events server."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from gridtokenx_cloud.adapters.http_api.identity import (
    Address,
    Caller,
    OwnOrigin,
    Parts,
    clear_session_cookie,
    set_session_cookie,
)
from gridtokenx_cloud.adapters.http_api.problems import ProblemError, too_often
from gridtokenx_cloud.events import rfc3339
from gridtokenx_cloud.ports.events import Principal

TICKET_TTL_S = 30
router = APIRouter(tags=["access"])


class SignIn(BaseModel):
    """An API token, given once for a session."""

    model_config = ConfigDict(extra="forbid")

    token: Annotated[str, Field(min_length=1, max_length=200)]


class Me(BaseModel):
    """Who is signed in."""

    role: str
    user_id: str | None
    label: str
    expires_at: str | None


class Ticket(BaseModel):
    """Leave to open one connection to the events server."""

    ticket: str
    url: str
    expires_in: int


def _me(principal: Principal) -> Me:
    expires_at_ms = principal.expires_at_ms
    return Me(
        role=principal.role,
        user_id=principal.user_id,
        label=principal.label,
        expires_at=None if expires_at_ms is None else rfc3339(expires_at_ms),
    )


@router.post("/auth/session", status_code=201, dependencies=[OwnOrigin])
def sign_in(body: SignIn, response: Response, parts: Parts, address: Address) -> Me:
    """Exchange an API token for a session cookie; ten wrong ones a minute are enough."""
    if wait_s := parts.limits.sign_in_wait_s(address):
        raise too_often("too many wrong tokens from your address", wait_s)
    opened = parts.sessions.open_session(body.token.strip(), address)
    if opened is None:
        parts.limits.failed(address)
        raise ProblemError(
            401, "invalid_token", "this token is unknown, expired or revoked; ask for a new one"
        )
    session, principal = opened
    ends_ms = principal.expires_at_ms or 0
    set_session_cookie(response, parts, session, (ends_ms - parts.clock.now_ms()) // 1000)
    return _me(principal)


@router.delete("/auth/session", status_code=204, dependencies=[OwnOrigin])
def sign_out(request: Request, response: Response, parts: Parts) -> None:
    """End the session; its connections close within a second."""
    if session := request.cookies.get(parts.cookie_name):
        parts.sessions.close_session(session)
    clear_session_cookie(response, parts)


@router.get("/me")
def me(caller: Caller) -> Me:
    """Say who is signed in."""
    return _me(caller)


@router.post("/ws-tickets", status_code=201, dependencies=[OwnOrigin])
def ticket(caller: Caller, parts: Parts) -> Ticket:
    """Give a ticket for the first message of one connection; it is never put in a URL."""
    return Ticket(
        ticket=parts.sessions.issue_ticket(caller), url=parts.ws_url, expires_in=TICKET_TTL_S
    )
