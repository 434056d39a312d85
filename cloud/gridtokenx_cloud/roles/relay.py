"""Nudges between the roles of one process; a lost one costs one polling interval, no event."""

from collections.abc import Callable
from typing import Protocol

from gridtokenx_cloud.events import MeterReadingReceived
from gridtokenx_cloud.ports.admin import LiveConnections


class EventFeed(LiveConnections, Protocol):
    """The events server, as the other roles know it."""

    def wake(self) -> None:
        """Say that events were committed."""
        ...

    def publish_sample(self, user_id: str, event: MeterReadingReceived) -> None:
        """Send a live value best effort."""
        ...


class Relay:
    """Passes on what ingest has committed; whoever is not there is not told.

    Attributes:
        feed: The running events server.
        wake_minting: Wakes the running minting service; may be called from any thread.
        look_for_pass: Lets it look whether a pass was asked for; may be called from any thread.
    """

    def __init__(self) -> None:
        self.feed: EventFeed | None = None
        self.wake_minting: Callable[[], None] | None = None
        self.look_for_pass: Callable[[], None] | None = None

    def committed(self, credited: bool) -> None:
        """Tell of a commit, *credited* when it holds energy that is to be minted."""
        if (feed := self.feed) is not None:
            feed.wake()
        if credited and (wake := self.wake_minting) is not None:
            wake()

    def pass_wanted(self) -> None:
        """Tell that somebody asked for a pass of the minter; it finds out by itself otherwise."""
        if (look := self.look_for_pass) is not None:
            look()

    def sampled(self, event: MeterReadingReceived) -> None:
        """Pass a live value on."""
        if (feed := self.feed) is not None:
            feed.publish_sample(event.user_id, event)
