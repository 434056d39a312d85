"""What one client and the server say to each other, from the handshake to the last frame."""

import asyncio
import gc
import http
import logging
import random
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.connection import broadcast
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from gridtokenx_cloud.adapters.limits import AccessLimits
from gridtokenx_cloud.errors import TransientError
from gridtokenx_cloud.event_protocol import (
    CloseCode,
    Connect,
    ProtocolFault,
    Refresh,
    SetFilter,
    dump,
    parse_message,
)
from gridtokenx_cloud.event_queue import TokenBucket
from gridtokenx_cloud.ports.events import ANONYMOUS, Audience, EventAccess, Principal

_log = logging.getLogger(__name__)

PING_S = 20.0
_FREEZE_EVERY = 1_000
_NO_ROOM_S = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class EventServerLimits:
    """What one client may cost.

    Attributes:
        auth_required: Whether a client has to say who it is.
        auth_timeout_s: Time for the first message.
        max_connections: All connections together, before the handshake.
        messages_per_s: Messages a client may send in the long run; `message_burst` at once.
        send_buffer_bytes: Kernel buffer per socket, so that it does not hide a slow client.
        compression: Whether deflate is offered; each socket then has an encoding of its own.
        poll_interval_s: The outbox is looked at this often without a wake-up.
        tune_gc: Raise the collector's thresholds for the whole process; right where it serves
            thousands of sockets, where a full collection stalls all of them.
    """

    auth_required: bool = True
    auth_timeout_s: float = 5.0
    max_connections: int = 10_000
    messages_per_s: float = 20.0
    message_burst: int = 40
    send_buffer_bytes: int = 65_536
    compression: bool = False
    poll_interval_s: float = 1.0
    tune_gc: bool = False


class _SocketOutlet:
    """`Outlet` over one websockets connection."""

    def __init__(self, connection: ServerConnection, spawn: "_Spawn") -> None:
        self._connection = connection
        self._spawn = spawn

    def send(self, text: str) -> None:
        """See `Outlet.send`."""
        broadcast((self._connection,), text)

    def buffered_bytes(self) -> int:
        """See `Outlet.buffered_bytes`."""
        return self._connection.transport.get_write_buffer_size()

    def close(self, code: int, reason: str) -> None:
        """See `Outlet.close`."""
        self._spawn(self._connection.close(code, reason))

    def abort(self) -> None:
        """See `Outlet.abort`."""
        self._connection.transport.abort()


