"""How well a node answers: the seconds that asking it is expected to cost; no I/O."""

from dataclasses import dataclass

# What a lost call costs: about what a caller waits before it knows, and asks somebody else.
_FAILURE_S = 10.0
_NEWEST_COUNTS = 0.2
# What is known of a node that nobody asks grows old; after some minutes it gets another chance.
_HALF_LIFE_S = 60.0
# Nodes that differ by less are alike, and the order of the configuration decides.
_ALIKE_S = 0.5


@dataclass(slots=True)
class Health:
    """The running cost of asking one node; all times are seconds of a monotonic clock."""

    _cost_s: float = 0.0
    _at_s: float = 0.0
    _rests_until_s: float = 0.0

    def answered(self, now_s: float, took_s: float) -> None:
        """Count a call that came back, with a result or a refusal."""
        self._count(now_s, took_s)

    def failed(self, now_s: float, rest_s: float = 0.0) -> None:
        """Count a call without a usable answer; the node asked for *rest_s* of peace."""
        self._count(now_s, _FAILURE_S)
        self._rests_until_s = max(self._rests_until_s, now_s + rest_s)

    def rest_s(self, now_s: float) -> float:
        """Return for how long nobody may ask this node yet."""
        return max(0.0, self._rests_until_s - now_s)

    def cost_s(self, now_s: float) -> float:
        """Return what the next call is expected to cost; 0 of a node nobody knows yet."""
        return float(self._cost_s * 0.5 ** ((now_s - self._at_s) / _HALF_LIFE_S))

    def rank(self, now_s: float) -> tuple[bool, int]:
        """Return what nodes are sorted by, the best first; equal ones keep their order."""
        return self.rest_s(now_s) > 0, int(self.cost_s(now_s) / _ALIKE_S)

    def _count(self, now_s: float, cost_s: float) -> None:
        before = self.cost_s(now_s)
        self._cost_s = before + _NEWEST_COUNTS * (cost_s - before)
        self._at_s = now_s
