"""The role that serves live events over WebSocket."""

from collections.abc import Callable, Iterator
from contextlib import suppress

from gridtokenx_cloud.adapters.websocket_api import EventServer
from gridtokenx_cloud.errors import EventsBusyError
from gridtokenx_cloud.metrics import Figure, connection_figures
from gridtokenx_cloud.roles.relay import Relay
from gridtokenx_cloud.supervisor import StopSignal

_LOOK_S = 0.5
_STOP_TIMEOUT_S = 10.0


class EventsRole:
    """Keeps one events server running, and the relay knowing which.

    Args:
        make_server: Returns a new server, not started.
        relay: What tells it of commits.
    """

    name = "events"

    def __init__(self, make_server: Callable[[], EventServer], relay: Relay) -> None:
        self._make_server = make_server
        self._relay = relay
        self._serving = False
        self._server: EventServer | None = None

    def run(self, stop: StopSignal) -> None:
        """See `Role.run`."""
        server = self._make_server()
        server.start()
        self._relay.feed = self._server = server
        self._serving = True
        try:
            while not stop.wait(_LOOK_S):
                if server.failure is not None:
                    raise RuntimeError("the events server has ended") from server.failure
        finally:
            self._serving = False
            self._relay.feed = self._server = None
            server.stop(_STOP_TIMEOUT_S)

    def figures(self) -> Iterator[Figure]:
        """Yield who is connected now; nothing while the server is not up."""
        if self._server is not None:
            with suppress(EventsBusyError):
                roles = [str(row["role"]) for row in self._server.connections()]
                yield from connection_figures(roles)

    def trouble(self) -> str | None:
        """See `Role.trouble`."""
        return None if self._serving else "the events server is not up"
