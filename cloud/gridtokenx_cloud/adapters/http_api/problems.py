"""Every refusal as RFC 9457 problem+json, with a stable code and nothing secret."""

import http
import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gridtokenx_cloud.errors import (
    ConfigError,
    FixedSettingError,
    FloodedError,
    NotFoundError,
    TransientError,
    ValidationError,
)

_log = logging.getLogger(__name__)
_RETRY_AFTER_S = "5"

_CODES = {
    400: "malformed",
    401: "not_signed_in",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "conflict",
    413: "too_large",
    415: "unsupported_media_type",
    422: "invalid",
    429: "too_many_requests",
    503: "unavailable",
}


_SCHEMA = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail", "correlation_id"],
    "properties": {
        "type": {"type": "string", "description": "Stable URN of the kind of problem"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "Stable name of the reason"},
        "detail": {"type": "string", "description": "One sentence that names the way out"},
        "correlation_id": {"type": "string", "description": "The id in our log"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "reason": {"type": "string"}},
            },
        },
    },
}
_CONTENT = {"application/problem+json": {"schema": _SCHEMA}}
DOCUMENTED: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "Refused; the problem says why", "content": _CONTENT},
    "5XX": {"description": "A fault or a pause on our side", "content": _CONTENT},
}
"""What each route's description says of its refusals."""


class ProblemError(Exception):
    """A refusal of this API.

    Attributes:
        status: HTTP status.
        code: Stable name of the reason, `snake_case`.
        detail: One sentence that names the way out.
        retry_after_s: When to come back, if that helps.
    """

    def __init__(
        self, status: int, code: str, detail: str, retry_after_s: int | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.retry_after_s = retry_after_s


def too_often(what: str, wait_s: int) -> ProblemError:
    """Return the refusal of who does *what* faster than allowed."""
    detail = f"{what}; come back in {wait_s} s"
    return ProblemError(429, "too_many_requests", detail, wait_s)


def problem(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    errors: list[dict[str, str]] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Return one problem; its correlation id is the one in the log."""
    body: dict[str, object] = {
        "type": f"urn:gridtokenx:problem:{code}",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "correlation_id": request.state.correlation_id,
    }
    if errors:
        body["errors"] = errors
    kept = dict(headers or {})
    if status == http.HTTPStatus.UNAUTHORIZED:
        kept.setdefault("WWW-Authenticate", "Bearer")
    return JSONResponse(body, status, kept, media_type="application/problem+json")


def internal_problem(request: Request) -> JSONResponse:
    """Return what is said of a fault of ours: only the id under which it is logged."""
    return problem(request, 500, "internal", "a fault on our side; it is logged with this id")


def install(app: FastAPI) -> None:
    """Register the handlers; one table maps the program's errors to answers."""
    app.exception_handler(ProblemError)(_on_problem)
    app.exception_handler(HTTPException)(_on_http)
    app.exception_handler(RequestValidationError)(_on_invalid)
    app.exception_handler(NotFoundError)(_on_not_found)
    app.exception_handler(ValidationError)(_on_broken_rule)
    app.exception_handler(FixedSettingError)(_on_fixed)
    app.exception_handler(ConfigError)(_on_bad_config)
    app.exception_handler(FloodedError)(_on_flood)
    app.exception_handler(TransientError)(_on_transient)


async def _on_problem(request: Request, exc: ProblemError) -> JSONResponse:
    wait_s = exc.retry_after_s
    headers = None if wait_s is None else {"Retry-After": str(wait_s)}
    return problem(request, exc.status, exc.code, exc.detail, headers=headers)


async def _on_http(request: Request, exc: HTTPException) -> JSONResponse:
    code = _CODES.get(exc.status_code, "error")
    return problem(request, exc.status_code, code, str(exc.detail), headers=exc.headers)


async def _on_invalid(request: Request, exc: RequestValidationError) -> JSONResponse:
    # `input` stays out: it may be a token.
    errors = [
        {"field": ".".join(str(part) for part in error["loc"]), "reason": str(error["msg"])}
        for error in exc.errors()
    ]
    return problem(request, 422, "invalid", "the request breaks a rule; see errors", errors=errors)


async def _on_not_found(request: Request, exc: NotFoundError) -> JSONResponse:
    return problem(request, 404, "not_found", str(exc))


async def _on_broken_rule(request: Request, exc: ValidationError) -> JSONResponse:
    return problem(request, 422, exc.code, str(exc))


async def _on_fixed(request: Request, exc: FixedSettingError) -> JSONResponse:
    return problem(request, 409, "fixed_setting", str(exc))


async def _on_bad_config(request: Request, exc: ConfigError) -> JSONResponse:
    errors = []
    for text in exc.faults:
        code, _, reason = text.partition(": ")
        errors.append({"field": code, "reason": reason or text})
    return problem(request, 422, "invalid", "these settings do not go; see errors", errors=errors)


async def _on_flood(request: Request, exc: FloodedError) -> JSONResponse:
    headers = {"Retry-After": str(exc.wait_s)}
    return problem(request, 429, "too_many_lines", str(exc), headers=headers)


async def _on_transient(request: Request, exc: TransientError) -> JSONResponse:
    _log.warning(
        "request put off",
        extra={"reason": str(exc), "correlation_id": request.state.correlation_id},
    )
    headers = {"Retry-After": _RETRY_AFTER_S}
    detail = "the service is busy; try again shortly"
    return problem(request, 503, "unavailable", detail, headers=headers)
