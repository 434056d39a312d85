"""The events server: sockets, handshakes and timers around an `EventHub`, in a thread of its own.

Its event loop carries nothing else: an HTTP answer never waits for a fan-out. The only module
that knows the websockets library.
"""

import asyncio
import gc
import http
import logging
import random
import socket
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.connection import broadcast
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from gridtokenx_cloud.errors import ConfigError, TransientError
from gridtokenx_cloud.event_protocol import (
    MAX_MESSAGE_BYTES,
    SUBPROTOCOL,
    CloseCode,
    Connect,
    ProtocolFault,
    Refresh,
    SetFilter,
    dump,
    parse_message,
)
from gridtokenx_cloud.event_queue import TokenBucket
from gridtokenx_cloud.events import MeterReadingReceived
from gridtokenx_cloud.ports.events import EventAccess, EventHub, Principal

_log = logging.getLogger(__name__)
# Port scanners and broken clients are no errors of ours; the library would print a traceback each.
_library_log = logging.getLogger("gridtokenx_cloud.websockets")
_library_log.setLevel(logging.CRITICAL)

_PING_S = 20.0
_CLOSE_TIMEOUT_S = 2.0
_BACKLOG = 4096
_DRAIN_STEP_S = 0.05
_TICK_S = 0.5
_GOODBYES_PER_STEP = 500
_FREEZE_EVERY = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class EventServerLimits:
    """What one client may cost.

    Attributes:
        auth_timeout_s: Time for the first message.
        max_connections: All connections together, before the handshake.
        messages_per_s: Messages a client may send in the long run; `message_burst` at once.
        send_buffer_bytes: Kernel buffer per socket, so that it does not hide a slow client.
        poll_interval_s: The outbox is looked at this often without a wake-up.
        tune_gc: Raise the collector's thresholds for the whole process; right where it serves
            thousands of sockets, where a full collection stalls all of them.
    """

    auth_timeout_s: float = 5.0
    max_connections: int = 10_000
    messages_per_s: float = 20.0
    message_burst: int = 40
    send_buffer_bytes: int = 65_536
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


