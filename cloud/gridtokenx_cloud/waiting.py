"""Why credits of a meter are not minted yet, in the words of the settings; pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from gridtokenx_cloud.tokenization import owner_percentile

_DUST_AGE_MS = 24 * 3_600_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What of the settings keeps a credit from being sealed."""

    auto_mint: bool
    owner_percent: int
    threshold_wh: int


def free_reason(pace: Pace, user_id: str, owner_wh: int, age_ms: int) -> str:
    """Return why a credit that is free to be sealed is not; `due` = the next pass takes it."""
    if not pace.auto_mint:
        return "auto_mint_off"
    if owner_percentile(user_id) >= pace.owner_percent:
        return "owner_outside_share"
    if owner_wh < pace.threshold_wh and age_ms < _DUST_AGE_MS:
        return "below_threshold"
    return "due"


def reasons(counts: Mapping[str, int], free: str) -> dict[str, int]:
    """Return reason -> readings: *counts* without its zeros, the `free` ones under their reason."""
    named = {free if name == "free" else name: number for name, number in counts.items()}
    return {name: number for name, number in named.items() if number}
