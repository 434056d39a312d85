"""The role that serves live events over WebSocket."""

from collections.abc import Callable

from gridtokenx_cloud.adapters.websocket_api import EventServer
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

    def run(self, stop: StopSignal) -> None:
        """See `Role.run`."""
        server = self._make_server()
        server.start()
        self._relay.feed = server
        self._serving = True
        try:
            while not stop.wait(_LOOK_S):
                if server.failure is not None:
                    raise RuntimeError("the events server has ended") from server.failure
        finally:
            self._serving = False
            self._relay.feed = None
            server.stop(_STOP_TIMEOUT_S)

    def trouble(self) -> str | None:
        """See `Role.trouble`."""
        return None if self._serving else "the events server is not up"
