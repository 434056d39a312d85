"""The events server: sockets, handshakes and timers around an `EventHub`, in a thread of its own.

Its event loop carries nothing else: an HTTP answer never waits for a fan-out.
"""

import asyncio
import gc
import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from websockets.asyncio.server import Server, serve
from websockets.typing import Subprotocol

from gridtokenx_cloud.adapters.limits import AccessLimits
from gridtokenx_cloud.adapters.websocket_api.conversation import (
    PING_S,
    EventServerLimits,
    Reception,
)
from gridtokenx_cloud.errors import ConfigError, EventsBusyError, TransientError
from gridtokenx_cloud.event_protocol import (
    MAX_MESSAGE_BYTES,
    SUBPROTOCOL,
    CloseCode,
)
from gridtokenx_cloud.events import MeterReadingReceived
from gridtokenx_cloud.ports.events import EventAccess, EventHub

_log = logging.getLogger(__name__)
# Port scanners and broken clients are no errors of ours; the library would print a traceback each.
_library_log = logging.getLogger("gridtokenx_cloud.websockets")
_library_log.setLevel(logging.CRITICAL)

_CLOSE_TIMEOUT_S = 2.0
_BACKLOG = 4096
_DRAIN_STEP_S = 0.05
_TICK_S = 0.5
_GOODBYES_PER_STEP = 500
_ASK_TIMEOUT_S = 5.0
T = TypeVar("T")


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
        access_limits: AccessLimits,
        limits: EventServerLimits | None = None,
    ) -> None:
        self._address = (host, port)
        self._hub = hub
        self._access = access
        self._limits = limits or EventServerLimits()
        self._reception = Reception(hub, access, allowed_origins, self._limits, access_limits)
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
        return self._reception.open_connections

    def wake(self) -> None:
        """Say that events were committed."""
        self._call(self._woken.set)

    def publish_sample(self, user_id: str, event: MeterReadingReceived) -> None:
        """Send a live value best effort; of one meter only the newest counts."""
        with self._samples_lock:
            self._samples[event.meter_id] = (user_id, event)
        self.wake()

    def connections(self) -> list[dict[str, object]]:
        """Return who is connected; see `Feed.listeners`."""
        return self._ask(self._hub.listeners)

    def close_connection(self, conn: str) -> bool:
        """Close a connection for good; return whether there was one of this id."""
        return self._ask(lambda: self._hub.dismiss(conn))

    def _ask(self, function: Callable[[], T]) -> T:
        """Run *function* in the loop, where the connections are, and return what it returns.

        Raises:
            EventsBusyError: The server is ending, or too busy to say.
        """
        answer: Future[T] = Future()

        def work() -> None:
            answer.set_result(function())

        self._call(work)
        try:
            return answer.result(_ASK_TIMEOUT_S)
        except TimeoutError as exc:
            raise EventsBusyError("the events server does not answer now; try again") from exc

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
            self._reception.serve,
            sock=listener,
            backlog=_BACKLOG,
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            compression="deflate" if self._limits.compression else None,
            process_request=self._reception.screen,
            max_size=MAX_MESSAGE_BYTES,
            ping_interval=PING_S,
            ping_timeout=PING_S,
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
