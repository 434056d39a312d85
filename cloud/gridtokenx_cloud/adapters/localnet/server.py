"""The chain over HTTP: just enough of HTTP/1.1 for JSON-RPC clients, with keep-alive."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gridtokenx_cloud.adapters.localnet.chain import Localnet
from gridtokenx_cloud.adapters.localnet.errors import CutConnectionError
from gridtokenx_cloud.adapters.localnet.faults import Faults
from gridtokenx_cloud.adapters.localnet.rpc import answer
from gridtokenx_cloud.adapters.system import SystemClock

_MAX_BODY_BYTES = 1_048_576
_REASONS = {200: "OK", 400: "Bad Request", 405: "Method Not Allowed", 429: "Too Many Requests"}


class LocalnetServer:
    """A listening chain; `async with` closes it and every connection."""

    def __init__(self, chain: Localnet, faults: Faults | None = None) -> None:
        self.chain = chain
        self.faults = faults or chain.faults
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> None:
        """Listen; port 0 takes a free one."""
        self._server = await asyncio.start_server(self._connected, host, port)

    @property
    def url(self) -> str:
        """Where clients connect."""
        if self._server is None:
            raise RuntimeError("localnet server is not started; call start() first")
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def close(self) -> None:
        """Stop listening and close every connection."""
        if self._server is not None:
            self._server.close()
        self.drop_connections()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drop_connections(self) -> None:
        """Cut every client off, in the middle of whatever it does."""
        for writer in self._writers:
            writer.transport.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._writers.add(writer)
        try:
            while await self._exchange(reader, writer):
                pass
        except CutConnectionError as cut:
            writer.transport.abort()
            if cut.everyone:
                self.drop_connections()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; false when the connection is to be closed after it."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > _MAX_BODY_BYTES:
            writer.write(_response(400, {"error": "Content-Length missing or too large"}))
            await writer.drain()
            return False
        body = await reader.readexactly(int(length))
        keep = headers.get("connection", "").lower() != "close"
        if head[0].startswith("POST "):
            writer.write(self._respond(body))
        else:
            writer.write(_response(405, {"error": "JSON-RPC takes POST"}))
        await writer.drain()
        return keep

    def _respond(self, body: bytes) -> bytes:
        try:
            request = json.loads(body)
        except ValueError:
            error = {"code": -32700, "message": "Parse error"}
            return _response(200, {"jsonrpc": "2.0", "id": None, "error": error})
        if isinstance(request, list):
            return _response(200, [answer(self.chain, single, self.faults) for single in request])
        refused = "" if _is_control(request) else self.faults.too_many_requests()
        if refused == "http":
            return _response(429, {"error": "Too many requests"})
        if refused == "rpc":
            error = {"code": 429, "message": "Too many requests"}
            return _response(200, {"jsonrpc": "2.0", "id": request.get("id"), "error": error})
        return _response(200, answer(self.chain, request, self.faults))


def _is_control(request: Any) -> bool:
    """Tell whether a test speaks here, which no fault may hit."""
    method = request.get("method") if isinstance(request, dict) else None
    return not isinstance(method, str) or method.startswith("gtx_")


def _response(status: int, content: Any) -> bytes:
    body = json.dumps(content, separators=(",", ":")).encode()
    head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\n"
    if status == 429:
        head += "Retry-After: 1\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def serve(
    chain: Localnet, host: str = "127.0.0.1", port: int = 0, faults: Faults | None = None
) -> LocalnetServer:
    """Serve a chain; blocks are made by `tick`, or by hand with `chain.advance()`.

    A second server of one chain is a second node of its cluster; *faults* are that node's own.
    """
    server = LocalnetServer(chain, faults)
    await server.start(host, port)
    return server


async def tick(chain: Localnet, block_ms: int) -> None:
    """Make a block every *block_ms*, until cancelled."""
    while True:
        await asyncio.sleep(block_ms / 1000)
        chain.advance()


async def run_localnet(
    host: str,
    port: int,
    *,
    block_ms: int,
    state_file: Path | None,
    nodes: int = 1,
    on_ready: Callable[[str], None] = lambda _url: None,
) -> None:
    """Run a localnet until cancelled.

    Args:
        host: Address to listen on.
        port: Port to listen on, 0 = a free one.
        block_ms: Time between blocks; real clusters take 400.
        state_file: Where the chain survives a restart; None forgets it.
        nodes: How many RPC nodes the cluster has, each with faults of its own; they listen on
            the ports that follow.
        on_ready: Called with each node's URL once clients can connect.
    """
    clock = SystemClock()
    chain = Localnet(state_file, unix_time_s=lambda: clock.now_ms() // 1000)
    async with AsyncExitStack() as stack:
        stack.enter_context(closing(chain))
        for number in range(nodes):
            own = chain.faults if number == 0 else Faults()
            there = port + number if port else 0
            server = await stack.enter_async_context(await serve(chain, host, there, own))
            on_ready(server.url)
        await tick(chain, block_ms)
