"""Meters, readings, mints and totals; and readings sent by HTTP."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from gridtokenx_cloud.adapters.http_api.identity import Caller, Parts
from gridtokenx_cloud.adapters.http_api.problems import ProblemError
from gridtokenx_cloud.adapters.http_api.roles import shown_to
from gridtokenx_cloud.ports.api import (
    MeterView,
    MintView,
    OwnerSummary,
    PowerPoint,
    ReadingView,
)
from gridtokenx_wire import base58
from gridtokenx_wire.errors import MalformedLineError

router = APIRouter(tags=["data"])

Cursor = Annotated[str | None, Query(max_length=200)]
Limit = Annotated[int, Query(ge=1, le=100)]
_NDJSON = "application/x-ndjson"


class Meters(BaseModel):
    """All meters the caller may see."""

    items: list[MeterView]


class Power(BaseModel):
    """Measured power of the last minutes, oldest first."""

    items: list[PowerPoint]


class ReadingPage(BaseModel):
    """Readings, newest first; no cursor = the last page."""

    items: list[ReadingView]
    next_cursor: str | None


class MintPage(BaseModel):
    """Mints, newest first; no cursor = the last page."""

    items: list[MintView]
    next_cursor: str | None


class Summary(BaseModel):
    """Totals: of the caller, or of every owner for staff."""

    mint_address: str
    decimals: int
    minted_base_units: str
    minted_wh: int
    waiting_wh: int
    owners: list[OwnerSummary]


@router.get("/meters")
def meters(caller: Caller, parts: Parts) -> Meters:
    """List the meters with their power now and the energy of today (UTC)."""
    return Meters(items=[shown_to(caller, one) for one in parts.views.meters(caller.user_id)])


@router.get("/meters/{meter_id}/power")
def power(
    meter_id: str,
    caller: Caller,
    parts: Parts,
    minutes: Annotated[int, Query(ge=1, le=1440)] = 15,
) -> Power:
    """Return the measured power of the last *minutes*."""
    since_ms = parts.clock.now_ms() - minutes * 60_000
    points = parts.views.power(meter_id, caller.user_id, since_ms)
    if points is None:
        raise _no_meter()
    return Power(items=points)


@router.get("/meters/{meter_id}/readings")
def readings(
    meter_id: str, caller: Caller, parts: Parts, cursor: Cursor = None, limit: Limit = 50
) -> ReadingPage:
    """List stored readings of one meter."""
    page = parts.views.readings(meter_id, caller.user_id, cursor, limit)
    if page is None:
        raise _no_meter()
    return ReadingPage(items=page[0], next_cursor=page[1])


@router.get("/mints")
def mints(caller: Caller, parts: Parts, cursor: Cursor = None, limit: Limit = 50) -> MintPage:
    """List mints with their transaction signatures."""
    items, next_cursor = parts.views.mints(caller.user_id, cursor, limit)
    return MintPage(items=[shown_to(caller, one) for one in items], next_cursor=next_cursor)


@router.get("/summary")
def summary(caller: Caller, parts: Parts) -> Summary:
    """Return what is minted and what waits."""
    owners = [shown_to(caller, one) for one in parts.views.summary(caller.user_id)]
    return Summary(
        mint_address=parts.mint_address,
        decimals=parts.decimals,
        minted_base_units=str(sum(int(owner.minted_base_units) for owner in owners)),
        minted_wh=sum(owner.minted_wh for owner in owners),
        waiting_wh=sum(owner.waiting_wh for owner in owners),
        owners=owners,
    )


@router.post("/gateways/{gateway_id}/readings")
async def submit(gateway_id: str, request: Request, parts: Parts) -> Response:
    """Take 1 to 100 signed lines, as over MQTT; answer with the signed receipt once stored.

    The lines' signatures are the authentication.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != _NDJSON:
        raise ProblemError(415, "unsupported_media_type", f"send {_NDJSON}")
    try:
        base58.decode_key(gateway_id)
    except MalformedLineError as exc:
        raise ProblemError(404, "not_found", "a gateway id is a public key in base58") from exc
    payload = await request.body()
    receipt = await run_in_threadpool(parts.submit, gateway_id, payload)
    return Response(receipt, media_type="application/json")


def _no_meter() -> ProblemError:
    # The same for a foreign meter: what belongs to others is not even there.
    return ProblemError(404, "not_found", "you have no meter of this name")
