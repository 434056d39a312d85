"""Prints the reference of the configuration from the settings classes.

`python -m gridtokenx_agent.settings.document > docs/agent-configuration.md`.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Final, Literal, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gridtokenx_agent.settings.model import (
    AgentSettings,
    BufferSettings,
    BusSettings,
    CloudSettings,
    GatewaySettings,
    HomeAssistantSettings,
    LogSettings,
    MeterSettings,
    MetricsSettings,
    MqttSettings,
    ValidationSettings,
)

TABLES: Final[Mapping[str, tuple[type[BaseModel], str]]] = {
    "[gateway]": (GatewaySettings, "Who this gateway is."),
    "[cloud]": (CloudSettings, "Whom it believes."),
    "[mqtt]": (
        MqttSettings,
        "The broker between the two. With `mqtts://` it must show a certificate that `ca_file` or "
        "the system trusts; the gateway shows its own where `cert_file` is given, its password "
        "where `password_file` is.",
    ),
    "[buffer]": (BufferSettings, "Where records wait until the cloud has signed for them."),
    "[[bus]]": (BusSettings, "A serial port or TCP endpoint; one table for each."),
    "[[bus.meter]]": (MeterSettings, "A meter on the bus above it; one table for each."),
    "[validation]": (
        ValidationSettings,
        "When a value is refused or remarked on. `gtx-agent status` counts each rule by the name "
        "in brackets. Only the rules about energy ever keep a reading back; the others leave out "
        "or mark a live value.",
    ),
    "[log]": (LogSettings, "What is written to stderr, and so to the journal."),
    "[metrics]": (
        MetricsSettings,
        "`http://BIND/metrics` for Prometheus (names begin with `gridtokenx_agent_`), and "
        "`/healthz`, which answers 503 with the name of what stands still. Without a table there "
        "is no port. It asks for no password: bind it to an address only your own machines reach.",
    ),
    "[home_assistant]": (
        HomeAssistantSettings,
        "Shows counters and live values in a house by MQTT discovery, over a broker of its own. "
        "What is missed there is missed; it never delays the cloud.",
    ),
}
_HEAD: Final = """# Configuration of the agent

`gtx-agent` reads one TOML file, `/etc/gridtokenx/agent.toml` unless `--config` names another.
`gtx-agent init` writes it. An unknown key is a fault; `gtx-agent check-config` lists every fault at
once and exits with 2.

The environment stands above the file: `GTX_AGENT_` and the path of the key with `__` between its
parts, as `GTX_AGENT_LOG__LEVEL=debug`. An unknown name with that prefix is a fault.

This page is made from the settings classes; change those, then run
`python -m gridtokenx_agent.settings.document > docs/agent-configuration.md`.

## While it runs

`systemctl reload gridtokenx-agent` (SIGHUP) has the file read again. A bus that stays the same
never notices; one that changed is stopped and started with its counts; broker, metrics, log and
Home Assistant are changed alone. A file with a fault changes nothing, and the log names the fault.
`[gateway]`, `[cloud]` and `[buffer]` take a restart: `systemctl restart gridtokenx-agent`.

## What the cloud may change

