"""When a bus may be used again after a request that got no true answer."""

from typing import Final

OWED_S: Final = 3.0
"""A meter that owes an answer is not asked again for so long: no meter we wait for is slower."""


class QuietRule:
    """Gives late answers time to come and be dropped.

    On a serial bus nothing ties an answer to its request. The next request of the same meter
    would take the late answer for its own: a wrong value without any error, and every later
    answer one behind. So the meter that still owes an answer is left alone until it has come, or
    can no longer come; and the whole bus is quiet for twice the meter's timeout, so that a late
    answer and the request to another meter do not meet on the wire.
    """

    def __init__(self) -> None:
        self._bus_until_s = 0.0
        self._unit_until_s: dict[int, float] = {}

    def until_s(self, unit: int | None) -> float:
        """Return the moment from which *unit* may be asked; None: another one than before."""
        owed_until_s = 0.0 if unit is None else self._unit_until_s.get(unit, 0.0)
        return max(self._bus_until_s, owed_until_s)

    def missed(
        self, unit: int, *, sent_s: float, now_s: float, timeout_s: float, owed: bool
    ) -> None:
        """Note a request without a true answer.

        Args:
            unit: Device id that was asked.
            sent_s: When the request was sent.
            now_s: When it was given up.
            timeout_s: How long the meter's answers may usually take.
            owed: The answer may still come, and could be taken for another one.
        """
        self._bus_until_s = now_s + 2 * timeout_s
        if owed:
            self._unit_until_s[unit] = sent_s + OWED_S

    def paid(self, unit: int) -> None:
        """Note that the late answer came."""
        self._bus_until_s = 0.0
        self._unit_until_s.pop(unit, None)
