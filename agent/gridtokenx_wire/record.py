"""The records a gateway signs; every number an integer, every unit in its name."""

from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import ClassVar, Literal, NamedTuple

WIRE_VERSION = 1
GATEWAY_STREAM = "_gateway"
"""Stands in `meter_id` for records about the gateway itself (clock records, its own events)."""
FIRST_PREV = "0" * 32
"""`prev` of the first slot line of an epoch."""


class ClockQuality(IntEnum):
    """How far `wall_ms` may be trusted."""

    UNSYNCHRONISED = 0
    HOLDOVER = 1
    SYNCHRONISED = 2


class Quality(IntFlag):
    """Remarks on a reading; none of them keeps it from being stored."""

    NONE = 0
    MISSED_SLOTS = 1
    """At least one slot edge before this one passed without a good answer."""
    LATE_SLOT = 2
    """Read more than a tenth of the interval after the slot's edge."""
    RE_READ = 4
    """The first answer was refused; the value comes from a repeated read."""
    POWER_MISMATCH = 8
    """Sum of phases and total power differ by more than 5 %."""
    OUT_OF_RANGE = 16
    """An instantaneous value was outside its plausible range and was left out."""
    VALUE_MISSING = 32
    """The meter marked a value of this reading as not available."""
    ENERGY_MISMATCH = 64
    """Power over the last quarter of an hour and the energy counted meanwhile differ by > 20 %."""
    UNUSUAL = 128
    """An instantaneous value is possible but outside what is usual here; it was kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveValues:
    """Instantaneous values; None = not measured, never zero for unknown.

    Power is signed: positive = import from the grid. `voltage_mv` and `current_ma` are of L1;
    the power factor counts thousandths.
    """

    active_power_w: int | None = None
    voltage_mv: int | None = None
    current_ma: int | None = None
    frequency_mhz: int | None = None
    power_factor_milli: int | None = None


NO_VALUES = LiveValues()


class Stamp(NamedTuple):
    """Which record this is, and when its last byte came in.

    Attributes:
        meter_id: The metered thing, or `GATEWAY_STREAM`.
        epoch: 16 hex digits drawn anew when the counter or the agent's memory of it began anew.
        seq: 1, 2, 3 ... within (meter_id, epoch), over all kinds; committed before it is sent.
        boot_id: 32 hex digits, one value per boot of the machine.
        mono_ms: Boot-time clock (CLOCK_BOOTTIME) at the last byte of the answer.
        wall_ms: Wall clock at that moment, Unix milliseconds; right only as far as `clock` says.
        clock: 0 unsynchronised, 1 holdover, 2 synchronised.
    """

    meter_id: str
    epoch: str
    seq: int
    boot_id: str
    mono_ms: int
    wall_ms: int
    clock: ClockQuality


class SlotRecord(NamedTuple):
    """Cumulative registers at a slot's edge: the only record that can become tokens.

    Attributes:
        interval_s: Length of the slot in seconds.
        import_wh: Total energy from the grid, Wh (OBIS 1-0:1.8.0).
        export_wh: Total energy into the grid, Wh (OBIS 1-0:2.8.0).
        token: Base58 address of the one mint this reading may count for.
        prev: First 16 bytes of SHA-256 of the previous slot line of (meter, epoch), hex.
        flags: `Quality` bits.
    """

    stamp: Stamp
    interval_s: int
    import_wh: int
    export_wh: int
    token: str
    prev: str
    flags: Quality = Quality.NONE
    live: LiveValues = NO_VALUES

    @property
    def kind(self) -> Literal["slot"]:
        """The record's kind on the wire."""
        return "slot"


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRecord:
    """Instantaneous values between slots; may be thinned, is never credited."""

    kind: ClassVar[Literal["sample"]] = "sample"
    stamp: Stamp
    flags: Quality = Quality.NONE
    live: LiveValues = NO_VALUES


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """Something happened at the meter or the gateway.

    Attributes:
        event: Stable name, such as `EpochStarted`, `ValueRejected`, `MeterDown`, `MeterUp`.
        detail: One ASCII sentence for people, at most 200 characters.
    """

    kind: ClassVar[Literal["event"]] = "event"
    stamp: Stamp
    event: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockRecord:
    """Ties `mono_ms` of one boot to true time: stamp.wall_ms is right within `error_ms`."""

    kind: ClassVar[Literal["clock"]] = "clock"
    stamp: Stamp
    error_ms: int


Record = SlotRecord | SampleRecord | EventRecord | ClockRecord
