"""What a check before minting is told, and what it says. No I/O."""

from collections.abc import Callable
from dataclasses import dataclass

from gridtokenx_cloud.adapters.solana_rpc.transactions import Token
from gridtokenx_cloud.ports.upkeep import Books


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; `ok` None = worth knowing, no obstacle.

    Attributes:
        detail: What was found.
        way_out: What to do when it is no; empty otherwise.
    """

    name: str
    ok: bool | None
    detail: str
    way_out: str = ""


def judged(name: str, ok: bool, detail: str, way_out: str) -> Check:
    """Return a check that names its way out only where one is needed."""
    return Check(name, ok, detail, "" if ok else way_out)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the configuration says.

    Attributes:
        books: Asks the store, after the chain was asked; None = there is no store yet.
        now_ms: This machine's clock.
    """

    token: Token
    genesis_hash: str | None
    format: str
    low_transactions: int
    price_bounds_micro_lamports: tuple[int, int]
    books: Callable[[], Books | None]
    now_ms: Callable[[], int]
