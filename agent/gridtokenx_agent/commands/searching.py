"""Goes over ports, line settings and device ids in search of meters."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from gridtokenx_agent.adapters.host import port_facts
from gridtokenx_agent.adapters.modbus import PymodbusBus, open_bus, parse_bus_url
from gridtokenx_agent.adapters.system import SystemClock
from gridtokenx_agent.diagnosis import Level, check_port
from gridtokenx_agent.errors import AgentError, ConfigError
from gridtokenx_agent.profiles import MeterProfile
from gridtokenx_agent.scanning import (
    ALL_UNITS,
    QUICK_UNITS,
    Found,
    Line,
    ask,
    identify,
    line_settings,
)

_MODBUS_PORT: Final = 502
_CONNECTIONS_AT_ONCE: Final = 32
_CONNECT_S: Final = 1.0
_SMALLEST_PREFIX: Final = 24
_TCP_UNITS: Final = (255, 0)
"""Many a meter with its own Ethernet port answers to nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundMeter:
    """A device and the bus URL it was found at."""

    url: str
    device: Found


@dataclass(slots=True, kw_only=True)
class Search:
    """A search in progress; what was found stays here when it is interrupted.

    Attributes:
        profiles: Candidates by name.
        full: Ask all 247 device ids, not only the first ten.
        tell: Takes one line about what is done now.
        found: Devices so far.
        remarks: What the user should know about ports and lines.
    """

    profiles: Mapping[str, MeterProfile]
    full: bool = False
    tell: Callable[[str], None] = lambda _line: None
    found: list[FoundMeter] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    async def serial(self, path: Path) -> None:
        """Try the line settings at one port until somebody answers."""
        check = check_port(port_facts(path), None)
        if check.level is Level.BAD:
            # No line setting opens a port that is not there, not for us, or somebody else's.
            self._remark(f"{check.name} {check.said}; {check.way_out}")
            return
        heard = False
        for line in line_settings(self.profiles.values()):
            url = (
                f"rtu://{path}?baudrate={line.baudrate}"
                f"&parity={line.parity}&stopbits={line.stopbits}"
            )
            heard = await self._listen(url, str(path), line) or heard
            if any(meter.url == url for meter in self.found):
                return
        if heard:
            self._remark(f"{path}: nobody answers; check power, A and B (swap them), try --full")

    async def url(self, url: str) -> None:
        """Search one bus whose settings are known."""
        place = parse_bus_url(url)
        line = Line(place.baudrate, place.parity, place.stopbits) if place.kind == "rtu" else None
        before = len(self.found)
        if await self._listen(url, str(place), line) and len(self.found) == before:
            self._remark(f"{place}: nobody answers")

    def _remark(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)

    async def _listen(self, url: str, name: str, line: Line | None) -> bool:
        """Ask the device ids of one bus; return False when it cannot be used."""
        units = _units(url, full=self.full)
        heard_garbage = False
        try:
            async with _opened(url) as bus:
                for unit in units:
                    self.tell(f"{name}{f' {line}' if line else ''}: device id {unit}")
                    heard = await ask(bus, unit, self.profiles)
                    heard_garbage = heard_garbage or heard == "garbage"
                    if heard is None and not await self._take(bus, url, unit, line):
                        break
        except AgentError as exc:
            self._remark(str(exc))
            return False
        if heard_garbage and not any(meter.url == url for meter in self.found):
            where = f" at {line}" if line else ""
            self._remark(f"{name}{where}: somebody speaks, but not with these settings")
        return True

    async def _take(self, bus: PymodbusBus, url: str, unit: int, line: Line | None) -> bool:
        """Identify who answered; return False when the bus has nobody else."""
        self.tell(f"{url}: device id {unit} answers, looking which meter it is")
        device = await identify(bus, unit, self.profiles, line)
        before = [meter.device.fingerprint for meter in self.found if meter.url == url]
        if line is None and device.fingerprint and device.fingerprint in before:
            self._remark(f"{url}: the same meter answers for every device id")
            return False
        self.found.append(FoundMeter(url=url, device=device))
        return True


def tcp_targets(texts: Iterable[str]) -> tuple[tuple[str, int, bool], ...]:
    """Return host, port and whether it must be tried first, for each endpoint to look at.

    Args:
        texts: `HOST`, `HOST:PORT` or `NETWORK/24`, each perhaps a comma list.

    Raises:
        ConfigError: Neither of them, or a network larger than a /24.
    """
    targets: list[tuple[str, int, bool]] = []
    for text in (part.strip() for entry in texts for part in entry.split(",")):
        if "/" in text:
            targets += [(host, _MODBUS_PORT, True) for host in _hosts(text)]
            continue
        try:
            parts = urlsplit(f"//{text}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host:
            raise ConfigError((f"--tcp {text}: give HOST, HOST:PORT or a network as 10.0.0.0/24",))
        targets.append((host, port or _MODBUS_PORT, False))
    return tuple(targets)


async def open_endpoints(targets: Iterable[tuple[str, int, bool]]) -> list[str]:
    """Return the bus URLs of the targets; of a network, only of those that accept a connection."""
    gate = asyncio.Semaphore(_CONNECTIONS_AT_ONCE)

    async def url_of(host: str, port: int, try_first: bool) -> str | None:
        shown = f"[{host}]" if ":" in host else host
        if not try_first:
            return f"tcp://{shown}:{port}"
        async with gate:
            return f"tcp://{shown}:{port}" if await _accepts(host, port) else None

    found = await asyncio.gather(*(url_of(*target) for target in targets))
    return [url for url in found if url is not None]


async def _accepts(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[PymodbusBus]:
    bus = open_bus(url, SystemClock())
    try:
        yield bus
    finally:
        await bus.close()


def _units(url: str, *, full: bool) -> tuple[int, ...]:
    units = ALL_UNITS if full else QUICK_UNITS
    return (*units, *_TCP_UNITS) if url.startswith("tcp:") else units


def _hosts(text: str) -> list[str]:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as exc:
        raise ConfigError((f"--tcp {text}: {exc}",)) from exc
    if network.version != 4 or network.prefixlen < _SMALLEST_PREFIX:
        raise ConfigError((f"--tcp {text}: a /{_SMALLEST_PREFIX} network is the most",))
    return [str(host) for host in network.hosts()]
