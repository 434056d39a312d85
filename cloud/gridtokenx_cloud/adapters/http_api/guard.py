"""Around every request: its id, the size of its body, and the headers of its answer."""

import logging
import re
import secrets
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gridtokenx_cloud.adapters.http_api.problems import internal_problem

_log = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
MAX_BODY_BYTES = 131_072


def security_headers(ws_url: str) -> dict[str, str]:
    """Return what every answer carries; the page may talk to us and to *ws_url* only."""
    policy = (
        "default-src 'self'",
        f"connect-src 'self' {ws_url}",
        "img-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    return {
        "Content-Security-Policy": "; ".join(policy),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    }


class Guard:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, headers: Mapping[str, str]) -> None:
        self._app = app
        self._headers = headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        wanted = Headers(scope=scope).get("x-request-id", "")
        correlation_id = wanted if _REQUEST_ID.fullmatch(wanted) else secrets.token_hex(8)
        scope.setdefault("state", {})["correlation_id"] = correlation_id

        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
                headers["X-Request-ID"] = correlation_id
                if scope["path"].startswith("/api/"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            await self._app(scope, _Bounded(scope, receive), answer)
        except Exception:  # noqa: BLE001 - last resort: a bug must still answer, and say nothing
            _log.exception(
                "request failed",
                extra={"correlation_id": correlation_id, "path": scope["path"]},
            )
            if not started:
                await internal_problem(Request(scope))(scope, receive, answer)


class _Bounded:
    """Counts a body as it comes in; what a client says about its length is not believed."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self._seen = 0
        declared = Headers(scope=scope).get("content-length", "0")
        self._too_large = declared.isdecimal() and int(declared) > MAX_BODY_BYTES

    async def __call__(self) -> Message:
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        if self._too_large or self._seen > MAX_BODY_BYTES:
            raise HTTPException(413, f"send at most {MAX_BODY_BYTES} bytes at once")
        return message
