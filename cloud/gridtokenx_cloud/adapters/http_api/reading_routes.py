"""One meter, one reading, one batch; and a meter's energy by hour, day or month."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel

from gridtokenx_cloud.adapters.http_api.identity import Caller, Parts
from gridtokenx_cloud.adapters.http_api.problems import ProblemError
from gridtokenx_cloud.adapters.http_api.roles import shown_to
from gridtokenx_cloud.ports.api import (
    BatchView,
    Energy,
    MeterView,
    MintingStatus,
    Period,
    ReadingView,
)

router = APIRouter(tags=["data"])

Id = Annotated[int, Path(ge=1, le=2**62)]
Moment = Annotated[int | None, Query(ge=0, le=2**52)]
_HOUR_MS = 3_600_000
_LONGEST_MS = {"hour": 100 * _HOUR_MS, "day": 2_400 * _HOUR_MS, "month": 1_830 * 24 * _HOUR_MS}
_MOST_PERIODS = {"hour": "100 hours", "day": "100 days", "month": "5 years"}


class EnergyList(BaseModel):
    """Periods with readings, oldest first; they begin at full hours, days or months, UTC."""

    items: list[Energy]


@router.get("/meters/{meter_id}")
def meter(meter_id: str, caller: Caller, parts: Parts) -> MeterView:
    """Return one meter with its power now and the energy of today (UTC)."""
    found = [one for one in parts.views.meters(caller.user_id) if one.meter_id == meter_id]
    if not found:
        raise _nothing("meter of this name")
    return shown_to(caller, found[0])


@router.get("/meters/{meter_id}/energy")
def energy(
    meter_id: str,
    caller: Caller,
    parts: Parts,
    by: Period = "day",
    from_ms: Moment = None,
    to_ms: Moment = None,
) -> EnergyList:
    """Sum a meter's energy by hour, day or month; by default the longest time there may be."""
    until_ms = parts.clock.now_ms() + 1 if to_ms is None else to_ms
    since_ms = max(0, until_ms - _LONGEST_MS[by]) if from_ms is None else from_ms
    if not 0 < until_ms - since_ms <= _LONGEST_MS[by]:
        detail = f"ask for at most {_MOST_PERIODS[by]} at once, and for from_ms before to_ms"
        raise ProblemError(422, "invalid", detail)
    items = parts.views.energy(meter_id, caller.user_id, by, since_ms, until_ms)
    if items is None:
        raise _nothing("meter of this name")
    return EnergyList(items=items)


@router.get("/readings/{reading_id}")
def reading(reading_id: Id, caller: Caller, parts: Parts) -> ReadingView:
    """Return one stored reading."""
    found = parts.views.reading(reading_id, caller.user_id)
    if found is None:
        raise _nothing("reading of this number")
    return found


@router.get("/readings/{reading_id}/minting-status")
def minting_status(reading_id: Id, caller: Caller, parts: Parts) -> MintingStatus:
    """Say what has become of a reading's energy."""
    found = parts.views.minting_status(reading_id, caller.user_id)
    if found is None:
        raise _nothing("reading of this number")
    return found


@router.get("/batches/{batch_id}")
def batch(batch_id: Id, caller: Caller, parts: Parts) -> BatchView:
    """Return one batch; an owner sees the own part of it."""
    found = parts.views.batch(batch_id, caller.user_id)
    if found is None:
        raise _nothing("part in a batch of this number")
    return shown_to(caller, found)


def _nothing(what: str) -> ProblemError:
    # The same for a foreign one: what belongs to others is not even there.
    return ProblemError(404, "not_found", f"you have no {what}")
