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
