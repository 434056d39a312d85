"""A seeded household with solar: what its meter's registers show at any simulated second.

Everything is a pure function of the seed and the simulated time, in whole watts and watt-seconds,
so a run can be stopped and taken up again without a Wh appearing or vanishing.
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

DAY_S = 86_400
STEP_S = 60
STEPS_PER_DAY = DAY_S // STEP_S
WS_PER_WH = 3_600


@dataclass(frozen=True, slots=True)
class House:
    """What makes one household different from the next.

    Attributes:
        seed: Draws clouds and switching; same seed, same days.
        peak_w: Solar output at noon under a clear sky.
        base_w: Load that never stops.
        import_start_wh, export_start_wh: Registers when the demo's first day begins.
    """

    seed: int
    peak_w: int
    base_w: int
    import_start_wh: int
    export_start_wh: int


@dataclass(frozen=True, slots=True)
class Registers:
    """What the meter shows; power > 0 is import from the grid."""

    import_wh: int
    export_wh: int
    active_power_w: int
    generation_w: int
    consumption_w: int
    voltage_mv: int
    frequency_mhz: int

    @property
    def current_ma(self) -> int:
        """Current that belongs to the power at this voltage, one phase carrying it all."""
        return abs(self.active_power_w) * 1_000_000 // self.voltage_mv


@dataclass(frozen=True, slots=True)
class _Day:
    generation_w: tuple[int, ...]
    consumption_w: tuple[int, ...]
    import_ws: tuple[int, ...]
    """Energy imported from midnight to the start of each step; one more entry for the day's end."""
    export_ws: tuple[int, ...]


def registers_at(house: House, simulated_ms: int) -> Registers:
    """Return the registers after *simulated_ms* of this house's life, from midnight of day 0."""
    second, millisecond = divmod(simulated_ms, 1000)
    day_number, second_of_day = divmod(second, DAY_S)
    step, second_of_step = divmod(second_of_day, STEP_S)
    day = _day(house, day_number)
    before = _until(house, day_number)
    generation_w, consumption_w = day.generation_w[step], day.consumption_w[step]
    net_w = consumption_w - generation_w
    elapsed_ms = second_of_step * 1000 + millisecond
    import_ws = before[0] + day.import_ws[step] + max(net_w, 0) * elapsed_ms // 1000
    export_ws = before[1] + day.export_ws[step] + max(-net_w, 0) * elapsed_ms // 1000
    return Registers(
        import_wh=house.import_start_wh + import_ws // WS_PER_WH,
        export_wh=house.export_start_wh + export_ws // WS_PER_WH,
        active_power_w=net_w,
        generation_w=generation_w,
        consumption_w=consumption_w,
        # Feeding in lifts the voltage at the meter a little, drawing lowers it.
        voltage_mv=231_000 - net_w // 2 + (step * 37) % 400,
        frequency_mhz=49_980 + (step * 13) % 40,
    )


@lru_cache(maxsize=64)
def _day(house: House, number: int) -> _Day:
    draw = random.Random(f"{house.seed}/{number}")  # noqa: S311 - weather, not secrets
    generation = tuple(_generation_w(house, draw))
    consumption = tuple(_consumption_w(house, draw))
    import_ws, export_ws = [0], [0]
    for made, used in zip(generation, consumption, strict=True):
        import_ws.append(import_ws[-1] + max(used - made, 0) * STEP_S)
        export_ws.append(export_ws[-1] + max(made - used, 0) * STEP_S)
    return _Day(generation, consumption, tuple(import_ws), tuple(export_ws))


@lru_cache(maxsize=4096)
def _until(house: House, number: int) -> tuple[int, int]:
    """Return (imported, exported) watt-seconds of all days before *number*."""
    if number == 0:
        return 0, 0
    # Filled from the bottom so that a demo run for years does not recurse as deep as its age.
    for earlier in range(number % 256, number, 256):
        _until(house, earlier)
    before, day = _until(house, number - 1), _day(house, number - 1)
    return before[0] + day.import_ws[-1], before[1] + day.export_ws[-1]


def _generation_w(house: House, draw: random.Random) -> Iterator[int]:
    sunrise_h, sunset_h = 5.2, 21.0
    sky = draw.uniform(0.7, 1.0)
    cloud = 0.0
    for step in range(STEPS_PER_DAY):
        hour = step * 24 / STEPS_PER_DAY
        height = math.sin(math.pi * (hour - sunrise_h) / (sunset_h - sunrise_h))
        cloud = max(0.0, min(0.6, cloud + draw.uniform(-0.06, 0.06)))
        yield int(house.peak_w * sky * (1 - cloud) * height**1.3) if height > 0 else 0


def _consumption_w(house: House, draw: random.Random) -> Iterator[int]:
    appliance_w, appliance_steps = 0, 0
    for step in range(STEPS_PER_DAY):
        hour = step * 24 / STEPS_PER_DAY
        morning = 600 * math.exp(-(((hour - 7.5) / 1.2) ** 2))
        evening = 1_300 * math.exp(-(((hour - 19.5) / 2.2) ** 2))
        if appliance_steps == 0 and draw.random() < 0.006:
            appliance_w, appliance_steps = draw.choice((900, 1_500, 2_100)), draw.randint(5, 45)
        load = house.base_w + morning + evening + (appliance_w if appliance_steps else 0)
        appliance_steps = max(0, appliance_steps - 1)
        yield int(load * draw.uniform(0.95, 1.05))
