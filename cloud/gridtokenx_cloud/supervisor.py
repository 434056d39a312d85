"""Keep each role of the process running in a thread of its own, and end them in order."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gridtokenx_cloud.errors import PermanentError, TransientError

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0


class StopSignal(threading.Event):
    """Set once, when a role shall end; the role may wait for it, or have itself told."""

    def __init__(self) -> None:
        super().__init__()
        self._tell: Callable[[], None] | None = None

    def set(self) -> None:
        """See `threading.Event.set`."""
        super().set()
        if self._tell is not None:
            self._tell()

    def tell(self, call: Callable[[], None]) -> None:
        """Have *call* called when the role shall end; the last one given counts."""
        self._tell = call
        if self.is_set():
            call()


class Role(Protocol):
    """One service of the process."""

    @property
    def name(self) -> str:
        """As in `GTX_CLOUD_ROLES`."""
        ...

    def run(self, stop: StopSignal) -> None:
        """Work until *stop*, then return as soon as the work is safe.

        An error that waiting may cure, and any the role did not foresee, starts it again; a
        `PermanentError` ends the program.
        """
        ...

    def trouble(self) -> str | None:
        """Return why the role can do no work now, in words; None = it can."""
        ...


@dataclass(slots=True)
class _Running:
    task: Role
    stop: StopSignal = field(default_factory=StopSignal)
    thread: threading.Thread | None = None


class Supervisor:
    """Owns the roles' threads; every method is called by the main thread.

    Attributes:
        restarts: How often each role was started again.
    """

    def __init__(
        self,
        roles: Sequence[Role],
        pause_s: Callable[[int], float] | None = None,
        restarts: Counter[str] | None = None,
    ) -> None:
        self.restarts = Counter() if restarts is None else restarts
        self._roles = [_Running(role) for role in roles]
        self._pause_s = pause_s or restart_pause_s
        self._wake = threading.Event()
        self._fatal: PermanentError | None = None

    def start(self) -> None:
        """Start every role."""
        for role in self._roles:
            # Daemons: what does not end in time must not keep the process alive.
            role.thread = threading.Thread(
                target=self._keep_running, args=(role,), name=role.task.name, daemon=True
            )
            role.thread.start()

    def wait(self) -> None:
        """Return when `request_stop` was called; safe against signals.

        Raises:
            PermanentError: A role met what only a human can change.
        """
        self._wake.wait()
        if self._fatal is not None:
            raise self._fatal

    def request_stop(self) -> None:
        """Let `wait` return; may be called by a signal handler or any thread."""
        self._wake.set()

    def stop(self, timeout_s: float) -> list[str]:
        """End the roles one after another, first to last; return those that did not end in time."""
        deadline = time.monotonic() + timeout_s
        late = []
        for role in self._roles:
            role.stop.set()
            if role.thread is not None:
                role.thread.join(max(0.0, deadline - time.monotonic()))
                if role.thread.is_alive():
                    late.append(role.task.name)
        return late

    def _keep_running(self, role: _Running) -> None:
        failures = 0
        while not role.stop.is_set():
            began = time.monotonic()
            try:
                role.task.run(role.stop)
                if role.stop.is_set():
                    return
                _log.error("role_ended", extra={"role": role.task.name})
            except PermanentError as exc:
                self._fatal = self._fatal or exc
                self._wake.set()
                return
            except TransientError as exc:
                _log.warning("role_failed", extra={"role": role.task.name, "error": str(exc)})
            except Exception:  # noqa: BLE001 - a defect in one role must not silence the others
                _log.exception("role_crashed", extra={"role": role.task.name})
            # A long good run pays for what went wrong before it.
            failures = 1 if time.monotonic() - began > _LONGEST_PAUSE_S else failures + 1
            self.restarts[role.task.name] += 1
            role.stop.wait(self._pause_s(failures))


def restart_pause_s(failures: int) -> float:
    """Return the pause after the *failures*-th failure in a row: 1, 2, 4 ... 60 s."""
    return min(_FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10), _LONGEST_PAUSE_S)
