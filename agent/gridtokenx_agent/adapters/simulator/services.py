"""Where simulated meters can be reached: a TCP port or a pseudo-terminal."""

import asyncio
import os
import tty
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, Self

from gridtokenx_agent.errors import ConfigError

_Conversation = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Send = Callable[[bytes], None]
"""Puts bytes on the wire."""
_Answer = Callable[[bytes, Send], Awaitable[bytes]]


class Service(Protocol):
    """A running simulator."""

    @property
    def url(self) -> str:
        """Where the agent finds it, as a bus URL."""
        ...

    async def close(self) -> None:
        """Stop serving."""
        ...


class TcpService:
    """A TCP port; each connection has its own conversation."""

    def __init__(self, kind: str, host: str, conversation: _Conversation) -> None:
        self._kind = kind
        self._host = host
        self._port = 0
        self._conversation = conversation
        self._clients: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """See `Service.url`."""
        return f"{self._kind}://{self._host}:{self._port}"

    async def start(self, port: int) -> Self:
        """Listen on *port*; 0 takes a free one."""
        self._server = await asyncio.start_server(self._on_client, self._host, port)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def close(self) -> None:
        """See `Service.close`."""
        if self._server is not None:
            self._server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a conversation runs in a task of its own")
        self._clients.add(task)
        try:
            # Python 3.11 logs a cancelled conversation as an error, so it ends like a closed one.
            with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._conversation(reader, writer)
        finally:
            self._clients.discard(task)
            writer.close()


class PtyService:
    """A pseudo-terminal under a stable path; it outlives every program that opens it."""

    def __init__(self, link: Path, answer: _Answer) -> None:
        if link.exists() and not link.is_symlink():
            raise ConfigError((f"{link} is in use; name a path where a link can be made",))
        self._link = link
        self._answer = answer
        # Our own open slave end keeps the terminal alive while the agent closes and reopens it.
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._device = os.ttyname(self._slave)
        try:
            link.unlink(missing_ok=True)
            link.symlink_to(self._device)
        except OSError:
            self._close_terminal()
            raise
        self._requests: asyncio.Queue[bytes] = asyncio.Queue()
        asyncio.get_running_loop().add_reader(self._master, self._on_bytes)
        self._task = asyncio.create_task(self._serve())

    @property
    def url(self) -> str:
        """See `Service.url`."""
        return f"rtu://{self._link}"

    async def close(self) -> None:
        """See `Service.close`."""
        asyncio.get_running_loop().remove_reader(self._master)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._close_terminal()
        # Another simulator may have taken the path over.
        if self._link.is_symlink() and str(self._link.readlink()) == self._device:
            self._link.unlink()

    def _close_terminal(self) -> None:
        os.close(self._master)
        os.close(self._slave)

    def _on_bytes(self) -> None:
        with suppress(BlockingIOError):
            self._requests.put_nowait(os.read(self._master, 1024))

    async def _serve(self) -> None:
        received = b""
        while True:
            received = await self._answer(received + await self._requests.get(), self._send)

    def _send(self, data: bytes) -> None:
        # A terminal nobody reads fills up; then the answer is lost, as on a real wire.
        with suppress(BlockingIOError):
            os.write(self._master, data)
