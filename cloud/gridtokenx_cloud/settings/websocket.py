"""The `WEBSOCKET_*` settings: live events for browsers."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from gridtokenx_cloud.settings.base import Group
from gridtokenx_cloud.settings.values import Bind, PlainInt, WebSocketUrl


class WebSocketSettings(Group):
    """Where events are served, to how many, how fast."""

    model_config = SettingsConfigDict(env_prefix="WEBSOCKET_")

    bind: Bind = Field("127.0.0.1:8081", description="Address the event server listens on")
    public_url: WebSocketUrl | None = Field(
        None, description="What a browser connects to; by default ws://BIND/ws"
    )
    auth_timeout_secs: PlainInt = Field(
        5, ge=1, le=60, description="Time for the first message with the ticket, s"
    )
    max_connections: PlainInt = Field(10_000, ge=1, le=200_000, description="Connections in all")
    max_connections_per_user: PlainInt = Field(
        5, ge=1, le=100, description="Connections of one user; one more is refused"
    )
    event_buffer_size: PlainInt = Field(
        1000, ge=10, le=100_000, description="Longest gap of events that a resume fills"
    )
    replay_hours: PlainInt = Field(24, ge=1, le=720, description="Events kept for a resume, h")

    @property
    def url(self) -> str:
        """What a browser connects to."""
        return self.public_url or f"ws://{self.bind}/ws"
