"""From a new machine to a gateway that can be enrolled, in under two minutes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gridtokenx_agent.commands.asking import (
    asked,
    check_file,
    check_key,
    check_mqtt_url,
    name_by_hand,
    name_found,
    optional,
)
from gridtokenx_agent.commands.options import complete_profile, json_option
from gridtokenx_agent.commands.skeleton import NewConfig, NewMeter, config_text
from gridtokenx_agent.errors import ConfigError
from gridtokenx_agent.settings import DEFAULT_PATH

if TYPE_CHECKING:
    from gridtokenx_agent.commands.searching import Search

_STATE = Path("/var/lib/gridtokenx")


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
@click.option("--mqtt-url", help="Broker, as mqtts://host:8883.")
@click.option("--password-file", help="File with the broker password.")
@click.option("--ca-file", help="Certificate authority of the broker.")
@click.option("--cloud-key", help="Public key of the cloud; checks receipts.")
@click.option("--token", help="Mint address the readings count for.")
@click.option("--bus-url", help="The bus; without --profile it is searched for meters.")
@click.option("--meter-id", help="Name of the meter, as it will be enrolled.")
@click.option("--profile", shell_complete=complete_profile, help="Its model.")
@click.option("--device-id", type=click.IntRange(0, 255), help="Its Modbus address, usually 1.")
@click.option("--interval-s", type=int, default=900, show_default=True, help="Slot length.")
@click.option("--sample-s", type=int, default=0, show_default=True, help="Live values; 0 = none.")
@click.option("--rated-power-w", type=int, default=None, help="Largest power of the connection.")
@json_option
def init(config: Path, key_file: Path, buffer: Path, as_json: bool, **given: Any) -> None:
    """Write configuration and key, and print what the cloud needs to enrol this gateway.

    Asks for what is not given and can not be guessed; looks for the meters itself if it may.
    """
    if config.exists():
        raise ConfigError((f"{config} exists already; edit it, or move it away",))
    by_hand = all(given[name] for name in ("mqtt_url", "cloud_key", "token", "bus_url", "profile"))
    answers = _cloud_answers(given, ask_files=not by_hand)
    meters = _meters(given)
    new = NewConfig(
        key_file=key_file,
        buffer=buffer,
        interval_s=given["interval_s"],
        sample_s=given["sample_s"],
        meters=meters,
        **answers,
    )
    _make(new, config, as_json=as_json)
    if not by_hand:
        _examine(config)


def _cloud_answers(given: dict[str, Any], *, ask_files: bool) -> dict[str, str]:
    mqtt_url = asked("--mqtt-url", given["mqtt_url"], "Broker (mqtts://host:8883)", check_mqtt_url)
    files: dict[str, str] = {name: given[name] or "" for name in ("password_file", "ca_file")}
    if ask_files and given["password_file"] is None:
        files["password_file"] = optional("File with the password at the broker", check_file)
    if ask_files and given["ca_file"] is None and mqtt_url.startswith("mqtts:"):
        files["ca_file"] = optional("Certificate authority of the broker", check_file)
    cloud_key = asked("--cloud-key", given["cloud_key"], "Public key of the cloud", check_key)
    token = asked("--token", given["token"], "Token the readings count for", check_key)
    return {"mqtt_url": mqtt_url, "cloud_key": cloud_key, "token": token, **files}


def _meters(given: dict[str, Any]) -> tuple[NewMeter, ...]:
    if given["bus_url"] and given["profile"] and given["meter_id"]:
        return (
            NewMeter(
                bus_url=given["bus_url"],
                meter_id=given["meter_id"],
                profile=given["profile"],
                device_id=1 if given["device_id"] is None else given["device_id"],
                rated_power_w=given["rated_power_w"],
            ),
        )
    if given["profile"]:
        return tuple(name_by_hand(given["bus_url"], given))
    return tuple(_searched(given))


def _searched(given: dict[str, Any]) -> Iterator[NewMeter]:
    """Look for meters where the user says; what was not found can be named by hand."""
    place = given["bus_url"] or asked(
        "--bus-url", None,
        "Where are the meters? usb = every serial port, HOST = Modbus TCP, a bus URL, or hand",
        lambda _text: None, "usb",
    )  # fmt: skip
    if place != "hand":
        search = _search(place)
        named = tuple(name_found(search.found, given))
        if named:
            yield from named
            return
        for remark in search.remarks:
            click.echo(f"note: {remark}", err=True)
        click.echo("No meter was recognised; name it.", err=True)
    yield from name_by_hand(given["bus_url"], given)


def _search(place: str) -> "Search":
    from gridtokenx_agent.adapters.profile_files import find_profile, profile_paths
    from gridtokenx_agent.commands.scan import run_search
    from gridtokenx_agent.commands.searching import Search

    search = Search(profiles={name: find_profile(name) for name in profile_paths()})
    is_url = "://" in place
    hosts = () if is_url or place == "usb" else (place,)
    try:
        run_search(search, (), hosts, (place,) if is_url else ())
    except ConfigError as exc:
        search.remarks += exc.faults
    return search


def _make(new: NewConfig, config: Path, *, as_json: bool) -> None:
    from gridtokenx_agent.adapters.host import give_to_folder_owner
    from gridtokenx_agent.adapters.keyfile import create_key, load_key
    from gridtokenx_agent.app import read_settings
    from gridtokenx_agent.commands.setup import claim_of
    from gridtokenx_wire.claim import encode_claim

    if new.key_file.exists():
        signer = load_key(new.key_file)
    else:
        signer = create_key(new.key_file)
        give_to_folder_owner(new.key_file)
    # A link is followed: behind it is a folder the service may write in.
    _write(config.resolve(), config_text(new))
    give_to_folder_owner(config.resolve())
    # After it is written, so that an answer that is wrong leaves a file to edit.
    claim = claim_of(read_settings(config), signer.gateway_id)
    line = encode_claim(claim, signer.sign).decode("ascii")
    if as_json:
        shown = {"gateway_id": signer.gateway_id, "config": str(config), "claim": line}
        click.echo(json.dumps(shown))
        return
    click.echo(f"gateway {signer.gateway_id}")
    click.echo(f"wrote   {config}")
    click.echo("\nIts claim, one signed line, for whoever runs the cloud:")
    click.echo(line)
    click.echo("\nThere it is enrolled, with its meters, by")
    click.echo("  gtx-cloud gateway accept CLAIM --user OWNER --name NAME")
    unknown = [meter.meter_id for meter in claim.meters if meter.rated_power_w is None]
    if unknown:
        click.echo(f"with --rated-power-w W in addition, for {', '.join(unknown)}")
    click.echo(f"\nThen: gtx-agent doctor --config {config}")


def _write(config: Path, text: str) -> None:
    try:
        config.parent.mkdir(parents=True, exist_ok=True)
        with config.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as exc:
        raise ConfigError((f"{config} cannot be written: {exc.strerror}",)) from exc


def _examine(config: Path) -> None:
    """Show what the doctor says; before it is enrolled, the broker may refuse the gateway."""
    from gridtokenx_agent.commands.doctor import examine, shown

    click.echo("", err=True)
    for check in examine(config):
        click.echo(shown(check), err=True)
