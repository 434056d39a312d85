"""The role that serves the HTTP API and the page."""

import asyncio
import errno
import socket

import anyio.to_thread
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
        threads: Requests that work at once, each with a connection to the store; more wait.
    """

    name = "api"

    def __init__(self, app: FastAPI, host: str, port: int, threads: int) -> None:
        self._app = app
        self._threads = threads
        self._address = (host, port)

    def run(self, stop: StopSignal) -> None:
        """See `Role.run`."""
        config = uvicorn.Config(
            self._app,
            log_config=None,
            # Who a client is we find out ourselves, by GTX_CLOUD_TRUSTED_PROXIES.
            proxy_headers=False,
            access_log=False,
            lifespan="off",
            ws="none",
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        server = uvicorn.Server(config)
        with listen(*self._address, "GTX_CLOUD_HTTP_BIND") as listener:
            stop.tell(lambda: setattr(server, "should_exit", True))
            asyncio.run(self._serve(server, listener))

    async def _serve(self, server: uvicorn.Server, listener: socket.socket) -> None:
        anyio.to_thread.current_default_thread_limiter().total_tokens = self._threads
        await server.serve(sockets=[listener])

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