`gtx-cloud gateway command GATEWAY_ID set-config FILE` sends a whole new file, signed. The gateway
checks it as above, refuses it where `[gateway]`, `[cloud]` or `[buffer]` differ, tries it, and
keeps it only when the meters and the broker that answered before answer again; otherwise the old
one goes on. What the environment sets stays above it. The file is replaced in its folder, or where
a link leads: the shipped service may write in `/var/lib/gridtokenx` alone.
"""
_MEANINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "[gateway]": {
        "key_file": "The gateway's key, mode 0600; `init` makes it",
        "token": "Mint address the readings count for",
    },
    "[cloud]": {
        "public_key": "Signs receipts and commands; a line is deleted on its receipt only",
    },
    "[mqtt]": {
        "url": "`mqtts://host:8883`, or `mqtt://host:1883` inside a network of your own",
        "username": "Default: the gateway id, where a password file is given",
        "password_file": "File with the password in one line",
        "ca_file": "Certificate authority of the broker; default: the system's",
        "cert_file": "Certificate of this gateway",
        "key_file": "Its key; default: it is in `cert_file`",
        "lines_per_s": "Most lines that leave in a second. The cloud takes 1,500 of one gateway "
        "and gives no receipt for more; less spares a thin link, and a backlog takes longer",
    },
    "[buffer]": {
        "path": "The SQLite file",
        "max_mb": "Its bound; from 70 % on samples are thinned, slots never",
        "resend_after_s": "A line the broker took goes again without a receipt after this, then "
        "after ever longer, up to 6 h",
        "group_s": "So long samples wait to share a commit, which spares the card; slots never "
        "wait",
        "reserve_mb": "A file beside it that is deleted when the disk is full, so that SQLite can "
        "work; 0 = none",
    },
    "[[bus]]": {
        "url": "`rtu:///dev/serial/by-id/...?baudrate=9600&parity=N&stopbits=1`, `tcp://host:502`, "
        "or serial frames through a serial server: `rtu+tcp://host:port?baudrate=9600`",
        "meter": "The `[[bus.meter]]` tables below it, at least one",
    },
    "[[bus.meter]]": {
        "meter_id": "Its name, as it is enrolled: up to 64 letters, digits, `.`, `-`, `_`",
        "profile": "A name of [meters.md](meters.md), or the path of a profile of your own",
        "device_id": "Its Modbus address, 1 to 247 on a serial bus",
        "interval_s": "Length of a slot; must divide a day",
        "sample_s": "Period of live values between slots; 0 = none",
        "rated_power_w": "Largest power it can see; with it impossible steps are refused",
        "accept_disputed": "You compared its counters with its display: count them although the "
        "sources of its profile differ",
    },
    "[validation]": {
        "step_percent": "Energy may grow by so much of the rated power over the time passed "
        "(`StepTooLarge`)",
        "zero_patience_s": "So long a counter that fell to exactly zero counts as asleep, not "
        "reset",
        "stuck_points": "So many quantities with the same register words are one stuck answer "
        "(`StuckResponse`)",
        "power_percent": "Power may reach so much of the rated power (`PowerAboveRated`)",
        "phase_percent": "Phases may differ from the total by so much (`PhasesDisagree`)",
        "energy_percent": "Power over time may differ from the counted energy by so much "
        "(`PowerAndEnergyDisagree`)",
        "energy_window_s": "Over at least this time",
        "voltage_min_v": "Lowest usual voltage, phase to neutral (`VoltageUnusual`)",
        "voltage_max_v": "Highest; raise it for a meter behind voltage transformers",
        "frequency_min_hz": "Lowest usual frequency (`FrequencyUnusual`)",
        "frequency_max_hz": "Highest",
        "event_every": "Of the refusals of one rule in a row the first and every so many-th is "
        "told",
    },
    "[log]": {
        "level": "The least important that is written",
        "format": "`text` for people, `json` for machines",
    },
    "[metrics]": {"bind": "Address and port, as `127.0.0.1:9101`; default: no port"},
    "[home_assistant]": {
        "url": "Its broker; default: off",
        "username": "Its user",
        "password_file": "File with the password in one line",
        "ca_file": "Certificate authority of that broker",
        "prefix": "Where Home Assistant looks for devices",
    },
}


def page() -> str:
    """Return the page as Markdown."""
    return _HEAD + "".join(_section(name) for name in TABLES)


def _section(name: str) -> str:
    model, words = TABLES[name]
    rows = "".join(_row(name, key, info) for key, info in model.model_fields.items())
    head = "| Key | Default | Allowed | Meaning |\n|---|---|---|---|\n"
    return f"\n## {name}\n\n{words}\n\n{head}{rows}"


def _row(table: str, key: str, info: FieldInfo) -> str:
    cells = (f"`{key}`", _default(info), _allowed(info), _MEANINGS[table][key])
    return f"| {' | '.join(cells)} |\n"


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    return "none" if info.default is None else f"`{str(info.default).lower()}`"


def _allowed(info: FieldInfo) -> str:
    bounds = dict(_bounds(info))
    if bounds:
        return f"{bounds[Ge]} to {bounds[Le]}"
    kind = next((one for one in _kinds(info.annotation) if one is not type(None)), str)
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    return {bool: "`true`, `false`", Path: "a path"}.get(kind, "text")


def _bounds(info: FieldInfo) -> Iterator[tuple[type, object]]:
    inner = [part for kind in _kinds(info.annotation) for part in getattr(kind, "__metadata__", ())]
    for entry in (*info.metadata, *inner):
        for one in (entry, *getattr(entry, "metadata", ())):
            if isinstance(one, Ge):
                yield Ge, one.ge
            elif isinstance(one, Le):
                yield Le, one.le


def _kinds(annotation: Any) -> tuple[Any, ...]:
    is_union = isinstance(annotation, UnionType) or get_origin(annotation) is not None
    return (
        get_args(annotation)
        if is_union and get_origin(annotation) is not Literal
        else (annotation,)
    )


def undocumented() -> list[str]:
    """Return the tables and keys that the page leaves out, or that are no more."""
    known = {f"[{name}]" for name in AgentSettings.model_fields} - {"[bus]"} | {
        "[[bus]]",
        "[[bus.meter]]",
    }
    keys = {f"{table} {key}" for table, (model, _) in TABLES.items() for key in model.model_fields}
    told = {f"{table} {key}" for table, words in _MEANINGS.items() for key in words}
    return sorted((known ^ TABLES.keys()) | (keys ^ told))


if __name__ == "__main__":
    sys.stdout.write(page())
