"""Tells by what a meter says whether a profile is for it."""

from collections.abc import Sequence

from gridtokenx_agent.profiles.model import MeterProfile
from gridtokenx_agent.registers import decode


def recognises(profile: MeterProfile, words: Sequence[int]) -> bool | None:
    """Return whether the words of its model register are those of a meter of *profile*.

    None when the profile knows no such register. That a meter answers at all proves nothing:
    many answer any address, and with numbers that look like measured ones.

    Raises:
        ProfileError: Wrong number of words.
    """
    if profile.model_register is None:
        return None
    return decode(words, profile.model_register).text in profile.model_register.says
