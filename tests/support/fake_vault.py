"""A Vault whose transit engine holds one Ed25519 key, over plain HTTP on the loopback."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from solders.keypair import Keypair


@dataclass
class FakeVault:
    """What it answers; *status* other than 200 is given for every request."""

    pair: Keypair
    token: str
    url: str = ""
    status: int = 200
    body: bytes | None = None
    silent: bool = False
    paths: list[str] = field(default_factory=list)
    serving: set[asyncio.Task[None] | None] = field(default_factory=set)

    def answer(self, path: str, token: str, body: bytes) -> tuple[int, bytes]:
        self.paths.append(path)
        if token != self.token:
            return 403, b'{"errors":["permission denied"]}'
        if self.status != 200 or self.body is not None:
            return self.status, self.body or b"{}"
        signed = self.pair.sign_message(base64.b64decode(json.loads(body)["input"]))
        text = base64.b64encode(bytes(signed)).decode()
        return 200, json.dumps({"data": {"signature": f"vault:v1:{text}"}}).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.serving.add(asyncio.current_task())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request, *lines = head.split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        if self.silent:
            await reader.read()
        else:
            token = headers.get("x-vault-token", "")
            status, content = self.answer(request.split(" ")[1], token, body)
            writer.write(
                f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n"
                "Connection: close\r\n\r\n".encode()
                + content
            )
            await writer.drain()
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def fake_vault(pair: Keypair, token: str) -> AsyncIterator[FakeVault]:
    """Give a running one."""
    vault = FakeVault(pair, token)
    server = await asyncio.start_server(vault.serve, "127.0.0.1", 0)
    vault.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield vault
    await asyncio.gather(*(task for task in vault.serving if task is not None))
