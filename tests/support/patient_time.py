"""Event loops for which a machine that stands still does not count.

On a busy machine a process may get no turn for seconds. To an ordinary loop every time-out is over
then, although the answer came at once and only waits to be read. Here no turn of the loop lasts
longer than a moment, however long it took: a time-out is over after so much waiting in which
nothing came. Otherwise time passes as it does, so that nothing is slower or quicker for it.
"""

import asyncio
import selectors
import time

_MOMENT_S = 0.01


class _PatientSelector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self._looked_s = self.now_s = time.monotonic()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(None if timeout is None else min(timeout, _MOMENT_S))
        looked_s = time.monotonic()
        self.now_s += min(looked_s - self._looked_s, _MOMENT_S)
        self._looked_s = looked_s
        return ready


class PatientLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._patient = _PatientSelector()
        super().__init__(self._patient)

    def time(self) -> float:
        """Return seconds, without those in which this process had no turn."""
        return self._patient.now_s


class PatientPolicy(asyncio.DefaultEventLoopPolicy):
    """Makes `PatientLoop`s, for the tests and for what they run in threads of their own."""

    _loop_factory = PatientLoop
