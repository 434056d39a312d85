"""Admin routes about who follows the live events now."""

from typing import Annotated

from fastapi import APIRouter, Path

from gridtokenx_cloud.adapters.http_api.control_routes import Rows
from gridtokenx_cloud.adapters.http_api.identity import Caller, OwnOrigin
from gridtokenx_cloud.adapters.http_api.problems import ProblemError
from gridtokenx_cloud.adapters.http_api.roles import Admin, Office, OwnDesk, actor_of
from gridtokenx_cloud.ports.admin import Administration, LiveConnections

router = APIRouter(prefix="/admin", tags=["admin"])

ConnectionId = Annotated[str, Path(min_length=1, max_length=64)]


@router.get("/connections", dependencies=[Admin])
def connections(office: Office) -> Rows:
    """List the connections to the events server of this process."""
    return Rows(items=[dict(row) for row in _live(office).connections()])


@router.delete("/connections/{conn}", status_code=204, dependencies=[Admin, OwnOrigin])
def close(conn: ConnectionId, caller: Caller, desk: OwnDesk, office: Office) -> None:
    """Close one connection for good (4003); whoever stood behind it may sign in again."""
    if not _live(office).close_connection(conn):
        raise ProblemError(404, "not_found", f"connection {conn} has ended already")
    desk.records.note(actor_of(caller), "connection_closed", f"connection:{conn}")


def _live(office: Administration) -> LiveConnections:
    live = office.live()
    if live is None:
        detail = "no live events are served by this process; ask one with the roles api and events"
        raise ProblemError(503, "unavailable", detail, 5)
    return live
