"""What runs beside the buses, as the configuration says: uplink, metrics, Home Assistant."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from gridtokenx_agent.ports import BrokerLink
from gridtokenx_agent.publish import Publisher
from gridtokenx_agent.settings import (
    AgentSettings,
    LogSettings,
    MetricsSettings,
    MqttSettings,
)
from gridtokenx_agent.tasks import Job, Supervisor

UPLINK = "uplink"
_METRICS = "metrics"
_HOME = "home assistant"
_LAST_REPLY_S = 5.0
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceParts:
    """How each of them is made.

    Attributes:
        link: Section -> a way to the broker; raises `ConfigError`.
        metrics: Section -> the job that shows metrics; None = nowhere.
        home_assistant: Configuration -> the job that feeds Home Assistant; None = it is off.
        log: Sets up logging.
    """

    publisher: Publisher
    supervisor: Supervisor
    link: Callable[[MqttSettings], BrokerLink]
    metrics: Callable[[MetricsSettings], Job | None]
    home_assistant: Callable[[AgentSettings], Job | None]
    log: Callable[[LogSettings], None]


class ConfiguredServices:
    """`Services` of a running agent."""

    def __init__(self, parts: ServiceParts, settings: AgentSettings) -> None:
        self._parts = parts
        self._settings = settings

    @property
    def connected(self) -> bool:
        """See `Services.connected`."""
        return self._parts.publisher.counts.connected == 1

    def start(self) -> None:
        """Start everything."""
        parts = self._parts
        parts.supervisor.start(UPLINK, parts.publisher.run)
        self._start(_METRICS, parts.metrics(self._settings.metrics))
        self._start(_HOME, parts.home_assistant(self._settings))

    async def switch(self, settings: AgentSettings) -> None:
        """See `Services.switch`."""
        old, parts = self._settings, self._parts
        if settings.mqtt != old.mqtt:
            link = parts.link(settings.mqtt)
            await parts.supervisor.stop(UPLINK)
            parts.publisher.relink(link, settings.mqtt.lines_per_s)
            parts.supervisor.start(UPLINK, parts.publisher.run)
        if settings.metrics != old.metrics:
            await parts.supervisor.stop(_METRICS)
            self._start(_METRICS, parts.metrics(settings.metrics))
        if (settings.home_assistant, settings.bus) != (old.home_assistant, old.bus):
            await parts.supervisor.stop(_HOME)
            self._start(_HOME, parts.home_assistant(settings))
        if settings.log != old.log:
            parts.log(settings.log)
        self._settings = settings

    async def replies_are_out(self) -> None:
        """Wait a little for the broker to take the last reply."""
        try:
            async with asyncio.timeout(_LAST_REPLY_S):
                while not self._parts.publisher.silent:  # noqa: ASYNC110 - nobody tells it
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            return

    def _start(self, name: str, job: Job | None) -> None:
        if job is not None:
            self._parts.supervisor.start(name, job)
