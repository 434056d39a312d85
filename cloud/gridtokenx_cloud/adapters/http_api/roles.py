"""Who may use which admin route, and under whose name a deed is audited."""

from dataclasses import replace
from typing import Annotated, Any, TypeVar

from fastapi import Depends
from fastapi.params import Depends as Marker

from gridtokenx_cloud.adapters.http_api.identity import Caller, Parts
from gridtokenx_cloud.adapters.http_api.problems import ProblemError
from gridtokenx_cloud.ports.admin import Administration, Desk
from gridtokenx_cloud.ports.events import Principal

View = TypeVar("View", bound=Any)
_RANKS = {"viewer": 1, "operator": 2, "admin": 3}


def _at_least(role: str) -> Marker:
    def check(caller: Caller) -> None:
        if _RANKS.get(caller.role, 0) < _RANKS[role]:
            raise ProblemError(
                403, "forbidden", f"this takes the role {role}; your token is of {caller.role}"
            )

    return Marker(check)


Viewer = _at_least("viewer")
Operator = _at_least("operator")
Admin = _at_least("admin")


def administration(parts: Parts) -> Administration:
    """Return what the admin routes work with."""
    if parts.administration is None:
        raise ProblemError(404, "not_found", "this API has no admin routes")
    return parts.administration


Office = Annotated[Administration, Depends(administration)]


def actor_of(caller: Principal) -> str:
    """Return the name under which a deed is audited."""
    return f"token:{caller.label}"


def _desk(caller: Caller, office: Office) -> Desk:
    return office.desk_of(actor_of(caller))


OwnDesk = Annotated[Desk, Depends(_desk)]


def shown_to(caller: Principal, view: View) -> View:
    """Return *view* as this role may see it: a viewer sees no wallet in full."""
    if caller.role != "viewer":
        return view
    changed: dict[str, Any] = {}
    if hasattr(view, "wallet"):
        changed["wallet"] = f"{view.wallet[:4]}...{view.wallet[-4:]}"
    if hasattr(view, "recipients"):
        changed["recipients"] = tuple(shown_to(caller, one) for one in view.recipients)
    return replace(view, **changed)
