"""Checks on instantaneous values; they mark or leave out, they never hold a reading back."""

from collections.abc import Collection, Iterable, Mapping

from gridtokenx_wire.record import LiveValues, Quality

_BOUNDS = {
    "active_power_w": (-100_000_000, 100_000_000),
    "voltage_mv": (0, 1_000_000_000),
    "current_ma": (-100_000_000, 100_000_000),
    "frequency_mhz": (40_000, 70_000),
    "power_factor_milli": (-1000, 1000),
}
"""Beyond these no meter on a grid of 50 or 60 Hz can be telling the truth."""
_RATED_MARGIN_PERCENT = 200
_MISMATCH_PERCENT = 5
_MISMATCH_FLOOR_W = 20
_ENOUGH_TO_COMPARE = 4


def check_live(
    values: Mapping[str, int | None], rated_power_w: int | None
) -> tuple[LiveValues, Quality]:
    """Return the believable ones of *values* (by field of `LiveValues`) and what was wrong.

    A value of None is one the meter marked as not available.
    """
    flags = Quality.NONE
    kept: dict[str, int] = {}
    for name, value in values.items():
        if value is None:
            flags |= Quality.VALUE_MISSING
        elif _within(name, value, rated_power_w):
            kept[name] = value
        else:
            flags |= Quality.OUT_OF_RANGE
    return LiveValues(**kept), flags


def phases_disagree(total_w: int | None, phases_w: Iterable[int | None]) -> bool:
    """Return whether three phase powers and their total differ by more than 5 %."""
    phases = tuple(phases_w)
    known = [power for power in phases if power is not None]
    if total_w is None or len(phases) != 3 or len(known) != 3:
        return False
    allowed_w = max(abs(total_w) * _MISMATCH_PERCENT // 100, _MISMATCH_FLOOR_W)
    return abs(sum(known) - total_w) > allowed_w


def is_stuck(answers: Collection[tuple[int, ...]]) -> bool:
    """Return whether registers of different quantities all say the same.

    Seen on meters and adapters that repeat one answer to every request: 236 V, 236 A, 236 Hz.
    """
    first = next(iter(answers), ())
    return (
        len(answers) >= _ENOUGH_TO_COMPARE and any(first) and all(said == first for said in answers)
    )


def _within(name: str, value: int, rated_power_w: int | None) -> bool:
    low, high = _BOUNDS[name]
    if name == "active_power_w" and rated_power_w is not None:
        high = rated_power_w * _RATED_MARGIN_PERCENT // 100
        low = -high
    return low <= value <= high
