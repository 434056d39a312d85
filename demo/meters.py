"""Serve the town's meters as real Modbus: TCP, RTU over TCP, and RTU on a pty."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal

from demo.place import Place
from demo.processes import DemoError
from demo.town import METERS, DemoMeter, TownClock, amounts
from gridtokenx_agent.adapters.profile_files import find_profile
from gridtokenx_agent.adapters.simulator import BusSimulator, MeterSimulator
from gridtokenx_agent.adapters.simulator.meter import PointValues
from gridtokenx_agent.profiles import MeterProfile
from gridtokenx_agent.registers import from_units

HOST = "127.0.0.1"


@asynccontextmanager
async def serve_meters(place: Place, clock: TownClock) -> AsyncIterator[None]:
    """Answer at every meter's address while the block runs."""
    async with AsyncExitStack() as stack:
        for meter in METERS:
            profile = find_profile(meter.profile)
            simulator = MeterSimulator(profile, _registers(meter, profile, clock))
            bus = BusSimulator({meter.device_id: simulator})
            try:
                if meter.bus == "rtu":
                    service = await bus.serve_pty(place.path("ttySDM120"))
                elif meter.bus == "tcp":
                    service = await bus.serve_tcp(HOST, place.ports[_port_name(meter)])
                else:
                    service = await bus.serve_rtu_tcp(HOST, place.ports[_port_name(meter)])
            except OSError as exc:
                raise DemoError(f"the meter {meter.meter_id} cannot be served: {exc}") from exc
            stack.push_async_callback(service.close)
        yield


def _port_name(meter: DemoMeter) -> str:
    return meter.profile.rpartition("-")[2]


def _registers(
    meter: DemoMeter, profile: MeterProfile, clock: TownClock
) -> Callable[[], PointValues]:
    serial = Decimal(1_000 + METERS.index(meter))

    def read() -> PointValues:
        values = amounts(meter, clock.now_ms)
        found: dict[str, Decimal | str | None] = {
            name: from_units(values[name], point.unit) for name, point in profile.points.items()
        }
        if profile.identity is not None:
            found["identity"] = str(serial) if profile.identity.type == "string" else serial
        return found

    return read
