"""Admin routes about the minter: what it has not minted yet, and a pass on demand."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel

from gridtokenx_cloud.adapters.http_api.identity import Caller, OwnOrigin, Parts
from gridtokenx_cloud.adapters.http_api.problems import too_often
from gridtokenx_cloud.adapters.http_api.roles import Office, Operator, OwnDesk, actor_of
from gridtokenx_cloud.errors import FloodedError
from gridtokenx_cloud.events import rfc3339
from gridtokenx_cloud.waiting import Pace, free_reason, reasons

router = APIRouter(prefix="/admin", tags=["admin"])

_WAYS = ("free", "in_batch", "retrying", "parked")


class Pass(BaseModel):
    """A pass of the minter that was asked for; `done` in the status reaches its number."""

    pass_id: int


class UnmintedMeter(BaseModel):
    """What of one meter waits, and why."""

    meter_id: str
    user_id: str
    credit_wh: int
    oldest_submitted_at: str
    reasons: dict[str, int]
    errors: list[str]


class UnmintedPage(BaseModel):
    """Meters by id; no cursor = the last page."""

    items: list[UnmintedMeter]
    next_cursor: str | None


@router.post("/tokenization/trigger-batch", status_code=202, dependencies=[Operator, OwnOrigin])
def trigger_batch(caller: Caller, desk: OwnDesk, office: Office, parts: Parts) -> Pass:
    """Let the minter seal all that is due now, also while automatic minting is off."""
    try:
        number = desk.trigger.ask(actor_of(caller), parts.clock.now_ms())
    except FloodedError as exc:
        raise too_often("a pass was asked for just now", exc.wait_s) from exc
    office.pass_wanted()
    return Pass(pass_id=number)


@router.get("/meters/unminted", dependencies=[Operator])
def unminted(
    desk: OwnDesk,
    office: Office,
    parts: Parts,
    cursor: Annotated[str, Query(max_length=200)] = "",
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> UnmintedPage:
    """List the meters whose energy is credited and not minted, with the reason."""
    meter_id, _, user_id = cursor.partition("/")
    rows = desk.records.unminted((meter_id, user_id), limit + 1)
    pace = office.pace()
    now_ms = parts.clock.now_ms()
    items = [_meter(dict(row), pace, now_ms) for row in rows[:limit]]
    last = items[-1] if len(rows) > limit else None
    behind = None if last is None else f"{last.meter_id}/{last.user_id}"
    return UnmintedPage(items=items, next_cursor=behind)


def _meter(row: dict[str, Any], pace: Pace, now_ms: int) -> UnmintedMeter:
    free = free_reason(pace, row["user_id"], int(row["owner_wh"]), now_ms - row["oldest_at_ms"])
    return UnmintedMeter(
        meter_id=row["meter_id"],
        user_id=row["user_id"],
        credit_wh=int(row["credit_wh"]),
        oldest_submitted_at=rfc3339(row["oldest_at_ms"]),
        reasons=reasons({way: int(row[way]) for way in _WAYS}, free),
        errors=row["errors"],
    )
