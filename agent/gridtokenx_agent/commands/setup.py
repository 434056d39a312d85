"""From a new machine to a gateway that can be enrolled."""

import json
from pathlib import Path

import click

from gridtokenx_agent.commands.options import config_option, json_option
from gridtokenx_agent.errors import ConfigError
from gridtokenx_agent.settings import DEFAULT_PATH

_STATE = Path("/var/lib/gridtokenx")
_SKELETON = """\
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

[[bus]]
# rtu:///dev/serial/by-id/NAME?baudrate=9600&parity=N&stopbits=1, tcp://host:502, rtu+tcp://host:port
url = {bus_url}

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


@click.command()
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=DEFAULT_PATH,
    show_default=True,
    help="File to write; an existing one is never touched.",
)
@click.option(
    "--key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=_STATE / "gateway.key",
    show_default=True,
    help="The gateway's key; an existing one is kept.",
)
@click.option(
    "--buffer",
    type=click.Path(dir_okay=False, path_type=Path),
    default=_STATE / "buffer.db",
    show_default=True,
    help="Where readings wait.",
)
@click.option("--mqtt-url", prompt="Broker URL (mqtts://host:8883)", help="Where the broker is.")
@click.option("--password-file", default="", help="File with the broker password.")
@click.option("--ca-file", default="", help="Certificate authority of the broker.")
@click.option("--cloud-key", prompt="Public key of the cloud (base58)", help="Checks receipts.")
@click.option("--token", prompt="Token address (base58)", help="Mint the readings count for.")
@click.option("--bus-url", prompt="Bus URL (rtu:///dev/... or tcp://host:502)", help="The bus.")
@click.option("--meter-id", prompt="Meter id", help="Name of the meter, as enrolled.")
@click.option("--profile", prompt="Meter profile (see `gtx-agent profiles`)", help="Its model.")
@click.option("--device-id", prompt="Modbus device id", type=int, default=1, help="Its address.")
@click.option("--interval-s", type=int, default=900, show_default=True, help="Slot length.")
@click.option("--sample-s", type=int, default=0, show_default=True, help="Live values; 0 = none.")
@click.option("--rated-power-w", type=int, default=None, help="Largest power of the connection.")
@json_option
def init(config: Path, key_file: Path, as_json: bool, **values: str | int | Path | None) -> None:
    """Write configuration and key, and print what the cloud needs to enrol this gateway."""
    from gridtokenx_agent.adapters.keyfile import create_key, load_key
    from gridtokenx_agent.app import read_settings

    if config.exists():
        raise ConfigError((f"{config} exists already; edit it, or move it away",))
    signer = load_key(key_file) if key_file.exists() else create_key(key_file)
    _write(config, _skeleton(key_file, values))
    _report(signer.gateway_id, config, str(values["meter_id"]), values, as_json=as_json)
    # Last, so that an answer that is wrong leaves a file to edit.
    read_settings(config)


@click.command()
@click.option(
    "--key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="File to write; an existing key is kept.",
)
@json_option
def keygen(key_file: Path, as_json: bool) -> None:
    """Create the gateway's key alone, and print the gateway id."""
    from gridtokenx_agent.adapters.keyfile import create_key, load_key

    signer = load_key(key_file) if key_file.exists() else create_key(key_file)
    click.echo(
        json.dumps({"gateway_id": signer.gateway_id}) if as_json else f"gateway {signer.gateway_id}"
    )


@click.command("check-config")
@config_option
@json_option
def check_config(config: Path, as_json: bool) -> None:
    """Check configuration, profiles, key and password file without starting anything."""
    from gridtokenx_agent.adapters.keyfile import load_key
    from gridtokenx_agent.app import mqtt_address, read_settings, warnings_of

    settings = read_settings(config)
    signer = load_key(settings.gateway.key_file)
    mqtt_address(settings.mqtt, signer.gateway_id)
    meters = [meter.meter_id for bus in settings.bus for meter in bus.meter]
    warnings = warnings_of(settings)
    if as_json:
        found = {"gateway_id": signer.gateway_id, "meters": meters, "warnings": warnings}
        click.echo(json.dumps(found))
    else:
        for warning in warnings:
            click.echo(f"warning: {warning}", err=True)
        click.echo(f"{config} is right: gateway {signer.gateway_id}, meters {', '.join(meters)}")


def _skeleton(key_file: Path, values: dict[str, str | int | Path | None]) -> str:
    def optional(name: str, example: str) -> str:
        value = values[name]
        return f"{name} = {_toml(value)}" if value else f"# {name} = {example}"

    quoted = {name: _toml(value) for name, value in values.items()}
    return _SKELETON.format(
        **quoted
        | {
            "key_file": _toml(key_file.absolute()),
            "password_file": optional("password_file", '"/etc/gridtokenx/mqtt.password"'),
            "ca_file": optional("ca_file", '"/etc/gridtokenx/ca.crt"'),
            "rated_power_w": optional("rated_power_w", "10000"),
        }
    )


def _toml(value: str | int | Path | None) -> str:
    # A JSON string without characters beyond ASCII is a TOML string too.
    return str(value) if isinstance(value, int) else json.dumps(str(value))


def _write(config: Path, text: str) -> None:
    try:
        config.parent.mkdir(parents=True, exist_ok=True)
        with config.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as exc:
        raise ConfigError((f"{config} cannot be written: {exc.strerror}",)) from exc


def _report(
    gateway_id: str,
    config: Path,
    meter_id: str,
    values: dict[str, str | int | Path | None],
    *,
    as_json: bool,
) -> None:
    if as_json:
        click.echo(json.dumps({"gateway_id": gateway_id, "config": str(config)}))
        return
    rated = f" --rated-power-w {values['rated_power_w']}" if values["rated_power_w"] else ""
    click.echo(f"gateway {gateway_id}")
    click.echo(f"wrote   {config}")
    click.echo("Enrol it at the cloud:")
    click.echo(f"  gtx-cloud gateway add {gateway_id} --name NAME")
    click.echo(f"  gtx-cloud meter add {meter_id} --gateway {gateway_id} --user OWNER{rated}")
    click.echo(f"Then: gtx-agent read --config {config}")
