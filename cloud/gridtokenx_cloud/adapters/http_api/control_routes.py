"""Admin routes about the work: status, settings, held readings, refused credits, the audit log."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from gridtokenx_cloud.adapters.http_api.identity import OwnOrigin
from gridtokenx_cloud.adapters.http_api.problems import ProblemError
from gridtokenx_cloud.adapters.http_api.roles import Admin, Office, Operator, OwnDesk, Viewer
from gridtokenx_cloud.ports.admin import Administration, Desk

router = APIRouter(prefix="/admin", tags=["admin"])

ReadingId = Annotated[int, Path(ge=1, le=2**62)]


class Rows(BaseModel):
    """A whole list."""

    items: list[dict[str, Any]]


class AuditPage(BaseModel):
    """Audit entries, newest first; no cursor = the last page."""

    items: list[dict[str, Any]]
    next_cursor: int | None


class Switch(BaseModel):
    """Whether new batches are sealed."""

    model_config = ConfigDict(extra="forbid")

    enabled: StrictBool


class Reason(BaseModel):
    """Why a held reading is refused; the owner sees it."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(min_length=1, max_length=200)]


class Released(BaseModel):
    """What a released reading was credited."""

    reading_id: int
    credit_wh: int


class Config(BaseModel):
    """The changeable settings in force, and those that stand above the environment."""

    values: dict[str, str]
    overrides: list[dict[str, Any]]


SettingText = StrictBool | StrictInt | Annotated[str, Field(max_length=100)]


@router.get("/tokenization/status", dependencies=[Viewer])
def status(desk: OwnDesk, office: Office) -> dict[str, Any]:
    """Return what is minted, what waits, and the pace."""
    values = office.config()
    shown = ("auto_mint_enabled", "polling_interval_secs", "batch_size")
    wanted, done = desk.trigger.state()
    passes = {"asked_for": wanted, "done": done}
    return {name: values[name] for name in shown} | dict(desk.records.status()) | {"pass": passes}


@router.post("/tokenization/toggle-auto-mint", dependencies=[Operator, OwnOrigin])
def toggle_auto_mint(body: Switch, desk: OwnDesk, office: Office) -> Config:
    """Pause or resume the sealing of new batches; sealed ones are brought to their end."""
    return _change({"auto_mint_enabled": str(body.enabled).lower()}, desk, office)


@router.get("/tokenization/config", dependencies=[Admin])
def config(desk: OwnDesk, office: Office) -> Config:
    """Show the settings that may change while the program runs."""
    return _config(desk, office)


@router.patch("/tokenization/config", dependencies=[Admin, OwnOrigin])
def change_config(body: dict[str, SettingText], desk: OwnDesk, office: Office) -> Config:
    """Change settings from the next cycle on; all of them or none."""
    if not body:
        raise ProblemError(422, "invalid", "name at least one setting")
    texts = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in body.items()
    }
    return _change(texts, desk, office)


@router.delete("/tokenization/config", dependencies=[Admin, OwnOrigin])
def reset_config(
    desk: OwnDesk, office: Office, name: Annotated[list[str] | None, Query()] = None
) -> Config:
    """Go back to the environment's values: of the named settings, or of all."""
    names = name or [str(row["name"]) for row in desk.overrides.rows()]
    return _change(dict.fromkeys(names), desk, office)


def _change(texts: Mapping[str, str | None], desk: Desk, office: Administration) -> Config:
    desk.overrides.change(texts, office.check_config)
    office.config_changed()
    return _config(desk, office)


def _config(desk: Desk, office: Administration) -> Config:
    return Config(
        values=dict(office.config()), overrides=[dict(row) for row in desk.overrides.rows()]
    )


@router.get("/held-readings", dependencies=[Operator])
def held_readings(desk: OwnDesk) -> Rows:
    """List what waits for a decision, the oldest first."""
    return Rows(items=[dict(row) for row in desk.held.list_held()])


@router.post("/held-readings/{reading_id}/release", dependencies=[Operator, OwnOrigin])
def release(reading_id: ReadingId, desk: OwnDesk) -> Released:
    """Credit what the register moved up to this reading."""
    return Released(reading_id=reading_id, credit_wh=desk.held.release(reading_id))


@router.post(
    "/held-readings/{reading_id}/reject", status_code=204, dependencies=[Operator, OwnOrigin]
)
def reject(reading_id: ReadingId, body: Reason, desk: OwnDesk) -> None:
    """Refuse this reading for good; the next good one credits what the register moved."""
    desk.held.reject(reading_id, body.reason)


@router.get("/retry-queue", dependencies=[Operator])
def retry_queue(desk: OwnDesk, parked: bool = False) -> Rows:
    """List refused credits, those that wait for an operator first."""
    return Rows(items=[dict(row) for row in desk.retries.rows(parked_only=parked)])


@router.post(
    "/retry-queue/{reading_id}/requeue", status_code=204, dependencies=[Operator, OwnOrigin]
)
def requeue(reading_id: ReadingId, desk: OwnDesk) -> None:
    """Let the next pass try this credit again."""
    desk.retries.requeue(reading_id)


@router.post(
    "/retry-queue/{reading_id}/give-up", status_code=204, dependencies=[Operator, OwnOrigin]
)
def give_up(reading_id: ReadingId, desk: OwnDesk) -> None:
    """Lay this credit aside until somebody requeues it."""
    desk.retries.give_up(reading_id)


@router.get("/audit-log", dependencies=[Admin])
def audit_log(
    desk: OwnDesk,
    cursor: Annotated[int | None, Query(ge=1, le=2**62)] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
) -> AuditPage:
    """List who did what, newest first."""
    rows = [dict(row) for row in desk.records.audit_page(cursor, limit + 1)]
    page = rows[:limit]
    behind = page[-1]["entry"] if len(rows) > limit else None
    return AuditPage(items=page, next_cursor=behind)
