"""What Home Assistant is told about each meter, for use in the house alone."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass

from gridtokenx_wire.record import Record, SampleRecord, SlotRecord

ROOT = "gridtokenx/local"
AVAILABILITY = f"{ROOT}/status"
_MISSED_PERIODS = 3
"""A value is shown as unknown after so many periods without a new one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HomeMeter:
    """A meter of the configuration."""

    meter_id: str
    interval_s: int
    sample_s: int


@dataclass(frozen=True, slots=True)
class _Sensor:
    field: str
    name: str
    device_class: str
    unit: str
    per_unit: int = 1
    state_class: str = "measurement"


_SENSORS = (
    _Sensor("import_wh", "Import", "energy", "Wh", state_class="total_increasing"),
    _Sensor("export_wh", "Export", "energy", "Wh", state_class="total_increasing"),
    _Sensor("active_power_w", "Power", "power", "W"),
    _Sensor("voltage_mv", "Voltage", "voltage", "V", 1000),
    _Sensor("current_ma", "Current", "current", "A", 1000),
    _Sensor("frequency_mhz", "Frequency", "frequency", "Hz", 1000),
)


def values_of(record: Record) -> tuple[str, dict[str, int]] | None:
    """Return topic and values to show; None where the record has none.

    Energy has a topic of its own: a sample must not show a counter as gone.
    """
    if not isinstance(record, SlotRecord | SampleRecord):
        return None
    meter_id = record.stamp.meter_id
    live = {name: value for name, value in asdict(record.live).items() if value is not None}
    if isinstance(record, SlotRecord):
        live |= {"import_wh": record.import_wh, "export_wh": record.export_wh}
        return energy_topic(meter_id), live
    return (live_topic(meter_id), live) if live else None


def energy_topic(meter_id: str) -> str:
    """Return where slots are shown."""
    return f"{ROOT}/{meter_id}/energy"


def live_topic(meter_id: str) -> str:
    """Return where samples are shown."""
    return f"{ROOT}/{meter_id}/live"


def announcements(
    prefix: str, gateway_id: str, meters: Iterable[HomeMeter], software: str
) -> Iterator[tuple[str, bytes]]:
    """Yield topic and payload of each retained discovery message.

    Source: Home Assistant, MQTT discovery and MQTT sensor.
    """
    for meter in meters:
        name = re.sub(r"[^A-Za-z0-9_-]", "_", meter.meter_id)
        for sensor in _SENSORS:
            identity = f"gtx_{gateway_id[:8]}_{name}_{sensor.field}"
            value = _sensor(sensor, meter, identity, gateway_id, software)
            topic = f"{prefix}/sensor/gtx_{gateway_id[:8]}/{name}_{sensor.field}/config"
            yield topic, json.dumps(value, separators=(",", ":")).encode()


def _sensor(
    sensor: _Sensor, meter: HomeMeter, identity: str, gateway_id: str, software: str
) -> Mapping[str, object]:
    sampled = sensor.device_class != "energy" and meter.sample_s > 0
    period_s = meter.sample_s if sampled else meter.interval_s
    topic = live_topic(meter.meter_id) if sampled else energy_topic(meter.meter_id)
    value = f"value_json.{sensor.field}"
    scaled = value if sensor.per_unit == 1 else f"{value} / {sensor.per_unit}"
    return {
        "name": sensor.name,
        "unique_id": identity,
        "state_topic": topic,
        # A value that the meter did not give stays unknown.
        "value_template": f"{{% if {value} is defined %}}{{{{ {scaled} }}}}{{% endif %}}",
        "device_class": sensor.device_class,
        "state_class": sensor.state_class,
        "unit_of_measurement": sensor.unit,
        "expire_after": _MISSED_PERIODS * period_s,
        "availability_topic": AVAILABILITY,
        "device": {
            "identifiers": [f"gtx_{gateway_id[:8]}_{meter.meter_id}"],
            "name": meter.meter_id,
            "manufacturer": "GridTokenX",
            "sw_version": software,
        },
    }
