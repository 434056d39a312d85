"""What a field allows, in words: for faults, the template and the documentation."""

from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo


def allowed(field: FieldInfo) -> str:
    """Return the values *field* takes, such as `1..1000` or `json or text`."""
    choices = _choices(field.annotation)
    if choices:
        return ", ".join(choices[:-1]) + " or " + choices[-1]
    if field.annotation is bool:
        return "true or false"
    if get_origin(field.annotation) is tuple and (names := _choices(get_args(field.annotation)[0])):
        return f"a comma list of {', '.join(names)}"
    bounds = {
        type(bound): bound for bound in field.metadata if isinstance(bound, Ge | Gt | Le | Lt)
    }
    if not bounds:
        return ""
    low = _bound(bounds.get(Ge), "") or _bound(bounds.get(Gt), "above ")
    return f"{low}..{_bound(bounds.get(Le), '')}"


def _bound(bound: Any, prefix: str) -> str:
    if bound is None:
        return ""
    value = getattr(bound, "ge", None)
    for name in ("gt", "le"):
        value = getattr(bound, name, value)
    return f"{prefix}{value:,}".replace(",", "")


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return []


def default_text(field: FieldInfo) -> str:
    """Return the default as it would stand in an `.env` file; empty when there is none."""
    value = field.default
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value)
