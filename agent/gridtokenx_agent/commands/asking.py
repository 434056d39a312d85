"""Questions of `gtx-agent init`; each answer is checked before the next question."""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gridtokenx_agent.commands.options import reason_of
from gridtokenx_agent.commands.skeleton import NewMeter
from gridtokenx_agent.errors import ConfigError, ProfileError

if TYPE_CHECKING:
    from gridtokenx_agent.commands.searching import FoundMeter

Check = Callable[[str], object]


def asked(
    flag: str, given: str | None, question: str, check: Check, default: str | None = None
) -> str:
    """Return what was given with the flag, or what the question brings.

    A wrong answer is told with its reason, and asked again. Without a default there must be one.

    Raises:
        UsageError: There is nobody to answer.
    """
    if given is not None:
        return given

    def checked(text: str) -> str:
        try:
            check(text)
        except ConfigError as exc:
            raise click.UsageError("; ".join(exc.faults)) from exc
        except (ProfileError, ValueError) as exc:
            raise click.UsageError(reason_of(exc)) from exc
        return text

    try:
        return str(
            click.prompt(
                question,
                default=default,
                show_default=bool(default),
                value_proc=checked,
                err=True,
            )
        )
    except click.Abort as exc:
        if sys.stdin.isatty():
            raise
        raise click.UsageError(f"{flag} is missing, and nobody is there to ask") from exc


def optional(question: str, check: Check) -> str:
    """Ask for something that may stay empty."""
    return asked(
        "", None, f"{question} (Enter = none)", lambda text: text and check(text), default=""
    )


def check_mqtt_url(text: str) -> None:
    """Refuse what is no broker URL."""
    from gridtokenx_agent.settings import MqttSettings

    MqttSettings(url=text)


def check_key(text: str) -> None:
    """Refuse what is no key in base58."""
    from gridtokenx_agent.settings import CloudSettings

    CloudSettings(public_key=text)


def check_file(text: str) -> None:
    """Refuse a path where no readable file is."""
    try:
        with Path(text).open("rb"):
            return
    except OSError as exc:
        raise ValueError(f"{text}: {exc.strerror}") from exc


def check_meter_id(text: str) -> None:
    """Refuse what is no meter id."""
    _meter(meter_id=text)


def check_device_id(text: str) -> None:
    """Refuse what is no Modbus address."""
    _meter(device_id=text)


def check_power(text: str) -> None:
    """Refuse what is no power in W."""
    _meter(rated_power_w=text)


def check_bus_url(text: str) -> None:
    """Refuse what is no bus."""
    from gridtokenx_agent.adapters.modbus import parse_bus_url

    parse_bus_url(text)


def check_profile(text: str) -> None:
    """Refuse what is no profile."""
    from gridtokenx_agent.adapters.profile_files import find_profile

    find_profile(text)


def name_by_hand(bus_url: str | None, given: Mapping[str, Any]) -> Iterator[NewMeter]:
    """Ask for what *given* does not say of one meter nobody found."""
    url = asked(
        "--bus-url", bus_url, "Bus (rtu:///dev/...?baudrate=9600&parity=N or tcp://host:502)",
        check_bus_url,
    )  # fmt: skip
    model = asked(
        "--profile", given["profile"], "Profile of the meter (see `gtx-agent profiles`)",
        check_profile,
    )  # fmt: skip
    device_id = given["device_id"]
    if device_id is None:
        device_id = int(asked("--device-id", None, "Its Modbus address", check_device_id, "1"))
    yield _named(url, model, device_id, given)


def name_found(found: "list[FoundMeter]", given: Mapping[str, Any]) -> Iterator[NewMeter]:
    """Ask which profile each found meter has, and how it is called.

    What *given* says of a meter is said of one: where there are several, each is asked for.
    """
    fitting = [meter for meter in found if meter.device.fits]
    for meter in fitting:
        best = meter.device.fits[0].profile
        click.echo(f"{meter.url}, device id {meter.device.device_id}:", err=True)
        model = asked("--profile", None, "  Profile", check_profile, best)
        said = given if len(fitting) == 1 else {}
        yield _named(meter.url, model, meter.device.device_id, said)


def _named(url: str, profile: str, device_id: int, given: Mapping[str, Any]) -> NewMeter:
    meter_id = asked(
        "--meter-id", given.get("meter_id"), "  Its name, as it will be enrolled", check_meter_id
    )
    power = given.get("rated_power_w")
    if power is None:
        power = optional("  Largest power of the connection in W", check_power)
    return NewMeter(
        bus_url=url,
        meter_id=meter_id,
        profile=profile,
        device_id=device_id,
        rated_power_w=int(power) if power else None,
    )


def _meter(**values: Any) -> None:
    from gridtokenx_agent.settings import MeterSettings

    MeterSettings.model_validate({"meter_id": "M", "profile": "p", "device_id": 1} | values)
