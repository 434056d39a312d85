"""Everything about a configuration that no single key can tell, checked before anything runs."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from gridtokenx_agent.adapters.modbus import parse_bus_url
from gridtokenx_agent.adapters.mqtt import MqttAddress
from gridtokenx_agent.adapters.profile_files import find_profile
from gridtokenx_agent.errors import ConfigError
from gridtokenx_agent.profiles import bus_busy_percent, busy_fault, evidence_warning
from gridtokenx_agent.reader import bus_loads
from gridtokenx_agent.settings import (
    AgentSettings,
    BusSettings,
    HomeAssistantSettings,
    MqttSettings,
    load_settings,
)

_LARGEST_ADDRESS: Final = 247
"""Modbus over Serial Line V1.02, section 2.2."""


def read_settings(path: Path) -> AgentSettings:
    """Read and check the whole configuration: profiles, bus URLs, and what each bus can carry.

    Raises:
        ConfigError: Lists every fault.
    """
    settings = load_settings(path, find_profile, parse_bus_url)
    faults = [
        *(fault for bus in settings.bus if (fault := _busy_fault(bus)) is not None),
        *_same_places(settings.bus),
        *(fault for bus in settings.bus for fault in _address_faults(bus)),
    ]
    if faults:
        raise ConfigError(tuple(f"{path}: {fault}" for fault in faults))
    return settings


def warnings_of(settings: AgentSettings) -> list[str]:
    """Return what is allowed, but should be known: counters whose registers are not proven."""
    return [
        f"{meter.meter_id}: profile {meter.profile}: {warning}"
        for bus in settings.bus
        for meter in bus.meter
        if (
            warning := evidence_warning(
                find_profile(meter.profile), accept_disputed=meter.accept_disputed
            )
        )
    ]


def _busy_fault(bus: BusSettings) -> str | None:
    place = parse_bus_url(bus.url)
    baudrate = None if place.kind == "tcp" else place.baudrate
    loads = [
        load
        for meter in bus.meter
        for load in bus_loads(find_profile(meter.profile), meter.interval_s, meter.sample_s)
    ]
    fault = busy_fault(bus_busy_percent(loads, baudrate), len(bus.meter), baudrate)
    return f"bus {bus.url}: {fault}" if fault else None


def _same_places(buses: Iterable[BusSettings]) -> Iterator[str]:
    """Yield each bus that is another one's port or endpoint under another name.

    Only one of them would ever get the port; the meters of the other stayed unread.
    """
    seen: dict[str, str] = {}
    for bus in buses:
        place = parse_bus_url(bus.url)
        # /dev/ttyUSB0 and its name below /dev/serial/by-id are one port.
        name = str(Path(place.host).resolve()) if place.kind == "rtu" else str(place).lower()
        if name in seen:
            yield f"bus {bus.url} is the same place as {seen[name]}; put its meters below that one"
        seen.setdefault(name, bus.url)


def _address_faults(bus: BusSettings) -> Iterator[str]:
    """Yield each meter nobody can answer as: on a serial line 0 is for all, above 247 for none."""
    if parse_bus_url(bus.url).kind == "tcp":
        return
    for meter in bus.meter:
        if not 1 <= meter.device_id <= _LARGEST_ADDRESS:
            yield (
                f"meter {meter.meter_id}: device_id = {meter.device_id} does not exist on a "
                f"serial bus; give 1 to {_LARGEST_ADDRESS}"
            )


def mqtt_address(mqtt: MqttSettings, gateway_id: str) -> MqttAddress:
    """Return the cloud's broker and the credentials there.

    Raises:
        ConfigError: The password file cannot be read.
    """
    password = _password("mqtt", mqtt.password_file)
    return MqttAddress(
        url=mqtt.url,
        client_id=gateway_id,
        username=mqtt.username or (gateway_id if password is not None else None),
        password=password,
        ca_file=mqtt.ca_file,
        cert_file=mqtt.cert_file,
        key_file=mqtt.key_file,
    )


def home_address(home: HomeAssistantSettings, gateway_id: str) -> MqttAddress | None:
    """Return the broker of the house, None where there is none.

    Raises:
        ConfigError: The password file cannot be read.
    """
    if home.url is None:
        return None
    return MqttAddress(
        url=home.url,
        client_id=gateway_id,
        username=home.username,
        password=_password("home_assistant", home.password_file),
        ca_file=home.ca_file,
        section="home_assistant",
    )


def _password(section: str, path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError((f"{section}.password_file {path} cannot be read: {exc}",)) from exc
