"""The role that serves the HTTP API and the page."""

import errno
import socket

import uvicorn
from fastapi import FastAPI

from gridtokenx_cloud.errors import ConfigError
from gridtokenx_cloud.supervisor import StopSignal

_BACKLOG = 2048
_GRACE_S = 5


class ApiRole:
    """Keeps one HTTP server running.

    Args:
        app: What is served.
        host: Address to listen on.
        port: Port to listen on.
    """

    name = "api"

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        self._app = app
        self._address = (host, port)

    def run(self, stop: StopSignal) -> None:
        """See `Role.run`."""
        config = uvicorn.Config(
            self._app,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        server = uvicorn.Server(config)
        with listen(*self._address, "GTX_CLOUD_HTTP_BIND") as listener:
            stop.tell(lambda: setattr(server, "should_exit", True))
            server.run(sockets=[listener])

    def trouble(self) -> str | None:
        """See `Role.trouble`: who can ask is served."""
        return None


def listen(host: str, port: int, setting: str) -> socket.socket:
    """Return a listening socket.

    Raises:
        ConfigError: Names the port, the setting and the way out.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as exc:
        reason = "is in use" if exc.errno == errno.EADDRINUSE else f"cannot be had ({exc.strerror})"
        raise ConfigError(
            (f"port {port} of {host} {reason}; stop what listens there or set another {setting}",)
        ) from exc
