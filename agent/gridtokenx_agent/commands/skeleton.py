"""The text of a new configuration."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_HEAD: Final = """\
# Check with `gtx-agent check-config`; environment variables GTX_AGENT_... go above this file.

[gateway]
key_file = {key_file}
# The token this gateway is enrolled for: its readings count for no other.
token = {token}

[cloud]
# Signs receipts; a reading is deleted here only when this key says that it is stored.
public_key = {cloud_key}

[mqtt]
url = {mqtt_url}
# The user name is the gateway id unless `username` says otherwise.
{password_file}
{ca_file}

[buffer]
path = {buffer}
max_mb = 256
"""
_BUS: Final = """
[[bus]]
# rtu:///dev/serial/by-id/NAME?baudrate=9600&parity=N&stopbits=1, tcp://host:502, rtu+tcp://host:port
url = {url}
"""
_METER: Final = """
[[bus.meter]]
meter_id = {meter_id}
profile = {profile}
device_id = {device_id}
interval_s = {interval_s}
# Live values between slots every so many seconds; 0 = none.
sample_s = {sample_s}
# Largest power the meter can see, in W: steps beyond it are refused, a turn-over is recognised.
{rated_power_w}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewMeter:
    """A meter as it was chosen."""

    bus_url: str
    meter_id: str
    profile: str
    device_id: int
    rated_power_w: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewConfig:
    """All answers; an empty text leaves its line out."""

    key_file: Path
    buffer: Path
    token: str
    cloud_key: str
    mqtt_url: str
    password_file: str
    ca_file: str
    interval_s: int
    sample_s: int
    meters: tuple[NewMeter, ...]


def config_text(config: NewConfig) -> str:
    """Return the TOML text; meters of one bus stand together."""
    head = _HEAD.format(
        key_file=_toml(config.key_file.absolute()),
        token=_toml(config.token),
        cloud_key=_toml(config.cloud_key),
        mqtt_url=_toml(config.mqtt_url),
        password_file=_line("password_file", config.password_file, "/etc/gridtokenx/mqtt.password"),
        ca_file=_line("ca_file", config.ca_file, "/etc/gridtokenx/ca.crt"),
        buffer=_toml(config.buffer.absolute()),
    )
    buses: dict[str, list[NewMeter]] = {}
    for meter in config.meters:
        buses.setdefault(meter.bus_url, []).append(meter)
    return head + "".join(_bus(config, url, meters) for url, meters in buses.items())


def _bus(config: NewConfig, url: str, meters: Iterable[NewMeter]) -> str:
    return _BUS.format(url=_toml(url)) + "".join(
        _METER.format(
            meter_id=_toml(meter.meter_id),
            profile=_toml(meter.profile),
            device_id=meter.device_id,
            interval_s=config.interval_s,
            sample_s=config.sample_s,
            rated_power_w=(
                f"rated_power_w = {meter.rated_power_w}"
                if meter.rated_power_w
                else "# rated_power_w = 10000"
            ),
        )
        for meter in meters
    )


def _line(name: str, value: str, example: str) -> str:
    # Whoever starts the agent starts it somewhere else.
    return f"{name} = {_toml(Path(value).absolute())}" if value else f"# {name} = {_toml(example)}"


def _toml(value: str | Path) -> str:
    # A JSON string without characters beyond ASCII is a TOML string too.
    return json.dumps(str(value))
