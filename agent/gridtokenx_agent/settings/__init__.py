"""The agent's configuration: a TOML file, and the environment above it."""

from gridtokenx_agent.settings.loading import DEFAULT_PATH, load_settings, notify_socket
from gridtokenx_agent.settings.model import (
    DAY_S,
    ENV_PREFIX,
    AgentSettings,
    BufferSettings,
    BusSettings,
    CloudSettings,
    GatewaySettings,
    HomeAssistantSettings,
    LogSettings,
    MeterSettings,
    MetricsSettings,
    MqttSettings,
    ValidationSettings,
)

__all__ = [
    "DAY_S",
    "DEFAULT_PATH",
    "ENV_PREFIX",
    "AgentSettings",
    "BufferSettings",
    "BusSettings",
    "CloudSettings",
    "GatewaySettings",
    "HomeAssistantSettings",
    "LogSettings",
    "MeterSettings",
    "MetricsSettings",
    "MqttSettings",
    "ValidationSettings",
    "load_settings",
    "notify_socket",
]