class EventServer:
    """Serves `gridtokenx.v1` at `/ws`; `start`, `stop`, `wake` and `publish_sample` from anywhere.

    Attributes:
        failure: What ended the server although nobody stopped it.
    """

    def __init__(
        self,
        host: str,
        port: int,
        hub: EventHub,
        access: EventAccess,
        allowed_origins: tuple[str, ...],
        limits: EventServerLimits | None = None,
    ) -> None:
        self._address = (host, port)
        self._hub = hub
        self._access = access
        self._origins = frozenset(allowed_origins)
        self._limits = limits or EventServerLimits()
        self._spawn = _Spawn()
        self._open = 0
        self._accepted = 0
        self._samples: dict[str, tuple[str, MeterReadingReceived]] = {}
        self._samples_lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._stopping = asyncio.Event()
        self._started = threading.Event()
        self._thread: threading.Thread | None = None
        self.failure: BaseException | None = None
        self.port = port

    def start(self) -> None:
        """Listen, and return once connections are taken.

        Raises:
            ConfigError: The address cannot be bound.
        """
        host, port = self._address
        try:
            listener = self._listen()
        except OSError as exc:
            raise ConfigError((f"WEBSOCKET_BIND {host}:{port} cannot be bound: {exc}",)) from exc
        self.port = listener.getsockname()[1]
        self._thread = threading.Thread(target=self._run, args=(listener,), name="events-server")
        self._thread.start()
        self._started.wait()

    def _listen(self) -> socket.socket:
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Accepted sockets inherit it.
            size = self._limits.send_buffer_bytes
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
            listener.bind((host, port))
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        return listener

    def stop(self, timeout_s: float = 10.0) -> None:
        """Send everybody away to come back (1012), and end the thread; safe to repeat."""
        if self._thread is None:
            return
        self._call(self._stopping.set)
        self._thread.join(timeout_s)
        self._thread = None

    @property
    def open_connections(self) -> int:
        """How many sockets are open now, signed in or not."""
        return self._open

    def wake(self) -> None:
        """Say that events were committed."""
        self._call(self._woken.set)

    def publish_sample(self, user_id: str, event: MeterReadingReceived) -> None:
        """Send a live value best effort; of one meter only the newest counts."""
        with self._samples_lock:
            self._samples[event.meter_id] = (user_id, event)
        self.wake()

    def _call(self, function: Any) -> None:
        loop = self._loop
        if loop is None:
            return
        try:
            loop.call_soon_threadsafe(function)
        except RuntimeError:
            # The loop ended between the two lines: there is nobody left to tell.
            return

    def _run(self, listener: socket.socket) -> None:
        try:
            asyncio.run(self._main(listener))
        except Exception as exc:  # noqa: BLE001 - end of a thread: kept for the supervisor, who restarts
            self.failure = exc
            _log.exception("events server ended")
        finally:
            self._loop = None
            self._started.set()

    async def _main(self, listener: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        async with serve(
            self._serve,
            sock=listener,
            backlog=_BACKLOG,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression=None,
            process_request=self._screen,
            max_size=MAX_MESSAGE_BYTES,
            ping_interval=_PING_S,
            ping_timeout=_PING_S,
            close_timeout=_CLOSE_TIMEOUT_S,
            server_header=None,
            logger=_library_log,
        ) as server:
            self._hub.pump(self._loop.time())
            if self._limits.tune_gc:
                gc.set_threshold(50_000, 20, 100)
            self._started.set()
            _log.info("events server listens", extra={"port": self.port})
            await self._run_timers()
            await self._say_goodbye(server)

    async def _run_timers(self) -> None:
        """Work until `stop`; the first timer that fails ends the server with its error."""
        stopping = asyncio.create_task(self._stopping.wait())
        timers = [asyncio.create_task(work()) for work in (self._pump, self._drain, self._tick)]
        done, _ = await asyncio.wait([stopping, *timers], return_when=asyncio.FIRST_COMPLETED)
        for task in (stopping, *timers):
            task.cancel()
        await asyncio.gather(stopping, *timers, return_exceptions=True)
        for task in done:
            task.result()

    async def _pump(self) -> None:
        """Tail the outbox on each wake-up, or at the interval."""
        loop = asyncio.get_running_loop()
        broken = False
        while True:
            more = False
            try:
                self._send_samples()
                more = self._hub.pump(loop.time())
                broken = False
            except TransientError as exc:
                if not broken:
                    _log.warning("outbox cannot be read", extra={"reason": str(exc)})
                broken = True
            # Between two batches the loop serves its sockets.
            await asyncio.sleep(0)
            if not more:
                await self._sleep_until_woken()

    async def _sleep_until_woken(self) -> None:
        try:
            async with asyncio.timeout(self._limits.poll_interval_s):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()

    def _send_samples(self) -> None:
        with self._samples_lock:
            samples, self._samples = self._samples, {}
        now_s = asyncio.get_running_loop().time()
        for user_id, event in samples.values():
            self._hub.publish_sample(user_id, event, now_s)

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_DRAIN_STEP_S)
            self._hub.drain(loop.time())

    async def _tick(self) -> None:
        """Every half second, so that an ended session is closed within one."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK_S)
            credentials = self._hub.tick(loop.time())
            if not credentials:
                continue
            try:
                ended = await asyncio.to_thread(self._access.ended, credentials)
            except TransientError as exc:
                _log.warning("sessions cannot be checked", extra={"reason": str(exc)})
                continue
            self._hub.end_credentials(ended)

    async def _say_goodbye(self, server: Server) -> None:
        """Send clients away in batches, so that they do not all come back at once."""
        server.close(close_connections=False)
        connections = list(server.connections)
        for start in range(0, len(connections), _GOODBYES_PER_STEP):
            batch = connections[start : start + _GOODBYES_PER_STEP]
            await asyncio.gather(
                *(one.close(CloseCode.RESTART, "server restarts") for one in batch),
                return_exceptions=True,
            )

    async def _screen(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuse before the upgrade: wrong path, foreign origin, bad bearer, no room."""
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
            allowed = authorization is not None
        if not allowed:
            return connection.respond(http.HTTPStatus.FORBIDDEN, "this origin is not allowed\n")
        if self._open >= self._limits.max_connections:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "no room now\n")
        # Connections opened together must not be pinged together ever after.
        connection.ping_interval = _PING_S * random.uniform(0.75, 1.0)  # noqa: S311 - no secret
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        self._open += 1
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
        finally:
            self._open -= 1

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
        conn = self._hub.admit(principal, outlet, request, loop.time())
        try:
            await self._listen_to(connection, conn)
        finally:
            self._hub.release(conn)

    async def _introduce(self, connection: ServerConnection) -> tuple[Principal, Connect]:
        message = parse_message(await connection.recv())
        if not isinstance(message, Connect):
            raise ProtocolFault(CloseCode.BAD_MESSAGE, "bad_message", "connect comes first")
        request = connection.request
        authorization = None if request is None else request.headers.get("Authorization")
        principal = await asyncio.to_thread(self._identify, message.ticket, authorization)
        return principal, message

    def _identify(self, ticket: str | None, authorization: str | None) -> Principal:
        if ticket is not None:
            principal = self._access.redeem_ticket(ticket)
        else:
            scheme, _, token = (authorization or "").partition(" ")
            principal = self._access.authenticate(token) if scheme == "Bearer" else None
        if principal is None:
            raise ProtocolFault(
                CloseCode.INVALID_TICKET, "invalid_ticket", "get a new ticket and connect again"
            )
        self._hub.prepare(principal)
        return principal

    async def _listen_to(self, connection: ServerConnection, conn: str) -> None:
        loop = asyncio.get_running_loop()
        bucket = TokenBucket(self._limits.messages_per_s, self._limits.message_burst)
        async for text in connection:
            if not bucket.take(loop.time()):
                raise ProtocolFault(CloseCode.RATE_LIMITED, "rate_limited", "too many messages")
            match parse_message(text):
                case SetFilter(subscription):
                    self._hub.set_filter(conn, subscription)
                case Refresh(ticket):
                    principal = await asyncio.to_thread(self._identify, ticket, None)
                    self._hub.refresh(conn, principal)
                case Connect():
                    detail = "this connection is connected already"
                    raise ProtocolFault(CloseCode.BAD_MESSAGE, "bad_message", detail)


async def _refuse(connection: ServerConnection, fault: ProtocolFault) -> None:
    """Tell the peer why, then close."""
    frame = dump({"op": "error", "code": fault.code, "detail": str(fault)})
    broadcast((connection,), frame)
    await connection.close(fault.close_code, fault.code)
