"""What the services need from the outside world; each port has one fake and one contract test."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from gridtokenx_agent.clock import Instant as Instant
from gridtokenx_agent.counters import MeterState
from gridtokenx_wire.receipt import LineRejection, Receipt

ReadFunction = Literal[3, 4]
"""Modbus function code: 3 holding registers, 4 input registers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WordsRead:
    """The answer of a meter: 16-bit words in bus order, stamped when the last byte came in."""

    words: tuple[int, ...]
    at: Instant


class Clock(Protocol):
    """Boot-time and wall clock of the machine."""

    def now(self) -> Instant:
        """Return this moment."""
        ...

    async def sleep_until(self, mono_ms: int) -> None:
        """Return once the boot-time clock has reached *mono_ms*."""
        ...


class MeterBus(Protocol):
    """One serial port or TCP endpoint; one transaction at a time, retries are the caller's."""

    async def read_words(
        self, device_id: int, function: ReadFunction, address: int, count: int, min_gap_ms: int
    ) -> WordsRead:
        """Read *count* registers from 0-based *address*, *min_gap_ms* after the last byte.

        Raises:
            MeterTimeoutError: No true answer in time; the bus was kept quiet afterwards.
            MeterRefusedError: Exception 1, 2 or 3.
            MeterBusyError: Exception 4, 6, 0x0A or 0x0B.
            BusDownError: The port or endpoint is not there.
        """
        ...

    async def close(self) -> None:
        """Give the port back."""
        ...


class RecordSigner(Protocol):
    """Holds the gateway's Ed25519 key."""

    @property
    def gateway_id(self) -> str:
        """Public key in base58."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of *message*."""
        ...


class TrueTime(Protocol):
    """How far the wall clock may be wrong."""

    def error_ms(self) -> int:
        """Return the largest error of the wall clock, as the kernel knows it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRow:
    """One signed line to keep until the cloud has it.

    Attributes:
        opens: The first slot of its epoch; no other slot of the epoch is sent before the cloud
            has it, or the cloud would count from a later one.
    """

    epoch: str
    seq: int
    kind: str
    wall_ms: int
    line: bytes
    opens: bool = False


@dataclass(frozen=True, slots=True)
class Waiting:
    """A line to send."""

    row_id: int
    line: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What a receipt did: rows forgotten, and lines put among the dead.

    Attributes:
        taken: Meter, epoch and a `seq` up to which the cloud has numbers that this buffer never
            gave: it is an older copy, or another gateway runs with the same key.
    """

    forgotten: int
    dead: tuple[LineRejection, ...] = ()
    taken: tuple[tuple[str, str, int], ...] = ()


class RecordBuffer(Protocol):
    """Where records wait, together with the state of each meter."""

    async def states(self) -> dict[str, MeterState]:
        """Return what was last committed, by meter."""
        ...

    async def commit(
        self, state: MeterState, rows: Sequence[NewRow], refusals: Mapping[str, int]
    ) -> None:
        """Store the rows, the state and the counts of refused values, all or nothing, durably.

        Raises:
            BufferFullError: The disk takes no more; nothing was stored.
            StoreError: A `seq` would be used twice, or the file is broken.
        """
        ...


class Outbox(Protocol):
    """The same rows, seen by the one who sends them; a row leaves only by a receipt."""

    async def due(self, now_ms: int, limit: int, in_flight: Collection[int]) -> list[Waiting]:
        """Return up to *limit* lines to send now, the most urgent first.

        The newest live slots come first, then the oldest of the rest.

        Args:
            now_ms: Boot-time clock.
            limit: Most lines.
            in_flight: Rows that are under way.
        """
        ...

    async def mark_sent(self, row_ids: Collection[int], now_ms: int) -> None:
        """Note that the broker took these rows; each is due again unless a receipt comes."""
        ...

    async def mark_refused(self, row_ids: Collection[int], now_ms: int) -> None:
        """Note that the broker refused these rows; each is due again later."""
        ...

    async def resend_all(self) -> None:
        """Make every row due: what a lost connection carried is unknown."""
        ...

    async def settle(self, receipt: Receipt, in_flight: Collection[int]) -> Settled:
        """Forget sent rows the receipt covers; move those it rejects among the dead."""
        ...


@dataclass(frozen=True, slots=True)
class Acked:
    """The broker's answer to one message; *refusal* names its reason, None = taken."""

    message_id: int
    refusal: str | None


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message for this gateway."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection is gone; nothing follows."""

    reason: str


LinkEvent = Acked | Arrived | Lost


class BrokerSession(Protocol):
    """One connection to the broker, from its CONNACK to its end."""

    @property
    def window(self) -> int:
        """Most messages under way at once."""
        ...

    @property
    def max_bytes(self) -> int:
        """Longest payload the broker takes; a single line goes whatever its length."""
        ...

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Hand over one message with QoS 1 and return its id.

        Raises:
            BrokerDownError: The connection is gone; the message was not taken.
        """
        ...

    def events(self) -> list[LinkEvent]:
        """Return what happened since the last call, in order."""
        ...

    async def close(self) -> None:
        """Disconnect; the broker then publishes the will."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """What the broker says for us when we vanish."""

    topic: str
    payload: bytes


class BrokerLink(Protocol):
    """A way to the broker."""

    @property
    def name(self) -> str:
        """Address and user, for messages; no secrets."""
        ...

    async def connect(self, subscriptions: Sequence[str], will: Will) -> BrokerSession:
        """Return a subscribed session.

        Raises:
            BrokerDownError: Nobody answers there.
            BrokerRefusedError: The broker wants other credentials, certificates or rights.
        """
        ...


@dataclass(frozen=True, slots=True)
class SeenCommand:
    """A command of the log; *reply* is None while nobody knows how it ended."""

    nonce: str
    command: str
    reply: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudTime:
    """What the cloud signed about its clock: it has reached *at_least_ms*."""

    last_command_ms: int
    at_least_ms: int


class CommandLog(Protocol):
    """Remembers commands over restarts; every call raises `BufferFullError` on a bad disk."""

    async def begin(self, nonce: str, issued_ms: int, expires_ms: int, command: str) -> bool:
        """Write a command down, durably; False = it was there already."""
        ...

    async def finish(self, nonce: str, reply: bytes) -> None:
        """Keep the signed reply, to give it again when the command comes again."""
        ...

    async def seen(self, nonce: str) -> SeenCommand | None:
        """Return what is known of a command."""
        ...

    async def unfinished(self) -> list[SeenCommand]:
        """Return the commands without a reply: the agent ended while they ran."""
        ...

    async def cloud_time(self) -> CloudTime:
        """Return the latest moment the cloud signed for."""
        ...

    async def forget_before(self, wall_ms: int) -> None:
        """Forget answered commands that expired before *wall_ms*."""
        ...
