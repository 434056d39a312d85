"""Where a bus is, from its URL."""

from dataclasses import dataclass
from typing import Final, Literal, get_args
from urllib.parse import SplitResult, parse_qsl, urlsplit

from gridtokenx_agent.errors import ConfigError

BusKind = Literal["tcp", "rtu+tcp", "rtu"]
_DEFAULT_PORT: Final = 502
_BITS_PER_CHARACTER: Final = 11
"""Start, eight data bits, parity or second stop bit, stop; Modbus over Serial Line 2.5.1."""
_DEFAULTS: Final = {"baudrate": "9600", "parity": "N", "stopbits": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class BusEndpoint:
    """A serial port or a TCP endpoint.

    Attributes:
        kind: tcp = Modbus TCP; rtu+tcp = serial frames through a serial server; rtu = serial.
        host: Host name or address, or the path of the serial device.
        port: TCP port; 0 for a serial device.
        baudrate: Speed of the wire; behind a serial server it only sets how long to wait.
    """

    kind: BusKind
    host: str
    port: int = 0
    baudrate: int = 9600
    parity: Literal["N", "E", "O"] = "N"
    stopbits: Literal[1, 2] = 1

    def __str__(self) -> str:
        return self.host if self.kind == "rtu" else f"{self.kind}://{self.host}:{self.port}"

    @property
    def gap_s(self) -> float:
        """Silence that ends a frame: 3.5 characters, or 1.75 ms above 19200 baud."""
        if self.kind == "tcp":
            return 0.0
        return max(3.5 * _BITS_PER_CHARACTER / self.baudrate, 0.00175)

    def wire_s(self, characters: int) -> float:
        """Return how long so many characters are on the wire; unknown, so 0, for Modbus TCP."""
        return 0.0 if self.kind == "tcp" else characters * _BITS_PER_CHARACTER / self.baudrate


def parse_bus_url(url: str) -> BusEndpoint:
    """Read the URL of a bus.

    Args:
        url: `tcp://host:502`, `rtu+tcp://host:port` or
            `rtu:///dev/ttyX?baudrate=9600&parity=N&stopbits=1`.

    Raises:
        ConfigError: Lists every fault.
    """
    parts = urlsplit(url)
    if parts.scheme not in get_args(BusKind):
        raise ConfigError((f"bus {url!r} must begin with tcp://, rtu+tcp:// or rtu://",))
    kind: BusKind = parts.scheme  # type: ignore[assignment]  # checked above
    faults: list[str] = []
    host, port = _place(kind, parts, faults)
    line = _line_settings(kind, parts, faults)
    if faults:
        raise ConfigError(tuple(f"bus {url!r}: {fault}" for fault in faults))
    return BusEndpoint(
        kind=kind,
        host=host,
        port=port,
        baudrate=int(line["baudrate"]),
        parity=line["parity"],  # type: ignore[arg-type]  # checked in _line_settings
        stopbits=int(line["stopbits"]),  # type: ignore[arg-type]  # checked in _line_settings
    )


def _place(kind: BusKind, parts: SplitResult, faults: list[str]) -> tuple[str, int]:
    if kind == "rtu":
        if parts.netloc or not parts.path.startswith("/"):
            faults.append("a serial port needs its absolute path, as in rtu:///dev/ttyUSB0")
        return parts.path, 0
    port: int | None = None
    try:
        port = parts.port
    except ValueError:
        faults.append("the port must be a number up to 65535")
    else:
        if port is None and kind == "rtu+tcp":
            faults.append("name the port of the serial server")
    if not parts.hostname:
        faults.append("name the host")
    if parts.path not in ("", "/") or parts.username:
        faults.append("only host and port belong here")
    return parts.hostname or "", port if port is not None else _DEFAULT_PORT


def _line_settings(kind: BusKind, parts: SplitResult, faults: list[str]) -> dict[str, str]:
    allowed = {"rtu": tuple(_DEFAULTS), "rtu+tcp": ("baudrate",), "tcp": ()}[kind]
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    faults += [
        f"unknown setting {key!r}; there is {', '.join(allowed) or 'none'}"
        for key in given
        if key not in allowed
    ]
    line = _DEFAULTS | given
    baudrate = line["baudrate"]
    if not (baudrate.isascii() and baudrate.isdecimal() and 300 <= int(baudrate) <= 921_600):
        faults.append(f"baudrate {baudrate!r} must be a number from 300 to 921600")
    if line["parity"] not in ("N", "E", "O"):
        faults.append(f"parity {line['parity']!r} must be N, E or O")
    if line["stopbits"] not in ("1", "2"):
        faults.append(f"stopbits {line['stopbits']!r} must be 1 or 2")
    return line
