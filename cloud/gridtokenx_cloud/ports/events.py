"""What the events server needs: the outbox, who may connect, and the connections themselves."""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from gridtokenx_cloud.event_protocol import Connect, EventSubscription
from gridtokenx_cloud.events import MeterReadingReceived

Credential = tuple[str, str | None]
"""Hash of the API token, and of the browser session if there is one."""


class OutboxEvent(NamedTuple):
    """One event in one of the streams it is told in.

    Attributes:
        event_number: Order of commits over all streams; the same in each of an event's streams,
            and for readings of one meter that came in one commit.
        offset: Gapless place in its stream.
        body: CloudEvents 1.0 object as JSON text.
    """

    event_number: int
    stream: str
    offset: int
    type: str
    meter_id: str | None
    body: str


@dataclass(frozen=True, slots=True)
class Tail:
    """What was committed behind an event number.

    Attributes:
        events: Oldest first, in all their streams that were asked for.
        last_number: How far was looked; where to go on.
        more: Whether there may be more behind it.
    """

    events: Sequence[OutboxEvent]
    last_number: int
    more: bool


@dataclass(frozen=True, slots=True)
class StreamHead:
    """A stream's identity and newest offset; another epoch is another history."""

    epoch: str
    last_offset: int


class EventStore(Protocol):
    """The outbox, read in order of commits."""

    def last_number(self) -> int:
        """Return the newest event number, 0 for none."""
        ...

    def read_after(
        self, event_number: int, limit: int, streams: Container[str] | None = None
    ) -> Tail:
        """Return about *limit* events behind *event_number*: those of one number come together.

        Args:
            event_number: How far the caller is.
            limit: How many events to look at; an event counts once, in however many streams.
            streams: Which of their streams matter; None = all.
        """
        ...

    def ensure_stream(self, stream: str) -> None:
        """Give *stream* an epoch if it has none, so that a client can name what it resumes."""
        ...

    def head(self, stream: str) -> StreamHead:
        """Return the head of a stream that `ensure_stream` knows."""
        ...

    def history(self, stream: str, after: int, through: int) -> Sequence[OutboxEvent]:
        """Return the events of *stream* with after < offset <= through that are still kept."""
        ...


ANONYMOUS = "anonymous"
"""The role of whoever did not sign in; there are such only where no sign-in is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who stands behind a request or a connection.

    Attributes:
        role: owner, viewer, operator, admin or anonymous.
        user_id: The owner's id; None for the other roles, which see everything.
        label: Name of the API token; the address of who has none.
        token_hash: SHA-256 of the API token, hex.
        session_hash: SHA-256 of the browser session, hex; None for a bearer token.
        expires_at_ms: When token or session runs out, whichever is first; None = never.
    """

    role: str
    user_id: str | None
    label: str
    token_hash: str
    session_hash: str | None = None
    expires_at_ms: int | None = None

    @property
    def sees_all(self) -> bool:
        """Whether events of every owner are this principal's to see."""
        return self.role in ("operator", "admin")

    @property
    def key(self) -> str:
        """What connections are counted by: owner, staff member's token, or address."""
        if self.role == ANONYMOUS:
            return f"address:{self.label}"
        return f"user:{self.user_id}" if self.user_id is not None else f"token:{self.token_hash}"

    @property
    def credential(self) -> Credential:
        """What must go on existing for a connection to stay open."""
        return self.token_hash, self.session_hash


class EventAccess(Protocol):
    """Who may connect, and who no longer may."""

    def redeem_ticket(self, ticket: str) -> Principal | None:
        """Return whose ticket this is and use it up; None for a used, old or unknown one."""
        ...

    def authenticate(self, token: str) -> Principal | None:
        """Return whose API token this is; None for a revoked, expired or unknown one."""
        ...

    def ended(self, credentials: Iterable[Credential]) -> frozenset[Credential]:
        """Return those that were revoked or signed out."""
        ...


class Outlet(Protocol):
    """One open connection to a browser; nothing here ever waits."""

    def send(self, text: str) -> None:
        """Hand one frame to the connection; a closed one takes it and forgets it."""
        ...

    def buffered_bytes(self) -> int:
        """Return how many bytes the peer has not taken yet, beside the kernel's buffer."""
        ...

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake."""
        ...

    def abort(self) -> None:
        """Drop the connection with all it still had to send."""
        ...


class Audience(Protocol):
    """Who listens; a connection is named by the id that `admit` gave it."""

    def prepare(self, principal: Principal) -> None:
        """Do what `admit` needs and may wait; called off the event loop."""
        ...

    def admit(self, principal: Principal, outlet: Outlet, request: Connect, now_s: float) -> str:
        """Welcome a connection with what it missed; return its id.

        Raises:
            ProtocolFault: A stream the principal may not follow, or too many connections.
        """
        ...

    def release(self, conn: str) -> None:
        """Forget a connection; safe to repeat."""
        ...

    def set_filter(self, conn: str, subscription: EventSubscription) -> None:
        """Replace the filter of a connection."""
        ...

    def refresh(self, conn: str, principal: Principal) -> None:
        """Go on with the same user's new session.

        Raises:
            ProtocolFault: It is somebody else's.
        """
        ...


class Feed(Protocol):
    """What drives the events; the times are monotonic seconds."""

    def pump(self, now_s: float) -> bool:
        """Deliver the next batch of committed events; return whether there may be more.

        Raises:
            StoreBusyError: The outbox cannot be read now; nothing is skipped, call again.
        """
        ...

    def drain(self, now_s: float) -> None:
        """Go on with connections that had to wait, and cut those beyond their limits."""
        ...

    def tick(self, now_s: float) -> frozenset[Credential]:
        """Once a second: expiry and heartbeats; return whose credentials to look at."""
        ...

    def publish_sample(self, user_id: str, event: MeterReadingReceived, now_s: float) -> None:
        """Send a live value to its owner and to staff; best effort, the newest wins."""
        ...

    def listeners(self) -> list[dict[str, object]]:
        """Return who is connected: id, token or address, role, owner, streams, events waiting."""
        ...

    def dismiss(self, conn: str) -> bool:
        """Close a connection for good; return whether there was one of this id."""
        ...

    def end_credentials(self, credentials: frozenset[Credential]) -> None:
        """Close the connections that stood on these."""
        ...


class EventHub(Audience, Feed, Protocol):
    """Both sides of the fan-out."""
