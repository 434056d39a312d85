"""One thing that is wrong with the configuration."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

FaultCode = Literal[
    "MissingVariable",
    "UnknownVariable",
    "ValidationFailed",
    "IncompatibleValues",
    "InsufficientPollingInterval",
    "UnreasonablePrecision",
    "ExcessiveRetryTime",
    "PlainSecret",
]


@dataclass(frozen=True, slots=True)
class Fault:
    """A rule broken by the variables *names*; *text* says which and the way out."""

    code: FaultCode
    names: frozenset[str]
    text: str

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"


def fault(code: FaultCode, names: Iterable[str] | str, text: str) -> Fault:
    """Return a fault of one variable or several."""
    return Fault(code, frozenset([names] if isinstance(names, str) else names), text)
