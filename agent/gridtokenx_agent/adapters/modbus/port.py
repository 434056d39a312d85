"""The serial port or TCP connection of a bus: opened when needed, and anew when it is lost."""

import asyncio
import errno
import termios
import traceback
from collections.abc import Callable
from typing import Final

from pymodbus import FramerType
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient

from gridtokenx_agent.adapters.modbus.answers import AnswerGate
from gridtokenx_agent.adapters.modbus.endpoint import BusEndpoint
from gridtokenx_agent.errors import BusDownError

Client = AsyncModbusSerialClient | AsyncModbusTcpClient

_CONNECT_TIMEOUT_S: Final = 3.0
_FIRST_BACKOFF_S: Final = 1.0
_LONGEST_BACKOFF_S: Final = {"rtu": 5.0, "rtu+tcp": 30.0, "tcp": 30.0}
_RECEIVE_LIMIT: Final = 4096
"""pymodbus drops all it has at 264 bytes: too few for an echo or a foreign frame before ours."""

_SERIAL_REASONS: Final = {
    errno.ENOENT: "it is not there; plug the adapter in, `ls -l /dev/serial/by-id` shows its name",
    errno.EACCES: "no permission; run it with sudo, or `sudo usermod -aG dialout $USER` and log "
    "in anew",
    errno.EPERM: "no permission; the service's DeviceAllow= must name this kind of port",
    errno.EBUSY: "another program has it open; stop that one, as with `sudo systemctl stop "
    "gridtokenx-agent`",
    errno.EIO: "the adapter answers no more; pull it and plug it in again",
}


class Port:
    """At most one connection to an endpoint.

    Attributes:
        has_answered: A true answer came over the connection that is open.
    """

    def __init__(
        self,
        endpoint: BusEndpoint,
        new_gate: Callable[[], AnswerGate],
        on_loss: Callable[[Exception], None],
    ) -> None:
        self._endpoint = endpoint
        self._new_gate = new_gate
        self._on_loss = on_loss
        self._client: Client | None = None
        self._gate: AnswerGate | None = None
        self._backoff_s = _FIRST_BACKOFF_S
        self._next_connect_s = 0.0
        self.has_answered = False

    @property
    def is_open(self) -> bool:
        """Whether there is a connection, or was until a moment ago."""
        return self._client is not None

    def answered(self) -> None:
        """Note that somebody is there: the next loss is mended without waiting long."""
        self.has_answered = True
        self._backoff_s = _FIRST_BACKOFF_S

    def drop(self) -> None:
        """Close the connection; the next request opens another."""
        client, self._client, self._gate = self._client, None, None
        self.has_answered = False
        if client is not None:
            client.close()

    async def connected(self) -> tuple[Client, AnswerGate]:
        """Return the connection, opened if need be, and what listens to it.

        Raises:
            BusDownError: It cannot be opened, or it is not time yet to try again.
        """
        if self._client is not None and self._gate is not None and self._client.connected:
            return self._client, self._gate
        self.drop()
        wait_s = self._next_connect_s - asyncio.get_running_loop().time()
        if wait_s > 0:
            raise BusDownError(f"{self._endpoint} is not there; next try in {wait_s:.0f} s")
        await self._connect()
        if self._client is None or self._gate is None:
            raise BusDownError(f"{self._endpoint} was closed while it was opened")
        return self._client, self._gate

    async def _connect(self) -> None:
        """Open the port once; a failure makes the next attempt wait.

        pymodbus's own `connect` says only that it failed, and its reconnecting never begins
        unless a first connection was made, so both are done here.
        """
        gate = self._new_gate()
        client = self._new_client(gate)
        self._client, self._gate = client, gate
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                client.ctx.transport, _ = await client.ctx.call_create()
        except (OSError, ValueError, TimeoutError, termios.error) as exc:
            # termios.error is no OSError: an adapter that does not know a parity or a baud rate.
            # It leaves pymodbus with a port half set up, open and locked; the frames hold it.
            traceback.clear_frames(exc.__traceback__)
            self.drop()
            self._next_connect_s = asyncio.get_running_loop().time() + self._backoff_s
            self._backoff_s = min(2 * self._backoff_s, _LONGEST_BACKOFF_S[self._endpoint.kind])
            raise BusDownError(
                f"{self._endpoint} cannot be opened: {_reason(exc, self._endpoint.kind)}"
            ) from exc

    def _new_client(self, gate: AnswerGate) -> Client:
        place = self._endpoint
        client: Client
        if place.kind == "rtu":
            client = AsyncModbusSerialClient(
                place.host,
                baudrate=place.baudrate,
                parity=place.parity,
                stopbits=place.stopbits,
                reconnect_delay=0,
                retries=0,
                trace_packet=gate,
                trace_connect=self._on_connection,
            )
        else:
            client = AsyncModbusTcpClient(
                place.host,
                port=place.port,
                framer=FramerType.SOCKET if place.kind == "tcp" else FramerType.RTU,
                reconnect_delay=0,
                retries=0,
                trace_packet=gate,
                trace_connect=self._on_connection,
            )
        client.ctx.max_buffer_size = _RECEIVE_LIMIT
        return client

    def _on_connection(self, there: bool) -> None:
        if not there:
            self._on_loss(ConnectionError("the connection was lost"))


def _reason(exc: Exception, kind: str) -> str:
    """Return why a place cannot be opened, and the way out."""
    code = exc.errno if isinstance(exc, OSError) else None
    if kind == "rtu":
        # pyserial keeps no number where another program holds the port.
        busy = "exclusively lock" in str(exc)
        return _SERIAL_REASONS.get(errno.EBUSY if busy else code or 0, str(exc))
    if isinstance(exc, TimeoutError):
        return f"no connection within {_CONNECT_TIMEOUT_S:g} s; check address, port and cable"
    return f"{exc}; check address and port, and that it is switched on"
