"""One meter on one bus with a real loop, reader and recorder, on a clock the test moves."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from decimal import Decimal

from gridtokenx_agent.acquire import BusLoop, Meter, plan_meter
from gridtokenx_agent.adapters.profile_files import find_profile
from gridtokenx_agent.adapters.simulator import Faults, MeterSimulator
from gridtokenx_agent.counters import Limits
from gridtokenx_agent.profiles import ENERGY_POINTS, plan_blocks
from gridtokenx_agent.reader import MeterReader
from gridtokenx_agent.recorder import Recorder
from gridtokenx_agent.validation import Thresholds
from gridtokenx_wire.record import EventRecord, SampleRecord, SlotRecord
from tests.support import build
from tests.support.fake_bus import FakeBus, SteadyClock
from tests.support.fake_world import World
from tests.support.memory_buffer import MemoryBuffer

PROFILE = find_profile("eastron-sdm630")
INTERVAL_S = 60
ENERGY_ADDRESS = plan_blocks(PROFILE, ENERGY_POINTS)[0].address


@dataclass
class Site:
    """One meter on one bus; `energy` is what it shows, in Wh, or nothing."""

    interval_s: int = INTERVAL_S
    sample_s: int = 0
    rated_power_w: int | None = 6_000
    group_ms: int = 0
    energy: tuple[int | None, int | None] = (100_000, 5_000)
    script: list[int] = field(default_factory=list)
    identity: int = 4711
    power_w: int = -3_000
    live: dict[str, Decimal] = field(default_factory=dict)
    event_every: int = 100
    clock: SteadyClock | World = field(default_factory=SteadyClock)

    def __post_init__(self) -> None:
        self.faults = Faults()
        self.bus = FakeBus({1: MeterSimulator(PROFILE, self._values, self.faults)}, self.clock)
        self.buffer = MemoryBuffer()
        self.beats: list[str] = []
        self.loop = self.started()

    def started(self) -> BusLoop:
        known = self.buffer.known.get("M1")
        parts = build.recorder_parts(self.buffer, group_ms=self.group_ms)
        recorder = Recorder(parts, "M1", "eastron-sdm630", known)
        self.meter: Meter = plan_meter(
            "M1",
            MeterReader(self.bus, 1, PROFILE, self.rated_power_w),
            recorder,
            Limits(rated_power_w=self.rated_power_w, resolution_wh=1),
            interval_s=self.interval_s,
            sample_s=self.sample_s,
            at=self.clock.now(),
            thresholds=replace(Thresholds(), event_every=self.event_every),
        )
        return BusLoop(
            "bus", self.bus, (self.meter,), self.clock, lambda n, _: self.beats.append(n)
        )

    def _values(self) -> dict[str, Decimal | str | None]:
        import_wh, export_wh = self.energy
        _, _, address, count = self.bus.reads[-1]
        if self.script and address <= ENERGY_ADDRESS < address + count:
            import_wh = self.script.pop(0)
        values: dict[str, Decimal | str | None] = dict.fromkeys(PROFILE.points, Decimal(1))
        values |= {
            "import_energy": _kwh(import_wh),
            "export_energy": _kwh(export_wh),
            "active_power": Decimal(self.power_w),
            "active_power_l1": Decimal(self.power_w) / 3,
            "active_power_l2": Decimal(self.power_w) / 3,
            "active_power_l3": Decimal(self.power_w) / 3,
            "voltage_l1": Decimal("230.1"),
            "frequency": Decimal(50),
            "identity": Decimal(self.identity),
            **self.live,
        }
        return values

    async def pass_time(self, seconds: float) -> None:
        await self.meter.recorder.open(self.clock.now())
        end_ms = self.clock.mono_ms + int(seconds * 1000)
        while self.clock.mono_ms < end_ms:
            before_ms = self.clock.mono_ms
            await self.loop.step()
            if self.clock.mono_ms == before_ms:
                self.clock.advance(1)

    def show(self, import_wh: int | None, export_wh: int | None) -> None:
        self.energy = (import_wh, export_wh)

    @property
    def slots(self) -> list[SlotRecord]:
        return [r for r in self.buffer.records if isinstance(r, SlotRecord)]

    @property
    def samples(self) -> list[SampleRecord]:
        return [r for r in self.buffer.records if isinstance(r, SampleRecord)]

    @property
    def events(self) -> list[str]:
        return [r.event for r in self.buffer.records if isinstance(r, EventRecord)]

    @property
    def details(self) -> str:
        return " ".join(r.detail for r in self.buffer.records if isinstance(r, EventRecord))


def _kwh(value_wh: int | None) -> Decimal | None:
    return None if value_wh is None else Decimal(value_wh) / 1000


def totals(slots: Iterable[SlotRecord]) -> list[tuple[int, int]]:
    return [(slot.import_wh, slot.export_wh) for slot in slots]
