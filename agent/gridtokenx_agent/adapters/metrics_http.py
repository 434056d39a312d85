"""Shows the metrics to whoever asks on a local port; a page of HTTP needs no library."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from gridtokenx_agent.errors import ConfigError

_MOST_HEAD_BYTES = 8192
_PATIENCE_S = 5.0


class MetricsServer:
    """Serves `GET /metrics` and, for a probe, `GET /healthz`."""

    def __init__(
        self,
        host: str,
        port: int,
        render: Callable[[], Awaitable[str]],
        unwell: Callable[[], tuple[str, ...]],
    ) -> None:
        self._place = (host, port)
        self._render = render
        self._unwell = unwell
        self.port = port

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            ConfigError: The address is taken or not this machine's.
        """
        host, port = self._place
        try:
            server = await asyncio.start_server(self._serve, host, port, limit=_MOST_HEAD_BYTES)
        except OSError as exc:
            raise ConfigError(
                (f"metrics.bind {host}:{port} cannot be used ({exc}); choose another port",)
            ) from exc
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(
            TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
        ):
            async with asyncio.timeout(_PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(head.split(b"\r\n", 1)[0]))
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def _answer(self, request: bytes) -> bytes:
        match request.split(b" "):
            case [b"GET", b"/metrics", _]:
                return _page("200 OK", await self._render())
            case [b"GET", b"/healthz", _]:
                late = self._unwell()
                status = "503 Service Unavailable" if late else "200 OK"
                return _page(status, "".join(f"{name} is stuck\n" for name in late) or "ok\n")
            case [b"GET", _, _]:
                return _page("404 Not Found", "only /metrics and /healthz are here\n")
        return _page("405 Method Not Allowed", "only GET is answered\n")


def _page(status: str, text: str) -> bytes:
    body = text.encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
