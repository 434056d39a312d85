"""What ingest needs of the store: everything known about a batch, and one commit of all changes."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from gridtokenx_cloud.events import MarketEvent
from gridtokenx_cloud.ledger import Span, Window
from gridtokenx_cloud.remarks import LastSlot, Remark, Trail
from gridtokenx_cloud.tenure import Ownership, Tenure
from gridtokenx_cloud.verify import Code, Fault, Meter
from gridtokenx_wire.receipt import Ranges
from gridtokenx_wire.record import ClockRecord, EventRecord, LiveValues, SampleRecord, SlotRecord

StreamKey = tuple[str, str]
"""(stream, epoch); the stream is a meter id, or `_gateway:<gateway id>`."""


@dataclass(slots=True)
class EpochBook:
    """What the registry says of one epoch, and what is credited of it."""

    status: Literal["accepted", "held"]
    span: Span | None = None


class Identity(NamedTuple):
    """Names a record whose signature holds, before anything is known of it.

    Attributes:
        told_ms: Its own time, where its clock was right: the stored one of the same bytes has it.
    """

    gateway_id: str
    key: StreamKey
    seq: int
    boot_id: str
    told_ms: int | None = None

    @property
    def stream(self) -> str:
        """Return the stream it belongs to."""
        return self.key[0]

    @property
    def epoch(self) -> str:
        """Return the epoch it belongs to."""
        return self.key[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockTie:
    """What one clock record says of its boot.

    Attributes:
        clock: How far the gateway trusted its clock then.
        error_ms: How wrong it was at most.
        mono_ms: Boot-time clock of the record.
        wall_ms: True time of the record.
    """

    clock: int
    error_ms: int
    mono_ms: int
    wall_ms: int

    @property
    def offset_ms(self) -> int:
        """What to add to the boot-time clock."""
        return self.wall_ms - self.mono_ms

    @property
    def rank(self) -> tuple[int, int, int]:
        """The lowest is the best of a boot, in whatever order they come."""
        return -self.clock, self.error_ms, self.mono_ms


@dataclass(slots=True, kw_only=True)
class Books:
    """All that is known about the gateways, meters and records of one batch.

    Attributes:
        gateways: Id to status, enrolled ones only.
        meters: Enrolled meters only.
        epochs: Those of the batch that the registry knows.
        meters_with_epochs: Meters of which it knows any epoch.
        ranges: Stored `seq` next to those of the batch.
        lines: Stored slot lines by (stream, epoch, seq), where the batch names them again.
        archived: Those of them whose line has left the store.
        windows: Meter to what each of its epochs with credited readings covers.
        last_slots: Stored slot with the highest `seq` of a stream.
        trails: Of streams whose last stored slot is not the last accepted one: the accepted one,
            where there is one yet, and all after it.
        tenures: Who reads a meter when; only of meters that moved.
        owners: Who owns a meter when; only of meters that changed hands.
        key_ends_ms: When a replaced key ends; only of gateways whose key is replaced.
        clock_ties: (gateway, boot) to its best clock record.
        sample_times: Newest stored sample of a stream: (seq, time in ms).
        reading_ids: Free ids, one for each record of the batch.
    """

    gateways: dict[str, str] = field(default_factory=dict)
    meters: dict[str, Meter] = field(default_factory=dict)
    epochs: dict[StreamKey, EpochBook] = field(default_factory=dict)
    meters_with_epochs: set[str] = field(default_factory=set)
    ranges: dict[StreamKey, Ranges] = field(default_factory=dict)
    lines: dict[tuple[str, str, int], bytes] = field(default_factory=dict)
    archived: set[tuple[str, str, int]] = field(default_factory=set)
    windows: dict[str, dict[str, Window]] = field(default_factory=dict)
    last_slots: dict[StreamKey, LastSlot] = field(default_factory=dict)
    trails: dict[StreamKey, Trail] = field(default_factory=dict)
    tenures: dict[str, tuple[Tenure, ...]] = field(default_factory=dict)
    owners: dict[str, tuple[Ownership, ...]] = field(default_factory=dict)
    key_ends_ms: dict[str, int] = field(default_factory=dict)
    clock_ties: dict[tuple[str, str], ClockTie] = field(default_factory=dict)
    sample_times: dict[StreamKey, tuple[int, int]] = field(default_factory=dict)
    reading_ids: Iterator[int] = field(default_factory=lambda: iter(()))


@dataclass(slots=True, kw_only=True)
class NewReading:
    """One row of `meter_readings`; not frozen, as making one would take three times as long."""

    reading_id: int
    slot: SlotRecord
    gateway_id: str
    meter: Meter
    dated_ms: int | None
    status: Literal["accepted", "late", "held"]
    credit_wh: int
    code: Code | None
    remarks: Remark
    line: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSample:
    """One row of `meter_samples`."""

    sample: SampleRecord
    dated_ms: int | None
    line: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRecord:
    """One row of `gateway_records`."""

    gateway_id: str
    stream: str
    record: EventRecord | ClockRecord
    line: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRejection:
    """One refused line; its event is told only the first time the same bytes come."""

    gateway_id: str
    line_hash: str
    line: bytes
    fault: Fault
    streams: tuple[str, ...]
    event: MarketEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRow:
    """Newest instantaneous values of a meter."""

    wall_ms: int
    live: LiveValues


@dataclass(slots=True, kw_only=True)
class Changes:
    """All that one batch changes; saved whole or not at all.

    Attributes:
        ranges: Stream to (ranges as loaded, ranges now).
        epochs: (meter, epoch) touched, as they are now.
        clock_ties: Boots that can be dated, or dated better, from now on.
        newest_moved: Whether an end of what is credited moved anywhere.
        uncounted: Gateway to refused lines that are counted and not kept.
    """

    at_ms: int
    readings: list[NewReading] = field(default_factory=list)
    samples: list[NewSample] = field(default_factory=list)
    records: list[NewRecord] = field(default_factory=list)
    rejections: list[NewRejection] = field(default_factory=list)
    live: dict[str, LiveRow] = field(default_factory=dict)
    ranges: dict[StreamKey, tuple[Ranges, Ranges]] = field(default_factory=dict)
    epochs: dict[StreamKey, EpochBook] = field(default_factory=dict)
    clock_ties: dict[tuple[str, str], ClockTie] = field(default_factory=dict)
    events: list[tuple[tuple[str, ...], MarketEvent]] = field(default_factory=list)
    newest_moved: bool = False
    uncounted: dict[str, int] = field(default_factory=dict)


class IngestUnit(Protocol):
    """One open write transaction."""

    def load(self, gateway_ids: Iterable[str], wanted: Iterable[Identity]) -> Books:
        """Return what is known about these gateways and records."""
        ...

    def save(self, changes: Changes) -> None:
        """Write every change and its events.

        Raises:
            StoreRefusedError: The store takes one of the rows never.
        """
        ...


class IngestStore(Protocol):
    """Where readings become durable."""

    def transaction(self) -> AbstractContextManager[IngestUnit]:
        """Give the only writer's transaction; all of it is committed at the end, or none.

        Raises:
            StoreBusyError: The store cannot take a commit now; nothing is stored.
            StoreRefusedError: The store takes one of the rows never; nothing is stored.
        """
        ...