class _Spawn:
    """Starts tasks nobody waits for, and keeps them from being collected."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Reception:
    """Lets clients in, hears them, and sees them off.

    Attributes:
        open_connections: Sockets that are open now, signed in or not.
    """

    def __init__(
        self,
        audience: Audience,
        access: EventAccess,
        allowed_origins: tuple[str, ...],
        limits: EventServerLimits,
        access_limits: AccessLimits,
    ) -> None:
        self._access_limits = access_limits
        self._audience = audience
        self._access = access
        self._origins = frozenset(allowed_origins)
        self._limits = limits
        self._spawn = _Spawn()
        self._accepted = 0
        self.open_connections = 0

    async def screen(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuse before the upgrade: wrong path, foreign origin, a guesser, no room."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "ok\n")
        if path != "/ws":
            return connection.respond(http.HTTPStatus.NOT_FOUND, "the events are at /ws\n")
        origins = request.headers.get_all("Origin")
        authorization = request.headers.get("Authorization")
        if origins:
            allowed = len(origins) == 1 and origins[0] in self._origins
        else:
            allowed = authorization is not None or not self._limits.auth_required
        if not allowed:
            return connection.respond(http.HTTPStatus.FORBIDDEN, "this origin is not allowed\n")
        if wait_s := self._access_limits.sign_in_wait_s(self._address_of(connection, request)):
            text = f"too many wrong tickets from your address; come back in {wait_s} s\n"
            return _put_off(connection, http.HTTPStatus.TOO_MANY_REQUESTS, text, wait_s)
        if self.open_connections >= self._limits.max_connections:
            return _put_off(
                connection, http.HTTPStatus.SERVICE_UNAVAILABLE, "no room now\n", _NO_ROOM_S
            )
        # Connections opened together must not be pinged together ever after.
        connection.ping_interval = PING_S * random.uniform(0.75, 1.0)  # noqa: S311 - no secret
        return None

    def _address_of(self, connection: ServerConnection, request: Request) -> str:
        peer = connection.remote_address
        forwarded = ",".join(request.headers.get_all("X-Forwarded-For"))
        return self._access_limits.address_of(peer[0] if peer else "", forwarded)

    async def serve(self, connection: ServerConnection) -> None:
        """Have one whole conversation; however it ends, nothing of it stays."""
        self.open_connections += 1
        self._accepted += 1
        if self._limits.tune_gc and self._accepted % _FREEZE_EVERY == 1:
            gc.freeze()
        try:
            await self._converse(connection)
        except ProtocolFault as fault:
            await _refuse(connection, fault)
        except ConnectionClosed:
            # How most conversations end.
            return
        except TransientError as exc:
            _log.warning("a connection was put off", extra={"reason": str(exc)})
            await connection.close(CloseCode.OVERLOADED, "try again later")
        except Exception:  # noqa: BLE001 - a bug met by one client must show, and end only that one
            _log.exception("a connection failed")
            await connection.close(CloseCode.BUG, "fault on our side")
        finally:
            self.open_connections -= 1

    async def _converse(self, connection: ServerConnection) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._limits.auth_timeout_s):
                principal, request = await self._introduce(connection)
        except TimeoutError as exc:
            raise ProtocolFault(
                CloseCode.CONNECT_TIMEOUT, "connect_timeout", "no connect message in time"
            ) from exc
        outlet = _SocketOutlet(connection, self._spawn)
        conn = self._audience.admit(principal, outlet, request, loop.time())
        try:
            await self._listen_to(connection, conn)
        finally:
            self._audience.release(conn)

    async def _introduce(self, connection: ServerConnection) -> tuple[Principal, Connect]:
        message = parse_message(await connection.recv())
        if not isinstance(message, Connect):
            raise ProtocolFault(CloseCode.BAD_MESSAGE, "bad_message", "connect comes first")
        request = connection.request
        authorization = None if request is None else request.headers.get("Authorization")
        address = "" if request is None else self._address_of(connection, request)
        principal = await asyncio.to_thread(self._identify, message.ticket, authorization, address)
        return principal, message

    def _identify(self, ticket: str | None, authorization: str | None, address: str) -> Principal:
        principal = self._known(ticket, authorization, address)
        if principal is None:
            self._access_limits.failed(address)
            raise ProtocolFault(
                CloseCode.INVALID_TICKET, "invalid_ticket", "get a new ticket and connect again"
            )
        if principal.role != ANONYMOUS:
            self._count(principal)
        self._audience.prepare(principal)
        return principal

    def _known(
        self, ticket: str | None, authorization: str | None, address: str
    ) -> Principal | None:
        if ticket is not None:
            return self._access.redeem_ticket(ticket)
        if authorization is None and not self._limits.auth_required:
            return Principal(role=ANONYMOUS, user_id=None, label=address, token_hash="")
        scheme, _, token = (authorization or "").partition(" ")
        return self._access.authenticate(token) if scheme == "Bearer" else None

    def _count(self, principal: Principal) -> None:
        if wait_s := self._access_limits.request_wait_s(principal.token_hash):
            detail = f"this token connects too often; come back in {wait_s} s"
            raise ProtocolFault(CloseCode.RATE_LIMITED, "rate_limited", detail)

    async def _listen_to(self, connection: ServerConnection, conn: str) -> None:
        loop = asyncio.get_running_loop()
        bucket = TokenBucket(self._limits.messages_per_s, self._limits.message_burst)
        async for text in connection:
            if not bucket.take(loop.time()):
                raise ProtocolFault(CloseCode.RATE_LIMITED, "rate_limited", "too many messages")
            match parse_message(text):
                case SetFilter(subscription):
                    self._audience.set_filter(conn, subscription)
                case Refresh(ticket):
                    principal = await asyncio.to_thread(self._identify, ticket, None, "")
                    self._audience.refresh(conn, principal)
                case Connect():
                    detail = "this connection is connected already"
                    raise ProtocolFault(CloseCode.BAD_MESSAGE, "bad_message", detail)


def _put_off(
    connection: ServerConnection, status: http.HTTPStatus, text: str, wait_s: int
) -> Response:
    response = connection.respond(status, text)
    response.headers["Retry-After"] = str(wait_s)
    return response


async def _refuse(connection: ServerConnection, fault: ProtocolFault) -> None:
    """Tell the peer why, then close."""
    frame = dump({"op": "error", "code": fault.code, "detail": str(fault)})
    broadcast((connection,), frame)
    await connection.close(fault.close_code, fault.code)
