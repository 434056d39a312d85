"""Key, configuration and enrolment claim of a gateway."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gridtokenx_agent.commands.options import config_option, json_option

if TYPE_CHECKING:
    from gridtokenx_agent.settings import AgentSettings
    from gridtokenx_wire.claim import Claim


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


@click.command("change-key")
@click.argument("key_file", type=click.Path(dir_okay=False, path_type=Path))
@config_option
@json_option
def change_key(key_file: Path, config: Path, as_json: bool) -> None:
    """Give the buffer to the new key in KEY_FILE, with all that waits there; stop the agent first.

    The cloud has to know that key by `gtx-cloud gateway rotate`. Afterwards name it as key_file.
    """
    from gridtokenx_agent.adapters.buffer_file import change_gateway
    from gridtokenx_agent.adapters.keyfile import load_key
    from gridtokenx_agent.app import read_settings

    settings = read_settings(config)
    former_id = load_key(settings.gateway.key_file).gateway_id
    gateway_id = load_key(key_file).gateway_id
    change_gateway(settings.buffer.path, former_id, gateway_id)
    if as_json:
        click.echo(json.dumps({"gateway_id": gateway_id, "former_id": former_id}))
        return
    click.echo(f"gateway {gateway_id} owns {settings.buffer.path}")
    click.echo(f'Now write key_file = "{key_file.absolute()}" in {config}, the new password of the')
    click.echo("broker into its password file, and start the agent.")


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


@click.command()
@config_option
@json_option
def claim(config: Path, as_json: bool) -> None:
    """Print the signed enrolment claim again: this gateway, its token and its meters."""
    from gridtokenx_agent.adapters.keyfile import load_key
    from gridtokenx_agent.app import read_settings
    from gridtokenx_wire.claim import encode_claim

    settings = read_settings(config)
    signer = load_key(settings.gateway.key_file)
    line = encode_claim(claim_of(settings, signer.gateway_id), signer.sign).decode("ascii")
    click.echo(json.dumps({"claim": line}) if as_json else line)


def claim_of(settings: "AgentSettings", gateway_id: str) -> "Claim":
    """Return what a gateway with these settings says about itself."""
    from gridtokenx_agent.adapters.profile_files import find_profile
    from gridtokenx_wire.claim import Claim, ClaimedMeter

    meters = tuple(
        ClaimedMeter(
            meter_id=meter.meter_id,
            profile=Path(meter.profile).stem,
            resolution_wh=find_profile(meter.profile).resolution_wh,
            rated_power_w=meter.rated_power_w,
        )
        for bus in settings.bus
        for meter in bus.meter
    )
    return Claim(gateway_id=gateway_id, token=settings.gateway.token, meters=meters)
