"""A house with a solar roof, as a pure function of time: registers never run backwards."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from gridtokenx_agent.adapters.simulator.values import PointValues
from gridtokenx_agent.ports import Clock
from gridtokenx_agent.profiles import MeterProfile, PointSpec
from gridtokenx_agent.registers import from_units

_HOUR_MS: Final = 3_600_000
_LOAD_PERCENT: Final = (
    30, 25, 25, 25, 25, 30, 50, 70, 60, 45, 40, 45,
    60, 50, 45, 45, 55, 80, 100, 95, 85, 70, 50, 40,
)  # fmt: skip
_SUN_PERCENT: Final = (
    0, 0, 0, 0, 0, 2, 10, 25, 45, 65, 82, 94,
    100, 96, 84, 68, 48, 28, 12, 3, 0, 0, 0, 0,
)  # fmt: skip
_VOLTAGE_MV: Final = 230_100
_FREQUENCY_MHZ: Final = 49_980
_POWER_FACTOR_MILLI: Final = 985


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What the meter of one house shows.

    Attributes:
        load_w: Consumption in the busiest hour.
        solar_w: Production at noon.
        speed: Simulated seconds per true second.
        first_hour: Hour of the day at the start, 0 to 23.
        start_import_wh: Import counter at the start.
        start_export_wh: Export counter at the start.
    """

    load_w: int = 2_000
    solar_w: int = 5_000
    speed: int = 1
    first_hour: int = 11
    start_import_wh: int = 1_234_567
    start_export_wh: int = 7_654_321

    def power_w(self, elapsed_ms: int) -> int:
        """Return the power from the grid after *elapsed_ms* of true time; negative = export."""
        return self._net_w(self._hour(elapsed_ms * self.speed))

    def energy_wh(self, elapsed_ms: int) -> tuple[int, int]:
        """Return the import and the export counter after *elapsed_ms* of true time."""
        hours, rest_ms = divmod(elapsed_ms * self.speed, _HOUR_MS)
        days, hours = divmod(hours, 24)
        day = [self._net_w(hour) for hour in range(24)]
        passed = [self._net_w(self.first_hour + hour) for hour in range(hours)]
        now_w = self._net_w(self.first_hour + hours)

        def total_wh(sign: int) -> int:
            whole = days * _one_way(day, sign) + _one_way(passed, sign)
            return whole + _one_way([now_w], sign) * rest_ms // _HOUR_MS

        return self.start_import_wh + total_wh(1), self.start_export_wh + total_wh(-1)

    def _hour(self, simulated_ms: int) -> int:
        return self.first_hour + simulated_ms // _HOUR_MS

    def _net_w(self, hour: int) -> int:
        load = self.load_w * _LOAD_PERCENT[hour % 24]
        return (load - self.solar_w * _SUN_PERCENT[hour % 24]) // 100


def house_registers(
    profile: MeterProfile, house: House, clock: Clock, start_wall_ms: int, identity: str = "1001"
) -> Callable[[], PointValues]:
    """Return what a meter of *profile* at *house* shows, as a function of the wall clock.

    Counted from *start_wall_ms*: give the same moment again after a restart, and the counters
    go on as if the meter had never been switched off.
    """

    def read() -> PointValues:
        elapsed_ms = max(0, clock.now().wall_ms - start_wall_ms)
        values = _amounts(house, elapsed_ms, phases=3 if "voltage_l2" in profile.points else 1)
        found: dict[str, Decimal | str | None] = {
            name: from_units(_shown(values[name], point), point.unit)
            for name, point in profile.points.items()
        }
        if profile.identity is not None:
            found["identity"] = identity if profile.identity.is_text else Decimal(identity)
        return found

    return read


def _amounts(house: House, elapsed_ms: int, phases: int) -> dict[str, int]:
    import_wh, export_wh = house.energy_wh(elapsed_ms)
    power_w = house.power_w(elapsed_ms)
    third_w = power_w // 3
    # Per phase: P = U x I x power factor; both sides in thousandths.
    through_w = abs(third_w if phases == 3 else power_w)
    current_ma = through_w * 1_000_000_000 // (_VOLTAGE_MV * _POWER_FACTOR_MILLI)
    names = ("l1", "l2", "l3")
    return {
        "import_energy": import_wh,
        "export_energy": export_wh,
        "active_power": power_w,
        "active_power_l1": third_w,
        "active_power_l2": third_w,
        "active_power_l3": power_w - 2 * third_w,
        "frequency": _FREQUENCY_MHZ,
        "power_factor": _POWER_FACTOR_MILLI,
        **{f"voltage_{phase}": _VOLTAGE_MV for phase in names},
        **{f"current_{phase}": current_ma for phase in names},
    }


def _shown(amount: int, point: PointSpec) -> int:
    """Return what a register can show: one without a sign shows how much, not which way."""
    return abs(amount) if point.type.startswith("uint") else amount


def _one_way(powers_w: list[int], sign: int) -> int:
    return sum(max(0, sign * power_w) for power_w in powers_w)
