"""Brings another configuration into force while the agent runs, and back if it does not do."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from gridtokenx_agent.errors import ConfigError
from gridtokenx_agent.fleet import Fleet
from gridtokenx_agent.ports import Clock
from gridtokenx_agent.remote import Answer
from gridtokenx_agent.settings import AgentSettings, BusSettings

BROKER_PATIENCE_MS = 120_000
_LOOK_MS = 500
_FIXED = ("gateway", "cloud", "buffer")
"""Who the gateway is, whom it believes and where it keeps what it has: never changed on the run."""
_log = logging.getLogger(__name__)


class Staged(Protocol):
    """A new configuration that is not in force yet."""

    @property
    def path(self) -> Path:
        """Where it waits."""
        ...

    def adopt(self) -> None:
        """Make it the configuration of the next start; raises `ConfigError`."""
        ...


class Services(Protocol):
    """What a configuration governs beside the buses."""

    @property
    def connected(self) -> bool:
        """Whether the broker has this gateway's session."""
        ...

    async def switch(self, settings: AgentSettings) -> None:
        """Restart what its section of the configuration changed."""
        ...


class Configuration:
    """The configuration in force."""

    def __init__(
        self,
        path: Path,
        settings: AgentSettings,
        read: Callable[[Path], AgentSettings],
        stage: Callable[[Path, str], AbstractContextManager[Staged]],
        fleet: Fleet,
        services: Services,
        clock: Clock,
    ) -> None:
        self.settings = settings
        self._path = path
        self._read = read
        self._stage = stage
        self._fleet = fleet
        self._services = services
        self._clock = clock
        self._lock = asyncio.Lock()

    async def reload(self) -> None:
        """Take what someone on site wrote into the file; a wrong one changes nothing."""
        async with self._lock:
            await self._reload()

    async def change(self, text: str) -> Answer:
        """Try a whole new configuration, and keep it when meters and broker still answer.

        It is written over the file only then: whatever ends the agent before leaves the old one.
        """
        async with self._lock:
            return await self._change(text)

    async def _reload(self) -> None:
        try:
            new = self._read(self._path)
            self._refuse(new)
        except ConfigError as exc:
            _log.error("configuration refused, the old one goes on", extra={"faults": exc.faults})
            return
        if new == self.settings:
            _log.info("configuration is the same")
            return
        try:
            await self._switch(new)
        except ConfigError as exc:
            await self._switch(self.settings)
            _log.error("configuration taken back", extra={"faults": exc.faults})
            return
        _log.info("configuration changed", extra={"buses": len(new.bus)})

    async def _change(self, text: str) -> Answer:
        try:
            with self._stage(self._path, text) as staged:
                new = self._read(staged.path)
                self._refuse(new)
                if new == self.settings:
                    return Answer(outcome="done", detail="the configuration is the same")
                return await self._try(new, staged)
        except ConfigError as exc:
            faults = "; ".join(exc.faults).replace(f"{self._path.resolve().parent}/.", "")
            return Answer(outcome="refused", detail=faults)

    async def _try(self, new: AgentSettings, staged: Staged) -> Answer:
        old = self.settings
        answered = await self._fleet.answering(self._leaving(new))
        kept = False
        try:
            await self._switch(new)
            fault = await self._fault(new, old, answered)
            if fault is None:
                staged.adopt()
                kept = True
                return Answer(outcome="done", detail="the configuration is in force")
        except ConfigError as exc:
            fault = str(exc)
        finally:
            if not kept:
                await self._switch(old)
        _log.error("configuration taken back", extra={"reason": fault})
        return Answer(outcome="failed", detail=f"{fault}; the old configuration is back")

    async def _fault(
        self, new: AgentSettings, old: AgentSettings, answered: set[str]
    ) -> str | None:
        """Return what no longer answers although it did before; None = all is well.

        Another broker must be reached even where the old one is away just now: the command came
        over it, and a gateway at a broker that does not exist takes no other command.
        """
        for bus in self._fleet.holding(answered):
            if bus not in old.bus and not await self._fleet.wait_for(bus, answered):
                return f"bus {bus.url} stays dead"
        if new.mqtt != old.mqtt and not await self._broker_is_back():
            return f"broker {new.mqtt.url} is not reached"
        return None

    async def _broker_is_back(self) -> bool:
        end_ms = self._clock.now().mono_ms + BROKER_PATIENCE_MS
        while not self._services.connected:
            now_ms = self._clock.now().mono_ms
            if now_ms >= end_ms:
                return False
            await self._clock.sleep_until(now_ms + _LOOK_MS)
        return True

    async def _switch(self, new: AgentSettings) -> None:
        await self._fleet.switch(new.bus, new.validation.thresholds())
        await self._services.switch(new)
        self.settings = new

    def _leaving(self, new: AgentSettings) -> list[BusSettings]:
        return [bus for bus in self.settings.bus if bus not in new.bus]

    def _refuse(self, new: AgentSettings) -> None:
        changed = [name for name in _FIXED if getattr(self.settings, name) != getattr(new, name)]
        if changed:
            raise ConfigError(
                (
                    f"[{'], ['.join(changed)}] cannot change while the agent runs; change the "
                    "file on site and restart gtx-agent",
                )
            )
        if self._fleet.stalled:
            raise ConfigError(("the buffer takes no rows now; free disk space first",))
