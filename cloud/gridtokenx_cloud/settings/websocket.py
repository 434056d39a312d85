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
    auth_required: bool = Field(
        True, description="Anybody may follow the batches where this is false; owners see more"
    )
    auth_timeout_secs: PlainInt = Field(
        5, ge=1, le=60, description="Time for the first message with the ticket, s"
    )
    max_connections: PlainInt = Field(10_000, ge=1, le=200_000, description="Connections in all")
    max_connections_per_user: PlainInt = Field(
        5, ge=1, le=100, description="Connections of one user; one more is refused"
    )
    event_buffer_size: PlainInt = Field(
        1000,
        ge=10,
        le=100_000,
        description="Events that may wait for one connection, and the longest gap a resume fills",
    )
    rate_limit_events_per_minute: PlainInt = Field(
        60,
        ge=1,
        le=100_000,
        description="Events a minute without sign-in; ten times that for owners, a hundred times"
        " for operators",
    )
    compression_enabled: bool = Field(
        False, description="Deflate: a seventh of the bytes for twice the CPU, thrice the memory"
    )
    replay_hours: PlainInt = Field(24, ge=1, le=720, description="Events kept for a resume, h")

    @property
    def url(self) -> str:
        """What a browser connects to."""
        return self.public_url or f"ws://{self.bind}/ws"
