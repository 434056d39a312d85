"""The role every process has: it shows its figures to Prometheus at `/metrics`."""

import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer

from gridtokenx_cloud.metrics import Figure, exposition
from gridtokenx_cloud.roles.api import listen
from gridtokenx_cloud.supervisor import StopSignal

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_CLIENT_TIMEOUT_S = 5


class MetricsRole:
    """One small server, one request at a time; nothing of an owner is shown.

    Args:
        collect: Returns the figures of this moment.
        host: Address to listen on.
        port: Port to listen on.
    """

    name = "metrics"

    def __init__(self, collect: Callable[[], Iterable[Figure]], host: str, port: int) -> None:
        self._collect = collect
        self._address = (host, port)

    def run(self, stop: StopSignal) -> None:
        """See `Role.run`."""
        with (
            listen(*self._address, "GTX_CLOUD_METRICS_BIND") as listener,
            HTTPServer(self._address, self._handler(), bind_and_activate=False) as server,
        ):
            server.socket.close()
            server.socket = listener
            # `shutdown` waits for the loop that this thread runs, so another thread must call it.
            stop.tell(lambda: threading.Thread(target=server.shutdown, daemon=True).start())
            if not stop.is_set():
                server.serve_forever()

    def trouble(self) -> str | None:
        """See `Role.trouble`: nobody's work waits for figures."""
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collect = self._collect

        class Handler(BaseHTTPRequestHandler):
            timeout = _CLIENT_TIMEOUT_S

            def do_GET(self) -> None:
                if self.path != "/metrics":
                    self.send_error(HTTPStatus.NOT_FOUND, "the figures are at /metrics")
                    return
                body = exposition(collect()).encode()
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Type", _CONTENT_TYPE)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name
                """Say nothing: a scrape every 15 s is no event."""

        return Handler
