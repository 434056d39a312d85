"""The demo's four meters and the clock of their little town, a day of which takes a minute."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

from demo.household import House, Registers, registers_at
from demo.place import write_private

SPEED = 1_440
"""Simulated seconds per real second: a day passes in a minute."""
DAWN_MS = 6 * 3_600_000
"""The first day begins at six, so that there is something to mint soon."""
RESERVE_MS = 2_000 * SPEED
RATED_POWER_W = 12_000 * SPEED
"""The meters' real rating times the speed: the registers move that much faster than a real day."""


@dataclass(frozen=True, slots=True)
class DemoMeter:
    """One meter of the demo and where it is read."""

    meter_id: str
    owner: str
    profile: str
    bus: str
    device_id: int
    resolution_wh: int
    house: House


METERS = (
    DemoMeter(
        "oak-street-1",
        "ada",
        "eastron-sdm630",
        "tcp",
        1,
        1,
        House(11, 7_200, 310, 3_481_256, 904_377),
    ),
    DemoMeter(
        "oak-street-1-barn",
        "ada",
        "abb-b23",
        "rtu+tcp",
        7,
        10,
        House(12, 5_100, 140, 812_450, 2_260_310),
    ),
    DemoMeter(
        "mill-lane-8",
        "ben",
        "schneider-iem3155",
        "tcp",
        3,
        1,
        House(21, 9_800, 420, 15_204_991, 22_118_463),
    ),
    DemoMeter(
        "mill-lane-8-flat",
        "ben",
        "eastron-sdm120",
        "rtu",
        2,
        1,
        House(22, 3_300, 95, 1_066_208, 77_940),
    ),
)
OWNERS = ("ada", "ben")


class TownClock:
    """Simulated time; stands still until `run`, and again after `hold`.

    The file always holds a time that has not been shown yet: after a kill the registers go on
    from there, as a real meter's would have gone on counting, and never run backwards.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        saved = json.loads(path.read_text()) if path.exists() else {"simulated_ms": DAWN_MS}
        self._base_ms: int = saved["simulated_ms"]
        self._reserved_ms = self._base_ms
        self._running_since: float | None = None

    @property
    def now_ms(self) -> int:
        """Simulated milliseconds since midnight of day 0."""
        if self._running_since is None:
            return self._base_ms
        elapsed_ms = int((time.monotonic() - self._running_since) * 1000 * SPEED)
        # Never beyond what is on disk: a stalled disk stops the town, not the truth.
        return min(self._base_ms + elapsed_ms, self._reserved_ms)

    @property
    def running(self) -> bool:
        return self._running_since is not None

    def reserve(self) -> None:
        """Write down a time ahead of now; call every second or so."""
        if self._running_since is not None:
            ahead_ms = self.now_ms + RESERVE_MS
            write_private(self._path, json.dumps({"simulated_ms": ahead_ms}))
            self._reserved_ms = ahead_ms

    def run(self) -> None:
        self._running_since = time.monotonic()
        self.reserve()

    def hold(self) -> None:
        """Stop the town and write down exactly where."""
        self._base_ms = self.now_ms
        self._running_since = None
        self._reserved_ms = self._base_ms
        write_private(self._path, json.dumps({"simulated_ms": self._base_ms}))


def shown(meter: DemoMeter, now_ms: int) -> Registers:
    """Return the exact registers of *meter*, finer than its display."""
    return registers_at(meter.house, now_ms)


def displayed_export_wh(meter: DemoMeter, now_ms: int) -> int:
    """Return the export counter in whole steps of the meter's resolution."""
    return shown(meter, now_ms).export_wh // meter.resolution_wh * meter.resolution_wh


def exported_wh(meter: DemoMeter, now_ms: int) -> int:
    """Return what the meter's own counter has moved since the demo's first day began."""
    return displayed_export_wh(meter, now_ms) - displayed_export_wh(meter, DAWN_MS)


def below_resolution_wh(meter: DemoMeter, now_ms: int) -> int:
    """Return energy that has flowed but that the counter does not show yet."""
    return shown(meter, now_ms).export_wh - displayed_export_wh(meter, now_ms)


def amounts(meter: DemoMeter, now_ms: int) -> dict[str, int]:
    """Return what a meter can show, in Wh, W, mV, mA, mHz and thousandths.

    The house has one phase carrying it all, so L1 is the whole.
    """
    now = shown(meter, now_ms)
    empty = ("active_power_l2", "active_power_l3", "current_l2", "current_l3")
    return {
        "import_energy": now.import_wh,
        "export_energy": now.export_wh,
        "active_power": now.active_power_w,
        "active_power_l1": now.active_power_w,
        "current_l1": now.current_ma,
        "frequency": now.frequency_mhz,
        "power_factor": 1_000,
        **{f"voltage_{phase}": now.voltage_mv for phase in ("l1", "l2", "l3")},
        **dict.fromkeys(empty, 0),
    }
