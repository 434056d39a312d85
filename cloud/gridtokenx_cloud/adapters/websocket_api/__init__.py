"""The events server. This package alone knows the websockets library."""

from gridtokenx_cloud.adapters.websocket_api.conversation import EventServerLimits
from gridtokenx_cloud.adapters.websocket_api.server import EventServer

__all__ = ["EventServer", "EventServerLimits"]
