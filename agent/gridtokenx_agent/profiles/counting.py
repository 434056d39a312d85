"""Tells one way of reading a meter's counters from another: by its content, not by its name."""

import hashlib

from gridtokenx_agent.profiles.model import ENERGY_POINTS, MeterProfile

_MARK = "#"


def counting(name: str, profile: MeterProfile) -> str:
    """Return the profile's name with a mark that changes when its counters mean something else.

    A profile of one's own is corrected under the same name, and the scale or the word order that
    was wrong must not turn into energy: from one reading to the next the counter would leap.
    """
    said = [
        (
            place, profile.function_of(point), point.address, point.type, point.order, point.unit,
            str(point.scale.normalize()), str(point.bits), point.factor_offset,
        )
        for place in ENERGY_POINTS
        if (point := profile.points.get(place)) is not None
    ]  # fmt: skip
    which = profile.sunspec.instance if profile.sunspec is not None else 0
    mark = hashlib.sha256(repr((which, said)).encode()).hexdigest()[:8]
    return f"{name}{_MARK}{mark}"


def counts_alike(known: str, now: str) -> bool:
    """Return whether counters read by *known* go on when read by *now*, both from `counting`.

    A name without a mark was written before there were any.
    """
    return known in (now, now.rpartition(_MARK)[0])
