"""The configuration: read once in `__main__`, checked at once, passed down as plain values."""

from gridtokenx_cloud.settings.blockchain import BlockchainSettings
from gridtokenx_cloud.settings.cloud import CloudSettings
from gridtokenx_cloud.settings.load import (
    GROUPS,
    Settings,
    load_settings,
    non_default_values,
    require,
    secret_values,
)
from gridtokenx_cloud.settings.tokenization import TokenizationConfig
from gridtokenx_cloud.settings.values import ROLES, Role, split_bind
from gridtokenx_cloud.settings.websocket import WebSocketSettings

__all__ = [
    "GROUPS",
    "ROLES",
    "BlockchainSettings",
    "CloudSettings",
    "Role",
    "Settings",
    "TokenizationConfig",
    "WebSocketSettings",
    "load_settings",
    "non_default_values",
    "require",
    "secret_values",
    "split_bind",
]
